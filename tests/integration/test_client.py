"""The client's command bus on the real servers, with a real worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from agents.client import open_commands
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment, new_settings
from deploy.waiting import wait_until
from models.commands import DeactivateUser, RegisterUser, UpdateUserProfile
from models.errors import Fatal, InvalidCommand, NoCommandHandler, OutcomeTimeout, Transient
from models.messages import Command
from models.outcomes import Accepted, Duplicate, FirstAcceptance, FirstRejection, Rejection
from models.tokens import Token
from streams.commands.client import KafkaCommandBus
from tests.conftest import Deploy
from tests.harness.deployments import deployment


@pytest.fixture(scope="module")
def deployed(stack: EmbeddedStack) -> Iterator[Deployment]:
    with deployment(stack, "commands") as running:
        yield running


@pytest.fixture
async def commands(deployed: Deployment) -> AsyncIterator[KafkaCommandBus]:
    async with open_commands(deployed.settings) as bus:
        yield bus


def registration(**fields: str) -> RegisterUser:
    return RegisterUser(
        **{
            "aggregate_id": f"user-{uuid4()}",
            "email": "anna@example.org",
            "first_name": "Anna",
            "last_name": "Müller",
            "registration_source": "web",
            **fields,
        }
    )


async def test_accepted_then_rejected_then_duplicates(commands: KafkaCommandBus) -> None:
    register = registration()
    user = register.aggregate_id
    accepted = await commands.dispatch(register)
    assert isinstance(accepted, Accepted)
    assert (accepted.command_id, accepted.aggregate_id, accepted.sequence) == (register.id, user, 1)

    second = registration(aggregate_id=user)
    rejected = await commands.dispatch(second)
    assert isinstance(rejected, Rejection)
    assert rejected.reason == "User already exists"

    again = await commands.dispatch(register)
    assert isinstance(again, Duplicate)
    assert again.of == FirstAcceptance(
        sequence=1, event_ids=accepted.event_ids, token=accepted.token
    )
    (point,) = Token.parse(accepted.token).points
    assert (point.offset, point.aggregate_id, point.sequence) == (accepted.source.offset, user, 1)
    again = await commands.dispatch(second)
    assert isinstance(again, Duplicate)
    assert again.of == FirstRejection(code="user-exists", reason="User already exists")


async def test_an_unknown_user_is_not_found(commands: KafkaCommandBus) -> None:
    outcome = await commands.dispatch(UpdateUserProfile(aggregate_id="nobody", first_name="A"))
    assert isinstance(outcome, Rejection)
    assert outcome.reason == "User not found"


async def test_an_unexpected_version_is_rejected(commands: KafkaCommandBus) -> None:
    register = registration()
    await commands.dispatch(register)
    outcome = await commands.dispatch(
        DeactivateUser(aggregate_id=register.aggregate_id, expected_version=4)
    )
    assert isinstance(outcome, Rejection)
    assert outcome.reason == "Expected version 4, but the version is 1"


async def test_concurrent_commands_get_their_own_outcomes(commands: KafkaCommandBus) -> None:
    sent = [registration() for _ in range(300)]
    outcomes = await asyncio.gather(*map(commands.dispatch, sent))
    assert [outcome.command_id for outcome in outcomes] == [command.id for command in sent]
    assert {type(outcome) for outcome in outcomes} == {Accepted}


async def test_the_same_command_sent_twice_at_once_is_decided_once(
    commands: KafkaCommandBus,
) -> None:
    register = registration()
    outcomes = await asyncio.gather(commands.dispatch(register), commands.dispatch(register))
    assert [type(outcome) for outcome in outcomes] == [Accepted, Duplicate]


async def test_two_clients_get_their_own_outcomes(
    deployed: Deployment, commands: KafkaCommandBus
) -> None:
    async with open_commands(deployed.settings) as others:
        first, second = registration(), registration()
        outcomes = await asyncio.gather(commands.dispatch(first), others.dispatch(second))
    assert [outcome.command_id for outcome in outcomes] == [first.id, second.id]


async def test_an_email_that_only_the_library_refuses_is_not_sent(
    commands: KafkaCommandBus,
) -> None:
    with pytest.raises(InvalidCommand, match=r"^email: .*special-use"):
        await commands.dispatch(registration(email="anna@localhost.test"))
    with pytest.raises(InvalidCommand, match=r"^email: "):
        await commands.dispatch(UpdateUserProfile(aggregate_id="user-1", email="a@ab--c.com"))


async def test_a_command_without_a_handler(commands: KafkaCommandBus) -> None:
    class PromoteUser(Command):
        pass

    with pytest.raises(NoCommandHandler, match=r"^No handler registered for command: PromoteUser$"):
        await commands.dispatch(PromoteUser(aggregate_id="user-1"))


async def test_without_a_worker_it_times_out_and_the_command_is_decided_later(
    deploy: Deploy,
) -> None:
    deployed = deploy(outcome_timeout=0.5)
    register = registration()
    async with open_commands(deployed.settings) as commands:
        with pytest.raises(OutcomeTimeout, match=rf"{register.id} .* may still be decided"):
            await commands.dispatch(register)
    deployed.start("commands")
    patient = deployed.settings.model_copy(update={"outcome_timeout": 30})
    async with open_commands(patient) as commands:
        # Asked again with the same id: decided once, whichever of the two answers came first.
        outcome = await commands.dispatch(register)
        assert isinstance(outcome, Accepted | Duplicate)
        again = await commands.dispatch(register)
        assert isinstance(again, Duplicate)
        assert isinstance(again.of, FirstAcceptance)
        assert again.of.sequence == 1


async def test_who_waits_when_a_bus_is_closed_is_told_so(deploy: Deploy) -> None:
    """Whoever uses it afterwards, too: it is not the caller that was cancelled."""
    async with open_commands(deploy().settings) as commands:
        waiting = asyncio.create_task(commands.dispatch(registration()))
        await wait_until(lambda: bool(commands._pending))
    for late in (waiting, commands.dispatch(registration())):
        with pytest.raises(Transient, match="this command bus was closed"):
            await late


async def test_without_a_broker_it_fails_soon_with_one_line(stack: EmbeddedStack) -> None:
    settings = new_settings(stack, bootstrap_servers="127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(Fatal, match="Kafka does not answer at 127"):
        async with open_commands(settings):
            pass
    assert time.monotonic() - started < 15


async def test_with_a_web_server_at_that_port_it_fails_with_one_line(stack: EmbeddedStack) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Fatal, match="is a web server, not Kafka: check CQRS_BOOTSTRAP_SERVERS"):
            async with open_commands(new_settings(stack, bootstrap_servers=f"127.0.0.1:{port}")):
                pass


async def test_missing_topics_are_an_error_of_one_line(stack: EmbeddedStack) -> None:
    with pytest.raises(Fatal, match=r"missing topics: .*`cqrs topics create`"):
        async with open_commands(new_settings(stack)):
            pass


async def test_another_number_of_partitions_is_an_error_of_one_line(deployed: Deployment) -> None:
    with pytest.raises(Fatal, match="has 2 partitions, CQRS_PARTITIONS says 3"):
        async with open_commands(deployed.settings.model_copy(update={"partitions": 3})):
            pass
