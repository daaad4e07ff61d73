"""The first look of the README, pasted line by line, on servers and workers of `cqrs dev`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from deploy.supervisor import running
from deploy.waiting import wait_until
from tests.harness.command_line import ROOT

pytestmark = pytest.mark.timeout(600)  # a score of commands, each a process: slow when it is busy

CQRS = f"{sys.executable} -m deploy.cli"
# Read from the environment alone, as any other program does.
ADDRESS = f"{sys.executable} -c 'from streams.settings import settings; print(settings())'"


def lines_of_the_first_look() -> list[str]:
    page = (ROOT / "README.md").read_text()
    section = page.partition("## A first look\n")[2].partition("\n## ")[0]
    text = "\n".join(re.findall(r"^    (.+)$", section, re.MULTILINE))
    return text.replace("\\\n", "").replace("./run cqrs", CQRS).splitlines()


async def test_the_first_look_of_the_readme(tmp_path: Path) -> None:
    first, *others = lines_of_the_first_look()
    assert first == f"{CQRS} dev"
    environment = {name: value for name, value in os.environ.items() if name[:5] != "CQRS_"}
    environment |= {
        "CQRS_STACK_HOME": str(tmp_path / "stack"),
        "CQRS_SESSION_TIMEOUT": "6",
        "CQRS_PARTITIONS": "2",
        "COLUMNS": "200",
    }
    log = tmp_path / "dev.log"
    with running(first.split(), environment, log, cwd=ROOT) as dev:
        await wait_until(
            lambda: "Everything is ready" in log.read_text() or dev.poll() is not None,
            timeout=180,
            what="everything is ready",
        )
        assert dev.poll() is None, log.read_text()
        family = psutil.Process(dev.pid).children(recursive=True)
        assert len(family) == 5  # two servers and three workers
        script = [
            f"set -v\n{line}"
            for line in [
                *others,
                ADDRESS,
                f"{CQRS} get anna",
                f"{CQRS} status",
                f"until {CQRS} top --once; do true; done",  # a worker may be slow to answer
                f"until {CQRS} doctor --timeout 60; do true; done",
            ]
        ]
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-e", "-o", "pipefail"],
            input="\n".join(script),
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        told = f"{done.stdout}\n{done.stderr}\n{log.read_text()}"
        assert done.returncode == 0, told
        for shown in (
            "accepted: user anna is at version 1",
            "Anna.Muster@example.org",
            "anna.m@example.org",
            "sent 20,000 commands",
            "duplicate, 0 dead-lettered",
            "The state at version 2:",
            "user clara is erased, at version 2",
            "encrypt_personal_data=True",
            "topics    7\nworkers   commands: 1, ",
            "          views: 1\n",
            "user-views: user-views-v1 serving, ",
            "3 of 3 workers answer",
            "nothing is wrong",
        ):
            assert shown in done.stdout, told
        assert "commands was ended by SIGKILL; starting it again" in log.read_text()

        dev.send_signal(signal.SIGINT)  # not to its group, as no terminal is there
        assert dev.wait(60) == 0, log.read_text()
        assert psutil.wait_procs(family, timeout=10)[1] == []
    assert sorted(path.name for path in (tmp_path / "stack").glob("*.pid")) == []
