"""A worker's process: how it starts, how it is stopped, and what its exit code says.

    0    it was asked to stop (SIGTERM or SIGINT) and did so in good order
    1    it could not go on: the last line says why
    124  it was asked to stop and had not done so in time: it left as it was
    143  it was asked a second time, and left at once

None of them loses anything. What was under way and not committed is aborted, by the worker, by the
next owner of the partition or by the broker, and done again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn, cast

import faust

from models.errors import Fatal
from streams.worker.host import Host
from streams.worker.logs import log_defect

# Seconds after which a worker that was asked to stop leaves, whatever still keeps it. What it does
# in good order has bounds of its own, which together are shorter; see `StreamApp.on_stop`.
STOP_DEADLINE = 9.0

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_TOO_LATE = 124  # as `timeout` says it
_AT_ONCE = 128 + signal.SIGTERM


class StreamWorker(faust.Worker):
    """Faust's worker process, which ends when it has to: in time, with one line and a code."""

    def execute_from_commandline(self) -> NoReturn:
        """Run until stopped."""
        # Blocked in this thread and in all that it starts, they wait for the one that heeds them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=self._heed_signals, name="signals", daemon=True).start()
        try:
            super().execute_from_commandline()
        except asyncio.CancelledError:
            pass  # what Faust takes for a crash where it is stopped amid a rebalance
        except SystemExit:
            if self._failure is None:
                raise
        if self._failure is not None:
            print(f"error: {self._failure}", file=sys.stderr)
        raise SystemExit(0 if self._failure is None else 1)

    async def start(self) -> None:
        """Start; what prevents that is what the worker ends with."""
        app = self._host
        try:
            await super().start()
        except Fatal as error:
            app.fail(error)
        except Exception as error:
            log_defect("starting", error)
            app.fail(Fatal(f"the worker cannot start: {error!r}"))

    async def on_first_start(self) -> None:
        """Check what the worker needs before anything of it starts."""
        await super().on_first_start()
        await self._host.preflight()
        tune_gc()

    @property
    def _host(self) -> Host:
        return cast("Host", self.app)

    @property
    def _failure(self) -> Fatal | None:
        return self._host.failure

    def _heed_signals(self) -> None:
        """Stop at the first signal; leave at the second one, or when the time is over.

        This runs in a thread of its own: an event loop that is blocked, or waits for a server that
        does not answer, keeps nobody waiting.
        """
        signal.sigwait(_SIGNALS)
        with suppress(RuntimeError):  # the loop is closed: the process is about to end
            self.loop.call_soon_threadsafe(self._on_sigterm)
        again = signal.sigtimedwait(_SIGNALS, STOP_DEADLINE)
        if self._failure is not None:
            line, code = str(self._failure), 1
        elif again is not None:
            line, code = "asked to stop a second time: leaving at once", _AT_ONCE
        else:
            line, code = f"not stopped in {STOP_DEADLINE:g} s: leaving as it is", _TOO_LATE
        os.write(2, f"error: {line}\n".encode())
        os._exit(code)


def tune_gc() -> None:
    """Collect seldom, and never what there is by now; for the whole process, when it has started.

    A chunk makes and drops tens of thousands of small objects without a cycle among them, and a
    view keeps its documents: collecting as often as usual is 7% of what a command worker does, and
    a quarter of what making a view anew does.
    """
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
