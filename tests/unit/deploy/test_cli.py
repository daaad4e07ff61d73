import errno
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import get_args

import click
import pytest
from aiokafka.errors import KafkaTimeoutError

from deploy.cli.follow import FollowedHop, _Following
from deploy.cli.main import COMMANDS, main
from deploy.cli.output import Form
from deploy.cli.stack import Tail
from deploy.embedded.shared_files import alone
from deploy.embedded.stack import EmbeddedStack
from models.errors import Fatal, InvalidCommand, InvalidSettings, QueryError, Rejected
from streams.encryption.keys import master_keys
from streams.settings import Settings
from tests.harness.command_line import cqrs_command
from tests.harness.command_tree import leaves


def breaks_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Add a command that raises this."""

    def raise_it() -> None:
        raise error

    json_option = click.Option(["--json"], is_flag=True, expose_value=False)
    command = click.Command("breaks", callback=raise_it, params=[json_option])
    monkeypatch.setattr(f"{__name__}.breaks", command, raising=False)
    monkeypatch.setitem(COMMANDS, "breaks", (f"{__name__}:breaks", ""))


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


@pytest.mark.parametrize("group", ["", "topics", "search"])
def test_a_group_without_a_command_shows_its_help(
    capsys: pytest.CaptureFixture[str], group: str
) -> None:
    assert run(*group.split()) == 2
    shown = capsys.readouterr().err
    assert run(*group.split(), "--help") == 0
    assert shown == capsys.readouterr().out


def test_no_line_of_help_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = {path[:-1] for path, _ in leaves()}
    for group in sorted(groups):
        run(*group, "--help")
        assert "...\n" not in capsys.readouterr().out.replace("[ARGS]...\n", ""), group


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


FAILURES = [
    (Fatal("the disk is full: make room in /data"), 75, "the disk is full: make room in /data"),
    (Rejected("user-erased", "User was erased"), 1, "User was erased"),
    (InvalidCommand(["email: is missing"]), 2, "email: is missing"),
    (InvalidSettings(["CQRS_X is not a setting"]), 2, "CQRS_X is not a setting"),
    (QueryError("limit must be from 1 to 1000"), 2, "limit must be from 1 to 1000"),
    (
        KafkaTimeoutError("40000 ms"),
        75,
        "Kafka failed: KafkaTimeoutError: 40000 ms",
    ),
    (OSError(errno.ENOSPC, "No space left on device"), 75, "No space left on device"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a"), 75, "No such file (a)"),
    (ZeroDivisionError("division by\nzero"), 70, "this is a defect: ZeroDivisionError: division"),
]


@pytest.mark.parametrize(("error", "code", "line"), FAILURES, ids=lambda it: type(it).__name__)
def test_a_failure_is_one_line_and_an_exit_code(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    line: str,
) -> None:
    breaks_with(monkeypatch, error)
    assert run("breaks") == code
    shown = capfd.readouterr().err
    assert shown.startswith(f"cqrs: {line}")
    assert shown.count("\n") == 1
    assert run("breaks", "--json") == code
    assert json.loads(capfd.readouterr().err) == {"error": shown.removeprefix("cqrs: ").strip()}
    monkeypatch.setenv("CQRS_DEBUG", "1")
    run("breaks")
    assert "Traceback" in capfd.readouterr().err


def test_output_that_cannot_be_encoded_is_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks_with(monkeypatch, UnicodeEncodeError("ascii", "ä", 0, 1, "no"))
    assert run("breaks") == 75
    assert "cannot be written as ascii: set PYTHONIOENCODING=utf-8" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [(KeyboardInterrupt(), 130, "interrupted"), (click.Abort(), 1, "nothing was changed")],
)
def test_it_was_interrupted_or_not_confirmed(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    line: str,
) -> None:
    breaks_with(monkeypatch, error)
    assert run("breaks") == code
    assert capfd.readouterr().err.strip() == f"cqrs: {line}"


@pytest.mark.parametrize(
    ("answer", "code", "line"),
    [("", 2, "nobody can be asked here: add --yes"), ("n\n", 1, "nothing was changed")],
)
def test_a_question_in_a_pipe(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    line: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert run("erase", "anna") == code
    question, last = capfd.readouterr().err.splitlines()
    assert question.startswith("Erase user anna for good?")
    assert last == f"cqrs: {line}"


def test_a_reader_that_has_enough_is_no_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks_with(monkeypatch, BrokenPipeError())
    assert run("breaks") == 0
    assert capfd.readouterr().err == ""


SPEAKS = """
import sys
import click
from deploy.cli import main as cli

@click.command()
@click.pass_context
def speaks(ctx):
    for number in range(100):
        click.echo(f"line {number}", err=True)
    click.echo("done")
    ctx.exit(3)

sys.modules["speaks"] = sys.modules["__main__"]
cli.COMMANDS["speaks"] = ("speaks:speaks", "")
cli.installed_commands = lambda: ["speaks"]
cli.main(["speaks"])
"""


@pytest.fixture
def without_reader() -> Iterator[int]:
    """The end of a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def test_a_reader_of_errors_that_has_enough_does_not_stop_the_work(without_reader: int) -> None:
    command = [sys.executable, "-c", SPEAKS]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=without_reader, text=True)
    assert (done.returncode, done.stdout) == (3, "done\n")


def test_errors_are_written_as_before() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAKS], capture_output=True, text=True)
    assert done.stderr.splitlines() == [f"line {number}" for number in range(100)]


@pytest.mark.parametrize("form", ["table", "json"])
def test_the_exit_code_says_the_same_if_nobody_reads_the_output(
    without_reader: int, tmp_path: Path, form: str
) -> None:
    command = cqrs_command("status", "-o", form)
    done = subprocess.run(
        command, stdout=without_reader, stderr=subprocess.PIPE, env=without_servers(tmp_path)
    )
    assert (done.returncode, done.stderr) == (3, b"")


@pytest.mark.parametrize(
    ("closed", "is_shown"),
    [("<&-", True), (">&-", False), ("2>&-", True), ("<&- >&- 2>&-", False)],
)
def test_standard_streams_may_be_closed(tmp_path: Path, closed: str, is_shown: bool) -> None:
    command = f"{shlex.join(cqrs_command('status'))} {closed}"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=without_servers(tmp_path)
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert bool(done.stdout) is is_shown


def without_servers(home: Path) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("CQRS_")}
    return {**others, "CQRS_STACK_HOME": str(home)}


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fly") == 2
    assert "No such command 'fly'" in capsys.readouterr().err


def test_a_second_cqrs_dev_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CQRS_STACK_HOME", str(tmp_path))
    EmbeddedStack().down()
    with alone(tmp_path / ".dev.lock", "it is free"):
        assert run("dev") == 75
    assert capsys.readouterr().err.startswith(f"cqrs: `cqrs dev` runs already in {tmp_path}: ")


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
    assert master_keys(Settings()) is not None
    assert run("keys", "new") == 0
    assert capsys.readouterr().out != f"{line}\n"


FIRST_PROCESS = """
import os, signal, sys, time
import click
from deploy.cli import main as cli

@click.command()
def waits():
    print("waiting", flush=True)
    time.sleep(60)

# The kernel takes no default action for process 1, the first one of a container.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.getpid = lambda: 1
sys.modules["waits"] = sys.modules["__main__"]
cli.COMMANDS["waits"] = ("waits:waits", "")
cli.installed_commands = lambda: ["waits"]
cli.main(["waits"])
"""


def test_sigterm_ends_a_command_that_is_the_first_process_of_a_container() -> None:
    command = [sys.executable, "-c", FIRST_PROCESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.terminate()
        assert process.wait(30) == 143


@pytest.mark.parametrize("given", ["nan", "NaN", "-nan"])
def test_no_option_takes_what_is_not_a_number(given: str) -> None:
    """A range of click's does: it is neither too small nor too large."""
    numbers = [
        option
        for _, command in leaves()
        for option in command.params
        if isinstance(option.type, type(click.FLOAT))
    ]
    assert len(numbers) > 10
    for option in numbers:
        with pytest.raises(click.BadParameter, match="is not a number"):
            option.type.convert(given, option, None)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("serach email a", "No such command 'serach': did you mean search? See `cqrs --help`"),
        ("search emial a", "No such command 'emial': did you mean email? See `cqrs search --help`"),
        ("active --limt 3", "No such option: --limt: did you mean --limit? See `cqrs active -"),
        ("views status user-view", "did you mean user-views?"),
        ("search anna", "No such command 'anna': did you mean `cqrs search email`? See `cqrs sea"),
        (
            "registrations --from 1.1.2026",
            "Invalid value for '--from': write it like 2026-01-31. See `cqrs registrations --help`",
        ),
        ("follow 2f1c7f0e-6a60-4a55-9f0e-0f6a1d2f3b4c --since inf", "--since': inf is not in the"),
        ("tail deads", "did you mean dead? See `cqrs tail --help`"),
        (
            "worker",
            "cqrs: Missing argument: one of commands, views, registrations. See `cqrs worker -",
        ),
        ("active --limit x", "See `cqrs active --help`"),
        ("send register", "Missing option '--email'. See `cqrs send register --help`"),
        ("get", "Missing argument 'ID'. See `cqrs get --help`"),
        ("fly", "No such command 'fly'. See `cqrs --help`"),
        (
            "send erase",
            "No such command 'erase': did you mean `cqrs erase`? See `cqrs send --help`",
        ),
        ("register", "No such command 'register': did you mean `cqrs send register`? See `cqrs -"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_was_meant(
    capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert run(*arguments.split()) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.startswith("cqrs: ")
    assert line in shown


@pytest.mark.parametrize(
    ("arguments", "variables", "line"),
    [
        ("worker comands", {}, "'comands' is not one of commands, views, registrations: did"),
        ("worker commands", {"CQRS_PARTITIONS": "x"}, "CQRS_PARTITIONS is not valid: it must"),
        ("worker commands", {"CQRS_MASTER_KEY_FILE": "/nowhere"}, "CQRS_MASTER_KEY_FILE"),
    ],
)
def test_the_last_line_of_cqrs_worker_has_the_form_of_its_log(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    variables: dict[str, str],
    line: str,
) -> None:
    monkeypatch.setenv("CQRS_LOG_FORMAT", "json")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(*arguments.split()) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    found = json.loads(shown)
    assert found["message"].startswith(line)
    assert (found["worker"], found["event"]) == ("cqrs worker", "worker-failed")
    assert run("get") == 2
    assert capsys.readouterr().err.startswith("cqrs: Missing argument 'ID'")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("send update --id a --first-name=", "--first-name: must not be empty"),
        ("send deactivate --id=", "--id: must not be empty"),
        ("erase --yes --", "Missing argument 'ID'. See `cqrs erase --help`"),
        ("registrations --from 2026-02-01 --to 2026-01-01", "--from must not be after --to"),
    ],
)
def test_a_wrong_value_is_named_as_it_is_typed(
    capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert run(*arguments.split()) == 2
    assert capsys.readouterr().err == f"cqrs: {line}\n"


@pytest.mark.parametrize("path", [path for path, _ in leaves()], ids=" ".join)
def test_every_help_has_an_example_that_is_right(
    capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    command = dict(leaves())[path]
    assert run(*path, "--help") == 0
    shown = capsys.readouterr().out.partition("For example:\n")[2].strip()
    lines = [line.strip() for line in shown.splitlines()]
    own = [line for line in lines if f"cqrs {' '.join(path)}" in line]
    assert own, "an example"
    for line in own:
        (_, _, given) = line.partition(f"cqrs {' '.join(path)}")
        words = shlex.split(re.split(r'["|;>)]', given, maxsplit=1)[0])
        context = click.Context(command, info_name=path[-1], resilient_parsing=True)
        command.make_parser(context).parse_args(words)  # it has these options


@pytest.mark.parametrize(
    ("shell", "words", "shown"),
    [
        ("bash", "cqrs sea", "search"),
        ("bash", "cqrs views st", "status"),
        ("zsh", "cqrs search em", "email"),
        ("fish", "cqrs send --f", "--from"),
    ],
)
def test_shells_complete_commands_and_options(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    words: str,
    shown: str,
) -> None:
    assert run("completion", shell) == 0
    assert "_CQRS_COMPLETE" in capsys.readouterr().out
    monkeypatch.setenv("_CQRS_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    word = words.split()[-1]
    monkeypatch.setenv("COMP_CWORD", word if shell == "fish" else str(len(words.split()) - 1))
    assert run() == 0
    assert shown in capsys.readouterr().out


# Commands without -o, and why.
WITHOUT_FORMS = {
    **dict.fromkeys(("dev", "worker"), "run until they are ended; what they say is a log"),
    "logs": "prints logs as the servers wrote them",
    **dict.fromkeys(("completion", "env", "keys new"), "print lines for a shell"),
    **dict.fromkeys(("schema", "topics acls", "topics manifest"), "print a document for a tool"),
    "generate": "prints commands for `cqrs send`",
    "bench": "prints tables for people; --output is the file with all figures",
}


@pytest.mark.parametrize("path", [path for path, _ in leaves()], ids=" ".join)
def test_every_command_has_all_forms_of_output_or_a_reason(path: tuple[str, ...]) -> None:
    options = {name for one in dict(leaves())[path].params for name in one.opts}
    has_none = " ".join(path) in WITHOUT_FORMS or path[0] in WITHOUT_FORMS
    assert ("-o" in options) is not has_none
    assert ("--json" in options) is not has_none


def test_there_are_no_reasons_for_commands_that_are_gone() -> None:
    names = {" ".join(path) for path, _ in leaves()} | {path[0] for path, _ in leaves()}
    assert names >= WITHOUT_FORMS.keys()


def test_a_stack_that_is_not_there_is_stopped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "none"
    monkeypatch.setenv("CQRS_STACK_HOME", str(home))
    assert run("down") == 0
    assert capsys.readouterr().out == f"there is no stack in {home}\n"
    assert run("down", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"home": str(home), "state": "stopped", "hasData": False}


def test_a_hop_is_a_line_in_each_form(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
    for form in get_args(Form):
        hop = FollowedHop("event", at, 0.0, "of the broker", topic="t")
        _Following(Settings(), form).print_hop(hop, "#1")
    table, as_json, ndjson, as_tsv = capsys.readouterr().out.splitlines()
    assert table == "12:00:00.000Z      +0.000 s  event       #1"
    assert (
        json.loads(as_json)
        == json.loads(ndjson)
        == {
            "hop": "event",
            "at": "2026-11-29T12:00:00Z",
            "seconds": 0.0,
            "clock": "of the broker",
            "topic": "t",
            **dict.fromkeys(("partition", "offset", "aggregateId", "type", "sequence", "outcome")),
        }
    )
    assert as_tsv == "event\t0.0\tt\t\t\t\t"
