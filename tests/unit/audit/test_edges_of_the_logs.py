"""The checker at the edges of what it reads: other partitions, newer records, expired commands."""

from __future__ import annotations

from uuid import UUID

import pytest

from agents.users import USERS
from models.errors import Fatal
from models.messages import Source
from models.outcomes import DeadLettered, Rejection
from models.user import User
from models.wire import encode
from streams.aggregate import TopicNames
from streams.audit.folds import Frozen, Kept
from streams.audit.partition import PartitionAudit
from streams.audit.report import Report
from streams.encryption.cipher import new_key
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC
from streams.kafka.records import Record
from streams.state.snapshot import Snapshot, encode_snapshot
from tests.unit.samples import ACTIVE, ANNA, COMMAND_ID, EVENT_ID, NOON, record

NAMES = TopicNames("", "users")
NUMBER = 3


def read_from(
    topic: str,
    offset: int,
    value: bytes | None = None,
    key: bytes | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Record:
    return Record(topic, NUMBER, offset, 0, key, value, headers)


def auditing(report: Report, *, position: int) -> PartitionAudit[User]:
    """A check of partition 3, without a view."""
    return PartitionAudit(
        USERS, NAMES, NUMBER, Frozen(position, view_end=0), view=None, report=report
    )


def command(offset: int) -> Record:
    return read_from(NAMES.commands, offset)


def rejection_of(offset: int, *, partition: int = NUMBER, command_id: UUID = COMMAND_ID) -> Record:
    """The outcome of the command at `offset`; its own offset is the same."""
    rejection = Rejection(
        command_id=command_id,
        aggregate_id="anna",
        timestamp=NOON,
        source=Source(NAMES.commands, partition, offset),
        code="no",
        reason="No",
    )
    return read_from(NAMES.outcomes, offset, encode(rejection))


def dead_outcome_of(offset: int) -> Record:
    outcome = DeadLettered(
        timestamp=NOON, source=Source(NAMES.commands, NUMBER, offset), code="no", reason="No"
    )
    return read_from(NAMES.outcomes, offset, encode(outcome))


def dead_letter_of(offset: int, *, partition: int = NUMBER) -> Record:
    headers = (
        (SOURCE_TOPIC, NAMES.commands.encode()),
        (SOURCE_PARTITION, str(partition).encode()),
        (SOURCE_OFFSET, str(offset).encode()),
    )
    return read_from(NAMES.dead_commands, 0, headers=headers)


def event_of(offset: int, *, key: bytes = b"anna") -> Record:
    """The registration of Anna by the command at `offset`."""
    event = record(ANNA, aggregate_id="anna", source=Source(NAMES.commands, NUMBER, offset))
    return read_from(NAMES.events, 0, encode(event.to_wire()), key)


def test_records_of_another_partition_are_violations_and_do_not_count() -> None:
    report = Report()
    audit = auditing(report, position=1)
    audit.add_commands([command(0)])
    audit.add_outcomes([rejection_of(0), rejection_of(0, partition=4)])
    audit.add_dead_letters([dead_letter_of(0, partition=4)])
    audit.conclude({})
    assert report.findings["I7"].violations == 2
    assert report.findings["I7"].first == (
        "users.outcomes.v1[3] offset 0 is of a command of users.commands.v1[4]"
    )
    assert (report.commands, report.rejected, report.dead) == (1, 1, 0)


def test_an_event_under_the_key_of_another_aggregate_is_a_violation_and_counts() -> None:
    report = Report()
    audit = auditing(report, position=0)
    audit.add_events([event_of(0, key=b"ben")])
    audit.conclude({})
    assert report.findings["I2"].violations == 1
    assert report.findings["I2"].first == (
        "users.events.v1[3] offset 0 has another key than the id of its aggregate"
    )
    assert report.events == 1


def test_a_dead_letter_of_a_command_after_the_position_is_left_out() -> None:
    report = Report()
    audit = auditing(report, position=1)
    audit.add_commands([command(0), command(1)])
    audit.add_outcomes([dead_outcome_of(0)])
    audit.add_dead_letters([dead_letter_of(0), dead_letter_of(1)])
    audit.conclude({})
    assert report.first_violation is None
    assert report.dead == 1


def test_outcomes_of_expired_commands_are_not_counted() -> None:
    report = Report()
    audit = auditing(report, position=2)
    audit.add_commands([command(1)])
    audit.add_outcomes([rejection_of(0), rejection_of(1, command_id=EVENT_ID)])
    audit.conclude({}, Kept(commands_from=1))
    assert report.first_violation is None
    assert (report.commands, report.rejected) == (1, 1)


def test_without_a_view_states_are_compared_and_no_documents() -> None:
    report = Report()
    audit = auditing(report, position=1)
    audit.add_events([event_of(0)])
    audit.conclude({b"anna": encode_snapshot(Snapshot(ACTIVE, 1, ()))})
    assert (report.findings["I3"].checked, report.findings["I3"].violations) == (1, 0)
    assert report.findings["I4"].checked == 0


@pytest.mark.parametrize(("version", "violations"), [(1, 0), (2, 1)])
def test_the_states_alone_are_compared_with_their_events(version: int, violations: int) -> None:
    report = Report()
    audit = auditing(report, position=1)
    audit.add_events([event_of(0)])
    audit.conclude_states({b"anna": encode_snapshot(Snapshot(ACTIVE, version, ()))})
    assert report.findings["I3"].violations == violations
    assert report.findings["I7"].checked == 0


def test_an_encrypted_state_needs_the_master_key() -> None:
    keys = PartitionKeys(MasterKeys(new_key()))
    keys.apply(b"anna", keys.make(b"anna")[0])
    sealer = PartitionSealer(keys, encrypt=True)
    state = sealer.seal_state(b"anna", encode_snapshot(Snapshot(ACTIVE, 1, ())))
    audit = auditing(Report(), position=1)
    with pytest.raises(Fatal, match="CQRS_MASTER_KEY is not set"):
        audit.conclude({b"anna": state})


def test_an_outcome_of_another_command_at_the_same_offset_is_a_violation() -> None:
    """As when the command topic was deleted and created again, and nobody decided the new one."""
    report = Report()
    audit = auditing(report, position=2)
    audit.add_commands(
        read_from(NAMES.commands, offset, b'{"id":"%s"}' % str(id_).encode())
        for offset, id_ in enumerate([COMMAND_ID, EVENT_ID])
    )
    audit.add_outcomes([rejection_of(0), rejection_of(1)])
    audit.conclude({})
    assert report.findings["I7"].violations == 1
    assert report.findings["I7"].first == (
        f"the outcome at offset 1 is of the command {COMMAND_ID}, at its offset 1 is another one: "
        "it may be of a former topic"
    )


def test_offsets_of_a_former_topic_mean_nothing_in_the_adopted_one() -> None:
    """Its events count, and come before all others, whatever their commands' offsets."""
    report = Report()
    audit = PartitionAudit(
        USERS, NAMES, NUMBER, Frozen(1, 0, events_from=1), view=None, report=report
    )
    audit.add_commands([command(0)])
    audit.add_outcomes([rejection_of(0)])
    audit.add_events([event_of(900)])
    audit.conclude({b"anna": encode_snapshot(Snapshot(ACTIVE, 1, ()))})
    assert report.first_violation is None
    assert report.findings["I3"].checked == 1
