"""What `cqrs doctor` says of what it could not find out, and what it concludes."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import Any

import pytest

from deploy.cli.doctor import conclusion, exit_code
from deploy.cli.exit_codes import ExitCode
from deploy.cli.main import main
from deploy.doctor.facts import NotKnown
from tests.harness.outputs import misfits
from tests.unit.deploy.doctor_facts import (
    COMMANDS,
    INDEX,
    NAMES,
    SILENT,
    SITUATION,
    TOPICS,
    VIEWS,
    WELL,
    findings,
    view,
)


def test_what_nobody_answers_is_unknown() -> None:
    facts = replace(
        WELL,
        brokers=SILENT,
        topics=SILENT,
        rights=SILENT,
        groups=SILENT,
        logs=SILENT,
        master_key=SILENT,
        nodes=SILENT,
        privileges=SILENT,
        views={"user-views": SILENT},
        certificates={"kafka:9092": SILENT},
    )
    found = findings(facts)
    unknown = [(one.group, one.subject) for one in found if one.status == "unknown"]
    assert len(unknown) == 10
    assert not [one for one in found if one.status == "problem"]
    assert exit_code(found) == ExitCode.UNKNOWN


def test_the_conclusion_says_which_server_has_to_be_started() -> None:
    unasked = NotKnown("not asked", "unasked")
    gone = replace(WELL, brokers=SILENT, topics=unasked, rights=unasked, groups=unasked)
    found = findings(gone)
    assert exit_code(found) == ExitCode.UNKNOWN
    assert conclusion(found) == "1 unknown, 3 not asked: Kafka did not answer"
    wrong = findings(replace(WELL, rights=["one", "two"]))
    assert conclusion(wrong) == "2 problems"
    assert conclusion([one for one in wrong if one.status == "ok"]) == "nothing is wrong"


def test_groups_that_may_not_be_seen_leave_the_rest() -> None:
    found = findings(replace(WELL, groups=NotKnown("lacks Describe", "refused")))
    assert [one.line for one in found if one.status != "ok"] == ["lacks Describe"]
    assert any(one.subject == "transactions" for one in found)


def test_a_problem_counts_more_than_what_is_not_known() -> None:
    assert exit_code(findings(replace(WELL, nodes=SILENT, rights=["one"]))) == ExitCode.NO


def test_what_may_not_be_seen_is_no_problem() -> None:
    found = findings(replace(WELL, nodes=NotKnown("needs monitor", "hidden"), workers={}))
    assert [one.subject for one in found if one.status != "ok"] == ["nodes", "health"]
    assert exit_code(found) == ExitCode.OK


@pytest.mark.parametrize(
    "topics", [SILENT, {name: topic for name, topic in TOPICS.items() if name != NAMES.commands}]
)
def test_of_a_topic_that_is_not_known_the_setting_says_how_many_partitions_there_are(
    topics: Any,
) -> None:
    idle = replace(COMMANDS, owned=frozenset({0}))
    found = findings(replace(WELL, topics=topics, groups=(idle, VIEWS)))
    assert [one.subject for one in found if one.group == "Workers" and one.status != "ok"] == [
        "commands"
    ]


def test_without_kafka_an_index_that_is_served_is_no_problem() -> None:
    """How far it is cannot be known then, and it is no fault of the index."""
    unread = replace(INDEX, checkpoints=None)
    seen = replace(SITUATION, log=None, indices=(unread,))
    found = findings(replace(WELL, brokers=SILENT, views=view(situation=seen)))
    assert [one.status for one in found if one.group == "Views"] == ["ok"]


@pytest.mark.parametrize("as_json", [True, False])
def test_servers_that_accept_and_never_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """It ends, and says what could not be found out; the kernel accepts for a socket that waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("CQRS_BOOTSTRAP_SERVERS", address)
        monkeypatch.setenv("CQRS_ELASTICSEARCH_URL", f"http://{address}")
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--timeout", "0.5", *(["--json"] if as_json else [])])
    assert ended.value.code == ExitCode.UNKNOWN
    shown = capsys.readouterr().out
    if as_json:
        assert misfits("doctor", "json", shown) == []
        status_of = {one["group"]: one["status"] for one in json.loads(shown)}
        assert (status_of["Kafka"], status_of["Elasticsearch"]) == ("unknown", "unknown")
        not_asked = ("Topics", "Progress", "Views")
        assert {status_of[group] for group in not_asked} == {"unasked"}
    else:
        assert max(map(len, shown.splitlines())) <= 80
        assert "no answer within 0.5 s" in shown
        assert "connection to" not in shown  # what was not asked is said once, at the end
        last = shown.splitlines()[-1]
        assert last == "2 unknown, 8 not asked: Kafka and Elasticsearch did not answer"
