import aiohttp
import psutil  # type: ignore[import-untyped]
import pytest
from faust.types import TP

from models.errors import Fatal
from streams.settings import Settings
from streams.worker.health import health_of, serving_health
from streams.worker.partition import PartitionStatus

FIRST, SECOND = TP("users.events.v1", 0), TP("users.events.v1", 1)


def test_a_worker_without_partitions_is_healthy() -> None:
    assert health_of({}) == (200, {"ok": True, "partitions": []})


@pytest.mark.parametrize(
    ("standing", "ok"),
    [
        (PartitionStatus(5), True),
        (PartitionStatus(5, failures=3), True),  # it has got over them
        (PartitionStatus(None), False),
        (PartitionStatus(None, failures=3, is_waiting=True), False),
        (PartitionStatus(5, is_waiting=True), False),
        (PartitionStatus(None, parked="restore the changelog"), False),
    ],
)
def test_one_unhealthy_partition_is_enough(standing: PartitionStatus, ok: bool) -> None:
    status, body = health_of({SECOND: standing, FIRST: PartitionStatus(7)})
    assert status == (200 if ok else 503)
    assert body["ok"] is ok
    assert [one["ok"] for one in body["partitions"]] == [True, ok]
    assert [one["parked"] for one in body["partitions"]] == [None, standing.parked]


async def test_it_answers_over_http() -> None:
    standings = {FIRST: PartitionStatus(7)}
    async with (
        serving_health("127.0.0.1", 0, lambda: standings) as url,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(url) as answer:
            assert answer.status == 200
            (partition,) = (await answer.json())["partitions"]
            assert (partition["topic"], partition["position"]) == (FIRST.topic, 7)
        standings[FIRST] = PartitionStatus(7, is_waiting=True)
        async with client.get(url) as answer:
            assert answer.status == 503


def listening() -> set[str]:
    """Return the addresses on which this process listens."""
    found = psutil.Process().net_connections("tcp")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


async def test_it_listens_on_this_host_alone_unless_it_is_told_another_address() -> None:
    assert Settings().health_host == "127.0.0.1"
    async with serving_health(Settings().health_host, 0, dict):
        assert listening() == {"127.0.0.1"}
    async with serving_health("0.0.0.0", 0, dict) as url:
        assert listening() == {"0.0.0.0"}
        assert url.startswith("http://0.0.0.0:")


async def test_a_port_in_use_is_a_line_that_says_what_to_do() -> None:
    async with serving_health("127.0.0.1", 0, dict) as url:
        port = int(url.removesuffix("/health").rpartition(":")[2])
        with pytest.raises(Fatal, match=f"port {port} is in use: choose another CQRS_HEALTH_PORT"):
            async with serving_health("127.0.0.1", port, dict):
                pass


async def test_an_address_of_another_host_is_a_line_that_names_the_setting() -> None:
    with pytest.raises(Fatal, match=r"cannot listen on 192\.0\.2\.1 port 0: .*CQRS_HEALTH_HOST"):
        async with serving_health("192.0.2.1", 0, dict):
            pass
