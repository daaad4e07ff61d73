"""What a worker says of itself over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import aiohttp
import psutil  # type: ignore[import-untyped]
import pytest
from faust.types import TP

from models.errors import Fatal
from streams.settings import Settings
from streams.worker.gauges import PartitionGauges
from streams.worker.health import Answer, Health, serving_health
from streams.worker.partition import PartitionReport, PartitionStatus
from streams.worker.partitions import Partitions
from tests.harness.exposition import Exposition

FIRST, SECOND = TP("users.events.v1", 0), TP("users.events.v1", 1)
RUNNING = PartitionStatus(7)
STARTING = PartitionStatus(None, is_waiting=True)
RETRYING = PartitionStatus(None, failures=3, is_waiting=True)
WAITING = PartitionStatus(5, is_waiting=True)
PARKED = PartitionStatus(None, parked="restore the changelog")


class FakePartitions:
    """Those that the test says."""

    topics = (FIRST.topic,)
    kafka_answered_at: float | None = None

    def __init__(self, *statuses: PartitionStatus, behind_s: float = 0.0) -> None:
        self.joined = True
        self.found = {TP(FIRST.topic, number): one for number, one in enumerate(statuses)}
        self._next_at = time.time() - behind_s if behind_s else None

    def statuses(self) -> dict[TP, PartitionStatus]:
        return self.found

    def reports(self) -> dict[TP, PartitionReport]:
        return {
            tp: PartitionReport(status, 10, self._next_at, time.time())
            for tp, status in self.found.items()
        }


def health_of(
    partitions: FakePartitions,
    *,
    ready_lag: float | None = None,
    consumer_turned: Callable[[], float | None] = time.monotonic,
) -> Health:
    known = cast(Partitions, partitions)
    gauges = PartitionGauges(known, "app", "group", 2)
    return Health(known, gauges, consumer_turned=consumer_turned, ready_lag=ready_lag)


def test_a_worker_without_partitions_is_healthy() -> None:
    assert health_of(FakePartitions()).health() == (200, {"ok": True, "partitions": []})


@pytest.mark.parametrize(
    ("standing", "ok"),
    [
        (PartitionStatus(5), True),
        (PartitionStatus(5, failures=3), True),  # it has got over them
        (PartitionStatus(None), False),
        (RETRYING, False),
        (WAITING, False),
        (PARKED, False),
    ],
)
def test_one_unhealthy_partition_is_enough(standing: PartitionStatus, ok: bool) -> None:
    status, body = health_of(FakePartitions(RUNNING, standing)).health()
    assert status == (200 if ok else 503)
    assert body["ok"] is ok
    assert [one["ok"] for one in body["partitions"]] == [True, ok]
    assert [one["parked"] for one in body["partitions"]] == [None, standing.parked]


@pytest.mark.parametrize("standing", [RUNNING, RETRYING, WAITING, PARKED])
def test_a_worker_has_started_when_killing_it_would_not_help(standing: PartitionStatus) -> None:
    """Servers that are away, or a partition that needs a person, are no reason to kill it."""
    partitions = FakePartitions(RUNNING, STARTING)
    health = health_of(partitions)
    assert health.startup() == (503, {"ok": False, "joined": True, "starting": [name(SECOND)]})
    partitions.found[SECOND] = standing
    assert health.startup()[0] == 200
    partitions.found[SECOND] = STARTING  # after a rebalance
    assert health.startup()[0] == 200


def test_a_standby_has_started_when_it_has_joined() -> None:
    partitions = FakePartitions()
    partitions.joined = False
    health = health_of(partitions)
    assert [health.startup()[0], health.ready()[0]] == [503, 503]
    partitions.joined = True
    assert [health.startup()[0], health.ready()[0]] == [200, 200]


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (RUNNING, []),
        (STARTING, [" is starting"]),
        (RETRYING, [" is waiting"]),
        (WAITING, [" is waiting"]),
        (PARKED, [" is parked: restore the changelog"]),
    ],
)
def test_readiness_says_what_does_not_run(standing: PartitionStatus, why: list[str]) -> None:
    status, body = health_of(FakePartitions(RUNNING, standing)).ready()
    assert status == (503 if why else 200)
    assert body["why"] == [name(SECOND) + line for line in why]


def test_readiness_has_a_limit_of_lag_only_if_one_is_set() -> None:
    behind = FakePartitions(RUNNING, behind_s=50)
    status, body = health_of(behind).ready()
    assert (status, round(body["partitions"][0]["lag_seconds"])) == (200, 50)
    assert health_of(behind, ready_lag=60).ready()[0] == 200
    status, body = health_of(behind, ready_lag=40).ready()
    assert (status, body["why"]) == (503, [f"{name(FIRST)} is 50 s behind"])


@pytest.mark.parametrize(("turned_ago", "status"), [(None, 200), (1.0, 200), (11.0, 503)])
def test_a_blocked_thread_is_not_live(turned_ago: float | None, status: int) -> None:
    """What Kafka or Elasticsearch do does not matter: restarting mends neither."""
    turned = None if turned_ago is None else time.monotonic() - turned_ago
    health = health_of(FakePartitions(RETRYING), consumer_turned=lambda: turned)
    assert health.live()[0] == status


def name(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"


async def test_it_answers_over_http() -> None:
    partitions = FakePartitions(RUNNING)
    async with (
        serving_health("127.0.0.1", 0, health_of(partitions)) as url,
        aiohttp.ClientSession() as client,
    ):

        async def get(path: str) -> Answer:
            async with client.get(url.replace("/health", path)) as answer:
                return answer.status, await answer.json()

        status, body = await get("/health")
        assert status == 200
        (partition,) = body["partitions"]
        assert (partition["topic"], partition["position"]) == (FIRST.topic, 7)
        assert [(await get(path))[0] for path in ("/live", "/startup", "/ready")] == [200] * 3
        partitions.found[FIRST] = WAITING
        paths = ("/health", "/ready", "/live", "/startup")
        assert [(await get(path))[0] for path in paths] == [503, 503, 200, 200]
        async with client.get(url.replace("/health", "/metrics")) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = await answer.text()
    found = Exposition(text)
    of_first = {"group": "group", "topic": FIRST.topic, "partition": "0"}
    assert found.value("cqrs_partition_position", **of_first) == 5
    assert found.value("cqrs_partition_lag_records", **of_first) == 5
    assert found.value("cqrs_partition_state", **of_first, state="waiting") == 1
    assert found.sum("cqrs_partition_state") == 1
    assert found.value("cqrs_assigned_partitions", topic=FIRST.topic) == 1
    assert found.value("cqrs_topic_partitions", topic=FIRST.topic) == 2
    assert found.value("process_start_time_seconds") > 0


def listening() -> set[str]:
    """Return the addresses on which this process listens."""
    found = psutil.Process().net_connections("tcp")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


async def test_it_listens_on_this_host_alone_unless_it_is_told_another_address() -> None:
    assert Settings().health_host == "127.0.0.1"
    health = health_of(FakePartitions())
    async with serving_health(Settings().health_host, 0, health):
        assert listening() == {"127.0.0.1"}
    async with serving_health("0.0.0.0", 0, health) as url:
        assert listening() == {"0.0.0.0"}
        assert url.startswith("http://0.0.0.0:")


async def test_a_port_in_use_is_a_line_that_says_what_to_do() -> None:
    health = health_of(FakePartitions())
    async with serving_health("127.0.0.1", 0, health) as url:
        port = int(url.removesuffix("/health").rpartition(":")[2])
        with pytest.raises(Fatal, match=f"port {port} is in use: choose another CQRS_HEALTH_PORT"):
            async with serving_health("127.0.0.1", port, health):
                pass


@pytest.mark.parametrize(
    ("status", "end", "lag_records"),
    [(RUNNING, 10, 3), (RUNNING, 7, 0), (RUNNING, 5, 0), (RUNNING, None, None), (PARKED, 10, None)],
)
def test_lag_is_what_is_known(
    status: PartitionStatus, end: int | None, lag_records: int | None
) -> None:
    report = PartitionReport(status, end, 1000.0, 0.0)
    assert report.lag_records == lag_records
    assert report.lag_seconds(1002.5) == (None if status is PARKED else 2.5)


def test_without_a_next_record_there_is_no_lag() -> None:
    assert PartitionReport(RUNNING, 7, None, 0.0).lag_seconds(1002.5) == 0


async def test_an_address_of_another_host_is_a_line_that_names_the_setting() -> None:
    with pytest.raises(Fatal, match=r"cannot listen on 192\.0\.2\.1 port 0: .*CQRS_HEALTH_HOST"):
        async with serving_health("192.0.2.1", 0, health_of(FakePartitions())):
            pass
