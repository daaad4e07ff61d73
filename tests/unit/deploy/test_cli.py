import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from deploy.cli.main import COMMANDS, main
from deploy.cli.stack import Tail
from models.errors import Fatal
from streams.encryption.keys import master_key
from streams.settings import Settings


@click.command()
def breaks() -> None:
    raise Fatal("the disk is full: make room in /data")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_help_names_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, (_, text) in COMMANDS.items():
        assert f"{name} {text}" in shown


def test_help_imports_no_command() -> None:
    heavy = {"rich", "pydantic", "psutil", "faust", "aiokafka", "elasticsearch", "jpype", "jgo"}
    script = "import sys, deploy.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not heavy.intersection(loaded)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists(name: str) -> None:
    module, attribute = COMMANDS[name][0].split(":")
    assert isinstance(getattr(import_module(module), attribute), click.Command)


def test_an_error_that_we_raise_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "breaks", (f"{__name__}:breaks", ""))
    assert run("breaks") == 1
    assert capsys.readouterr().err == "cqrs: the disk is full: make room in /data\n"


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fly") == 2
    assert "No such command 'fly'" in capsys.readouterr().err


def test_a_log_is_followed_by_whole_lines_and_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    tail = Tail(log, "kafka ")
    log.write_text("one\ntwo\nthr")
    assert tail.new_lines() == ["kafka one", "kafka two"]
    assert tail.new_lines() == []
    log.write_text("one\ntwo\nthree\n")
    assert tail.new_lines() == ["kafka three"]
    log.rename(tmp_path / "kafka.log.1")
    assert tail.new_lines() == []
    log.write_text("four\n")
    assert tail.new_lines() == ["kafka four"]


def test_a_new_master_key_is_one_that_the_settings_take(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("keys", "new") == 0
    (line,) = capsys.readouterr().out.splitlines()
    name, _, key = line.removeprefix("export ").partition("=")
    monkeypatch.setenv(name, key)
    assert master_key(Settings()) is not None
    assert run("keys", "new") == 0
    assert capsys.readouterr().out != f"{line}\n"
