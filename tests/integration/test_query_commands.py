"""`cqrs get`, `search` and `active` against the real Elasticsearch."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from agents.user_views import USER_VIEWS
from deploy.cli.main import main
from deploy.environment import child_environment
from deploy.ephemeral import Servers, new_settings
from models.events import UserDeactivated
from streams.settings import Settings
from streams.views.projector import Projector
from tests.harness.command_line import ROOT
from tests.harness.read_side import delete_view, none_refused, record, registered, user_views

Run = Callable[..., tuple[int, str, str]]

ODD = "o'neil.[bold]@example.org"  # what a terminal's markup would swallow


@pytest.fixture(scope="module")
def view(stack: Servers) -> Iterator[Settings]:
    """Five users, user-0 to user-4; the last one has an odd address and is not active."""
    settings = new_settings(stack)
    addresses = [*(f"Anna.{n}@example.org" for n in range(4)), ODD]
    events = [record(f"user-{n}", 1, registered(one)) for n, one in enumerate(addresses)]
    events.append(record("user-4", 2, UserDeactivated()))

    async def fill() -> None:
        async with user_views(settings) as store:
            await Projector(store, USER_VIEWS).project(0, events, none_refused)
            await store.refresh()

    asyncio.run(fill())
    yield settings
    asyncio.run(delete_view(settings))


@pytest.fixture
def run(view: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit code, output, errors."""
    for name, value in child_environment(view).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return run


def test_get_shows_a_user(run: Run) -> None:
    code, out, _ = run("get", "user-4")
    assert code == 0
    assert ODD in out
    assert "isActive" in out


def test_get_as_json(run: Run) -> None:
    code, out, _ = run("get", "user-4", "--json")
    assert code == 0
    assert json.loads(out) == {
        "id": "user-4",
        "email": ODD,
        "firstName": "Anna",
        "lastName": "Müller",
        "isActive": False,
        "registeredAt": "2026-11-23T12:00:01Z",
        "lastUpdated": "2026-11-23T12:00:02Z",
        "version": 2,
    }


def test_get_of_an_unknown_user_is_one_line_and_exit_code_1(run: Run) -> None:
    assert run("get", "user-9") == (1, "", "cqrs: no user has the id user-9\n")


def test_search_shows_a_page_and_the_command_for_the_next(run: Run) -> None:
    three = ("search", "email", "aNNa.", "--limit", "3", "-o", "table")
    code, out, _ = run(*three)
    assert code == 0
    assert out.count("Anna.") == 3
    assert "3 users; for more add --cursor " in out
    code, out, _ = run(*three, *out.split()[-2:])
    assert code == 0
    assert "Anna.3@example.org" in out
    assert out.endswith("1 user\n")


def test_a_pipe_gets_the_users_alone(run: Run) -> None:
    code, out, err = run("search", "email", "[BOLD]")
    assert (code, out) == (0, f"user-4\t{ODD}\tAnna\tMüller\tno\t2026-11-23T12:00:01Z\n")
    assert err == "1 user\n"


def test_search_takes_the_fragment_literally(run: Run) -> None:
    assert run("search", "email", "a*")[1:] == ("", "no users\n")
    assert ODD in run("search", "email", "[BOLD]")[1]


def test_search_as_json(run: Run) -> None:
    code, out, _ = run("search", "email", "@EXAMPLE", "--limit", "2", "--json")
    assert code == 0
    page = json.loads(out)
    assert [one["id"] for one in page["items"]] == ["user-0", "user-1"]
    more = json.loads(run("search", "email", "@", "--cursor", page["cursor"], "--json")[1])
    assert [one["id"] for one in more["items"]] == ["user-2", "user-3", "user-4"]
    assert more["cursor"] is None
    assert json.loads(run("search", "email", "zzz", "--json")[1]) == {"items": [], "cursor": None}


def test_search_shows_all_pages(run: Run) -> None:
    code, out, _ = run("search", "email", "@", "--all", "--json")
    assert code == 0
    assert [json.loads(line)["id"] for line in out.splitlines()] == [f"user-{n}" for n in range(5)]
    code, out, _ = run("search", "email", "@", "--all", "--limit", "2")
    assert code == 0
    assert out.count("@example.org") == 5


def test_active_lists_active_users(run: Run) -> None:
    code, out, _ = run("active", "--limit", "2", "--offset", "1", "--json")
    assert code == 0
    assert [one["id"] for one in json.loads(out)["items"]] == ["user-1", "user-2"]
    code, _, err = run("active", "--limit", "2")
    assert "2 users; for more add --offset 2" in err
    assert "user-4" not in run("active")[1]


def test_a_query_out_of_bounds_is_one_line(run: Run) -> None:
    code, _, err = run("search", "email", "")
    assert (code, err) == (2, "cqrs: FRAGMENT must be text of 1 to 254 characters\n")
    code, _, err = run("search", "email", "x" * 10_000)
    assert (code, err) == (2, "cqrs: FRAGMENT must be text of 1 to 254 characters\n")
    for query in (["search", "email", "a\x1bb"], ["get", "a\nb"]):
        code, _, err = run(*query)
        assert (code, err.count("\n")) == (2, 1)
        assert "must not contain control characters" in err
    code, _, err = run("search", "email", "a", "--cursor", "x")
    assert (code, err) == (2, "cqrs: --cursor must be the cursor of a page, as it was given\n")
    code, _, err = run("active", "--limit", "10001")
    assert code == 2
    assert "10001 is not in the range" in err


@pytest.mark.parametrize(
    "arguments",
    [("get", "a"), ("search", "email", "a"), ("search", "email", "a", "--all"), ("active",)],
)
def test_without_index_or_server_it_fails_with_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CQRS_NAMESPACE", "empty-")
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (75, "", 1)
    assert "no index empty-user-views: a view worker makes it" in err
    monkeypatch.setenv("CQRS_ELASTICSEARCH_URL", "http://127.0.0.1:1")
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (75, "", 1)
    assert "http://127.0.0.1:1 cannot be reached" in err


def test_get_in_a_process_of_its_own(view: Settings) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "get", "user-0", "--json"],
        cwd=ROOT,
        env=child_environment(view),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["email"] == "Anna.0@example.org"
