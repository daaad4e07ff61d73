"""The folder of a stack, and the processes that it lets go, without servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.embedded.processes import ServerProcess, all_or_none
from deploy.embedded.stack import EmbeddedStack
from models.errors import Fatal


@pytest.mark.parametrize(
    "use",
    [
        lambda stack: stack.down(purge=True),
        lambda stack: stack.down(),
        lambda stack: stack.up(),
        lambda stack: stack.encrypt(),
    ],
    ids=["purge", "down", "up", "encrypt"],
)
def test_the_folder_of_somebody_else_stays_as_it_is(
    tmp_path: Path, use: Callable[[EmbeddedStack], object]
) -> None:
    precious = tmp_path / "data" / "precious"
    precious.parent.mkdir()
    precious.write_text("mine")
    tmp_path.chmod(0o755)
    with pytest.raises(Fatal, match="other files than those of a stack.*CQRS_STACK_HOME"):
        use(EmbeddedStack(tmp_path))
    assert precious.read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["data"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_purge_leaves_what_is_not_of_the_stack(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path / "new")
    stack.encrypt()
    (stack.home / "notes").write_text("mine")
    stack.down(purge=True)
    assert {one.name for one in stack.home.iterdir()} == {".lock", "notes"}
    stack.encrypt()


def server(name: str, home: Path, program: str) -> ServerProcess:
    """A server with this program in the place of its JVM."""
    started = ServerProcess(name, home)
    started.log.parent.mkdir(exist_ok=True)
    (home / "logs" / f"{name}.out").write_text("no memory is left\n")
    started._child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    return started


def test_servers_outlive_this_process_together_or_not_at_all(tmp_path: Path) -> None:
    waiting = server("elasticsearch", tmp_path, "import sys; sys.stdin.read()")
    ended = server("kafka", tmp_path, "")
    child, gone = waiting._child, ended._child
    assert child is not None
    assert gone is not None
    gone.wait()
    why = "^Kafka ended right after its start: no memory is left$"
    with pytest.raises(Fatal, match=why), all_or_none([ended, waiting]):
        ended.release()
    assert child.poll() == -signal.SIGKILL
