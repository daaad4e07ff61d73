"""The `cqrs` command line: the table of all commands, and `main`.

A command's module is imported when the command runs, not for `--help`: that keeps `--help` fast.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.exceptions import Exit, NoArgsIsHelpError
from click.shell_completion import CompletionItem

from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import wants_json
from deploy.cli.standard_streams import discard_output, prepare_streams
from deploy.programs import os_error_line
from models.errors import CqrsError, InvalidCommand, InvalidSettings, QueryError, Rejected

# name -> (module:attribute of a click command, its one line of help), in the order of `--help`
COMMANDS = {
    "dev": ("deploy.cli.dev:dev", "Run servers, topics and all workers in one terminal."),
    "up": ("deploy.cli.stack:up", "Start the embedded Kafka and Elasticsearch."),
    "down": ("deploy.cli.stack:down", "Stop them; the data is kept unless you purge it."),
    "status": (
        "deploy.cli.status:status",
        "Show servers, topics, workers, views, and what to do next.",
    ),
    "env": ("deploy.cli.env:env", "Print the variables of the running stack, for a shell."),
    "logs": ("deploy.cli.stack:logs", "Show the logs of the servers."),
    "config": ("deploy.cli.config:config", "Show the settings in effect, and where they are from."),
    "topics": ("deploy.cli.topics:topics", "Create the topics, or skip expired commands."),
    "worker": ("deploy.cli.worker:worker", "Run workers that decide commands or update a view."),
    "send": ("deploy.cli.send:send", "Send one command and show its outcome, or send a file."),
    "erase": ("deploy.cli.erase:erase", "Erase a user, and check what is left."),
    "keys": ("deploy.cli.keys:keys", "Create a master key, or replace it by another one."),
    "get": ("deploy.cli.queries:get", "Show one user."),
    "search": ("deploy.cli.queries:search", "Find users by a part of their email address."),
    "active": ("deploy.cli.queries:active", "List the active users."),
    "new": ("deploy.cli.queries:new", "List users as they arrived, from where you stopped."),
    "registrations": (
        "deploy.cli.registrations:registrations",
        "Show how many users registered, by day and source.",
    ),
    "tail": ("deploy.cli.tail:tail", "Show events, outcomes or dead letters as they arrive."),
    "dead": ("deploy.cli.dead:dead", "Show, replay or drop what could not be decided."),
    "history": ("deploy.cli.history:history", "Show everything that happened to one user."),
    "follow": ("deploy.cli.follow:follow", "Show the way of one command, while it happens."),
    "top": ("deploy.cli.top:top", "Show what the workers are doing now."),
    "schema": ("deploy.cli.schema:schema", "Print the schemas of commands, events and outcomes."),
    "generate": ("deploy.cli.generate:generate", "Write sample commands."),
    "views": ("deploy.cli.views:views", "Show, rebuild, roll back or prune the views."),
    "state": ("deploy.cli.state:state", "Check or rebuild the state of the command workers."),
    "doctor": ("deploy.cli.doctor:doctor", "Say what is wrong with a deployment, and what to do."),
    "verify": ("deploy.cli.verify:verify", "Check that nothing was lost, doubled or mixed up."),
    "faults": (
        "tests.faults.cli:faults",
        "Break servers and workers under load, then check.",
    ),
    "bench": ("benchmarks.cli:bench", "Measure how fast it is, compared with its peers."),
    "demo": ("deploy.cli.demo:demo", "Try everything: 20,000 commands, searches, a check."),
    "completion": ("deploy.cli.completion:completion", "Print the completion script of a shell."),
}

_ROOT = Path(__file__).parents[2]  # a checkout, or the folder of an installed package


def installed_commands() -> list[str]:
    """Return the names in `COMMANDS` whose modules are installed, in order.

    A wheel contains neither the benchmarks nor the fault suite. This checks for their files: an
    import could find a package `tests` of another project.
    """
    files = {name: module.split(":")[0].replace(".", "/") for name, (module, _) in COMMANDS.items()}
    return [name for name, file in files.items() if (_ROOT / f"{file}.py").exists()]


@contextmanager
def _a_reader_may_have_enough() -> Iterator[None]:
    """End the command with exit code 0 when nobody reads its output any more."""
    try:
        yield
    except BrokenPipeError:
        discard_output()
        raise Exit(ExitCode.OK) from None


class _Lazy(click.Group):
    """A group that takes its commands from `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return installed_commands()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in installed_commands():
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, without its module."""
        if not incomplete or incomplete[0].isalnum():
            names = [name for name in installed_commands() if name.startswith(incomplete)]
            return [CompletionItem(name, help=COMMANDS[name][1]) for name in names]
        return super().shell_complete(ctx, incomplete)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the words of the command line, and show what `--help` and `--version` ask for."""
        with _a_reader_may_have_enough():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command."""
        with _a_reader_may_have_enough():
            super().invoke(ctx)
            sys.stdout.flush()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in installed_commands()])


def _show_version(ctx: click.Context, _option: click.Parameter, is_wanted: bool) -> None:
    if is_wanted:
        from deploy.cli.version import version_lines

        click.echo(version_lines())
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version, and what it runs on.",
)
def cqrs() -> None:
    """User accounts with CQRS and event sourcing, on Kafka and Elasticsearch."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code (`ExitCode`).

    Whatever fails is one line on standard error, with `--json` a JSON object with the field
    `error`; of `cqrs worker` it has the form of the workers' log. With `CQRS_DEBUG=1` the traceback
    comes first. A group without a command shows its help there.

    If nobody reads standard output any more, a command that has one result still ends with its own
    code, and one that goes on printing ends with 0. What nobody reads of standard error is dropped.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end_first_process)
    prepare_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = cqrs.main(args=words, prog_name="cqrs", standalone_mode=False)
    except Exception as error:
        code = _report(error, words)
    sys.exit(int(code or ExitCode.OK))


def _end_first_process(number: int, _frame: object) -> None:
    """End as the signal ends any other process: the first of a container has no default action."""
    os._exit(128 + number)


def _report(error: Exception, words: Sequence[str]) -> ExitCode:
    """Print the line of a failure, and return the exit code."""
    if os.environ.get("CQRS_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, NoArgsIsHelpError):
        error.show()
        return ExitCode.WRONG_INPUT
    code, line = _explained(error)
    click.echo(_last_line(line, words), err=True)
    return code


def _last_line(line: str, words: Sequence[str]) -> str:
    """Return the line of a failure in the form that these words of a command line ask for."""
    if wants_json(words):
        return json.dumps({"error": line})
    # The environment: the settings themselves may be what is wrong.
    if words[:1] == ["worker"] and os.environ.get("CQRS_LOG_FORMAT") == "json":
        from deploy.supervisor import SUPERVISOR
        from streams.worker.logs import last_line

        return last_line(line, "json", SUPERVISOR)
    return f"cqrs: {line}"


def _explained(error: Exception) -> tuple[ExitCode, str]:
    if isinstance(error, click.Abort):
        if isinstance(error.__context__, KeyboardInterrupt):
            return ExitCode.INTERRUPTED, "interrupted"
        if isinstance(error.__context__, EOFError):
            return ExitCode.WRONG_INPUT, "nobody can be asked here: add --yes"
        return ExitCode.NO, "nothing was changed"
    if isinstance(error, click.UsageError):
        return ExitCode.WRONG_INPUT, _wrong_usage(error)
    if isinstance(error, click.ClickException):
        return ExitCode.WRONG_INPUT, error.format_message()
    if isinstance(error, (InvalidCommand, InvalidSettings, QueryError)):
        return ExitCode.WRONG_INPUT, str(error)
    if isinstance(error, CqrsError):
        return ExitCode.NO if isinstance(error, Rejected) else ExitCode.UNKNOWN, str(error)
    if isinstance(error, UnicodeEncodeError):
        discard_output()
        reason = f"the output cannot be written as {error.encoding}: set PYTHONIOENCODING=utf-8"
        return ExitCode.UNKNOWN, reason
    if isinstance(error, OSError):  # of the terminal, a pipe or a file: clients translate theirs
        discard_output()
        return ExitCode.UNKNOWN, os_error_line(error)
    from aiokafka.errors import KafkaError

    details = "CQRS_DEBUG=1 shows where"
    if isinstance(error, KafkaError):
        return ExitCode.UNKNOWN, f"Kafka failed: {_one_line(error)}; {details}"
    return ExitCode.DEFECT, f"this is a defect: {_one_line(error)}; {details}"


def _wrong_usage(error: click.UsageError) -> str:
    """Return what is wrong, what may have been meant, and where to look."""
    line = " ".join(error.format_message().split()).removesuffix(".")
    context = error.ctx
    if context is None:
        return line
    given, known = "", list[str]()
    meant, otherwise = list[str](), list[str]()
    if isinstance(error, click.NoSuchOption):
        given, line = error.option_name, f"No such option: {error.option_name}"
        known = [name for one in context.command.get_params(context) for name in one.opts]
    elif line.startswith("No such command") and isinstance(context.command, click.Group):
        given, known = line.split("'")[1], context.command.list_commands(context)
        meant, otherwise = _elsewhere(given), _only_one(context, known)
    elif isinstance(error, click.BadParameter) and error.param is not None:
        choice, (_, _, reason) = error.param.type, line.partition(": '")
        if isinstance(choice, click.Choice):
            given, known = reason.split("'")[0], [*map(str, choice.choices)]
            if isinstance(error.param, click.Argument):
                wrong = f"'{given}' is not" if given else "Missing argument:"
                line = f"{wrong} one of {', '.join(known)}"
    meant = meant or get_close_matches(given, known, 1) or otherwise
    suggestion = f": did you mean {meant[0]}?" if meant else "."
    return f"{line}{suggestion} See `{context.command_path} --help`"


def _only_one(context: click.Context, names: Sequence[str]) -> list[str]:
    """Return the command of a group that has no other one, as it is typed."""
    return [f"`{context.command_path} {names[0]}`"] if len(names) == 1 else []


def _elsewhere(name: str) -> list[str]:
    """Return the first command of this name, in whichever group it is, as it is typed."""
    context = click.Context(cqrs)
    for path in installed_commands():
        command = cqrs.get_command(context, path)
        if path == name:
            return [f"`cqrs {path}`"]
        if isinstance(command, click.Group) and name in command.list_commands(context):
            return [f"`cqrs {path} {name}`"]
    return []


def _one_line(error: Exception) -> str:
    name, text = type(error).__name__, " ".join(str(error).split())
    return text if text.startswith(name) else f"{name}: {text}".removesuffix(": ")


if __name__ == "__main__":
    main()
