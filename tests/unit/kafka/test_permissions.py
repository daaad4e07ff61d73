"""Rights that are missing are named; a cluster that is new is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from streams.kafka import permissions
from streams.kafka.permissions import NotAllowed, check_rights, not_allowed
from streams.kafka.rights import Right
from streams.settings import Settings

SETTINGS = Settings()
GROUP = Right("group", "workers", ("Read",))
READ = 1 << 3


class Cluster:
    """A cluster that answers these one after the other when it is asked for a group's rights."""

    def __init__(self, *answers: KafkaError | int) -> None:
        self.answers = list(answers)
        self._client = None

    async def group_rights(self, _client: object, group: str) -> tuple[int, int]:
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaError):
            raise answer
        return 0, answer


def use(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    @asynccontextmanager
    async def admin_client(_: Settings) -> AsyncIterator[Any]:
        yield SimpleNamespace(_client=None)

    monkeypatch.setattr(permissions, "admin_client", admin_client)
    monkeypatch.setattr(permissions, "group_rights", cluster.group_rights)


async def test_a_new_cluster_has_no_coordinator_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(GroupCoordinatorNotAvailableError(), READ)
    use(monkeypatch, cluster)
    await check_rights(SETTINGS, [GROUP])
    assert not cluster.answers


@pytest.mark.parametrize("answer", [0, GroupAuthorizationFailedError("workers")])
async def test_a_right_on_a_group(
    monkeypatch: pytest.MonkeyPatch, answer: KafkaError | int
) -> None:
    use(monkeypatch, Cluster(answer))
    with pytest.raises(NotAllowed, match="^User:ANONYMOUS lacks Read on group workers: allow it"):
        await check_rights(SETTINGS, [GROUP])


async def test_a_broker_that_does_not_say_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Cluster(-(1 << 31)))
    await check_rights(SETTINGS, [GROUP])


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (TopicAuthorizationFailedError("users"), "Write on topic users"),
        (TopicAuthorizationFailedError({"b", "a"}), "Write on topic a, b"),
        (GroupAuthorizationFailedError("workers"), "Read on group workers"),
        (TransactionalIdAuthorizationFailed("id-0"), "Write on transactional-id id-0"),
        (ClusterAuthorizationFailedError(), "Write on any topic"),
    ],
)
def test_what_aiokafka_raises(error: KafkaError, what: str) -> None:
    assert f"User:ANONYMOUS lacks {what}: allow it" in str(not_allowed(error, SETTINGS, "Write"))
