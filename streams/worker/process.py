"""A worker's process: how it starts, how it stops, and what its exit code means.

    0    it was asked to stop (SIGTERM or SIGINT) and has stopped in order
    1    it could not continue: the last line says why; or it was asked to stop and some code let no
         other run: the last lines say where
    124  it was asked to stop and did not in time: it exited as it was
    143  it was asked to stop a second time, a second or more after the first, and exited at once

None of them loses anything. What was not committed yet is aborted, by the worker, by the next owner
of the partition or by the broker, and done again.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import resource
import signal
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn, cast

import faust
from faust.cli.worker import worker as worker_command
from faust.types import AppT

from models.errors import Fatal
from streams.kafka.clients import connection_options
from streams.settings import Settings, settings
from streams.worker.host import Host
from streams.worker.logs import end_log, last_line, log_defect

# A worker that was asked to stop exits after this time, whatever blocks it. The steps of stopping
# have limits of their own, which together are shorter; see `StreamApp.on_stop`.
STOP_DEADLINE_S = 9.0

# How much later it exits if not even the thread that waits for the deadline runs: before the
# supervisor kills it, and with time for that thread on a busy machine.
_BLOCKED_S = 2.0

# Signals within this time are one request: systemd signals a supervisor and its workers at the same
# time, and the supervisor passes its signal on to them.
_ONE_REQUEST_S = 1.0

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_EXIT_TOO_LATE = 124  # as timeout(1) returns
_EXIT_AT_ONCE = 128 + signal.SIGTERM


def worker_settings() -> Settings:
    """Return the settings of this worker process, for the module that creates its app.

    If they or their files are not valid the process exits with one line and code 1. Raised while
    Faust imports that module, an error would be a traceback.
    """
    try:
        connection_options(settings())
        return settings()
    except Fatal as error:
        raise SystemExit(f"error: {error}") from None


def raise_descriptor_limit() -> None:
    """Let this process open as many files and connections as the system allows it.

    By default it is often 1024, for programs that call select(2). A command worker needs two to
    four per partition, twice that while it starts, and more with `CQRS_STATE_DIR`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # no limit, but the system has one of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class StreamWorker(faust.Worker):
    """Faust's worker process; it ends when it has to: in time, with one line and an exit code."""

    def __init__(self, app: AppT, **options: Any) -> None:
        """Create the process of ``app``; it never debugs, and says nothing but what it logs.

        Faust would debug for FAUST_DEBUG, and open a console to everybody on this machine; and it
        would greet with a banner, which names folders that are never made.
        """
        super().__init__(app, **{**options, "debug": False, "quiet": True})
        self.spinner = None
        worker_command.on_worker_created = _print_nothing  # type: ignore[method-assign, assignment]

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Leave the log as `logging_config` made it: Faust's own level is not asked for."""

    def execute_from_commandline(self) -> NoReturn:
        """Run until stopped, and exit with a code of this module's table."""
        raise_descriptor_limit()
        # Blocked in this thread and in all that it starts: only `_handle_signals` receives them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=self._handle_signals, name="signals", daemon=True).start()
        try:
            super().execute_from_commandline()
        except asyncio.CancelledError:
            pass  # Faust raises this as a crash if it is stopped during a rebalance
        except SystemExit:
            if self._failure is None:
                raise
        if self._failure is not None:
            end_log(self._last_line(str(self._failure)))
        raise SystemExit(0 if self._failure is None else 1)

    async def start(self) -> None:
        """Start; an error that prevents it stops the worker with one line."""
        app = self._host
        try:
            await super().start()
        except Fatal as error:
            app.fail(error)
        except Exception as error:
            log_defect("starting", error)
            app.fail(Fatal(f"the worker cannot start: {error!r}"))

    async def on_first_start(self) -> None:
        """Check what the worker needs before its services start."""
        await super().on_first_start()
        await self._host.preflight()
        tune_gc()

    @property
    def _host(self) -> Host:
        return cast("Host", self.app)

    @property
    def _failure(self) -> Fatal | None:
        return self._host.failure

    def _last_line(self, text: str) -> str:
        return last_line(text, self._host.settings.log_format, self.app.conf.id)

    def _handle_signals(self) -> None:
        """Stop at the first signal; exit at the second one, or when the deadline has passed.

        Runs in a thread of its own, so that a blocked event loop, or one that waits for a server
        that does not respond, delays nothing.
        """
        signal.sigwait(_SIGNALS)
        asked = time.monotonic()
        # Takes no thread of Python's: also if code of a library lets none run, or the interpreter
        # is ending. It writes where each thread is.
        faulthandler.dump_traceback_later(STOP_DEADLINE_S + _BLOCKED_S, exit=True, file=2)
        with suppress(RuntimeError):  # the loop is closed: the process is about to end
            self.loop.call_soon_threadsafe(self._on_sigterm)
        while True:
            passed = time.monotonic() - asked
            again = signal.sigtimedwait(_SIGNALS, max(STOP_DEADLINE_S - passed, 0))
            if again is None or time.monotonic() - asked > _ONE_REQUEST_S:
                break
        if self._failure is not None:
            line, code = str(self._failure), 1
        elif again is not None:
            line, code = "asked to stop a second time: leaving at once", _EXIT_AT_ONCE
        else:
            line, code = f"not stopped in {STOP_DEADLINE_S:g} s: leaving as it is", _EXIT_TOO_LATE
        os.write(2, f"{self._last_line(line)}\n".encode())
        os._exit(code)


def _print_nothing(_command: object, _worker: object) -> None:
    """Take the place of what prints Faust's banner."""


def tune_gc() -> None:
    """Freeze what start-up allocated and collect less often; call once, after start-up.

    A chunk creates and drops tens of thousands of small objects without a cycle among them, and a
    view keeps its documents: collecting as often as usual takes 7% of a command worker's time, and
    a quarter of a view's rebuild.
    """
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
