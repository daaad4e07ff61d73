"""Ways to break a sound history, one for each possible violation."""

from __future__ import annotations

from msgspec.structs import replace

from models.events import UserDeactivated, UserProfileUpdated, UserReactivated
from models.messages import Source
from models.outcomes import Accepted, DeadLettered, Outcome, Rejection
from models.user import evolve
from models.user_view import project
from streams.elasticsearch.index import REFUSED
from streams.state.snapshot import Snapshot
from tests.unit.audit.histories import NAMES, NO, NUMBER, History, id_of, token, yes
from tests.unit.samples import NOON


def an_event_is_missing(history: History) -> None:
    del history.events[2]


def an_event_is_there_twice(history: History) -> None:
    again = history.events[2]
    history.events.append(replace(again, sequence=3))
    history.users["anna"] = Snapshot(history.users["anna"].state, 3, ())
    history.documents["anna"]["version"] = 3


def an_event_has_another_id(history: History) -> None:
    history.events[0] = replace(history.events[0], id=id_of(99))


def a_command_was_accepted_twice(history: History) -> None:
    history.accept("anna", UserReactivated(), id_=id_of(3))


def a_rejected_command_was_decided_again(history: History) -> None:
    history.accept("anna", UserReactivated(), id_=id_of(4))


def an_event_has_no_command(history: History) -> None:
    history.accept("anna", UserReactivated())
    history.outcomes[-1] = rejection_of(history.outcomes[-1], DeadLettered)
    history.dead_letters.append(history.outcomes[-1].source.offset)


def a_duplicate_got_another_reply(history: History) -> None:
    history.repeat("anna", id_of(3), yes(3, 7))


def a_duplicate_got_its_own_token(history: History) -> None:
    history.repeat("anna", id_of(3), replace(yes(3, 2), token=token(11, "anna", 2)))


def a_token_is_of_another_command(history: History) -> None:
    said = history.outcomes[0]
    assert isinstance(said, Accepted)
    history.outcomes[0] = replace(said, token=token(2, "anna", 1))


def a_token_is_of_another_user(history: History) -> None:
    said = history.outcomes[1]
    assert isinstance(said, Accepted)
    history.outcomes[1] = replace(said, token=token(2, "anna", 1))


def a_token_is_none(history: History) -> None:
    said = history.outcomes[1]
    assert isinstance(said, Accepted)
    history.outcomes[1] = replace(said, token="none")


def a_duplicate_of_nothing(history: History) -> None:
    history.repeat("anna", id_of(77), NO)


def a_sequence_is_left_out(history: History) -> None:
    history.events[2] = replace(history.events[2], sequence=3)


def commands_were_decided_out_of_order(history: History) -> None:
    history.accept("anna", UserReactivated())
    moved = replace(history.events[-1], source=Source(NAMES.commands, NUMBER, 1))
    history.events[-1] = moved


def an_event_is_of_another_partition(history: History) -> None:
    moved = replace(history.events[4], source=Source(NAMES.commands, NUMBER + 1, 9))
    history.events[4] = moved


def a_history_does_not_begin_with_registration(history: History) -> None:
    history.events[0] = replace(history.events[0], event=UserDeactivated())


def the_state_is_behind(history: History) -> None:
    user = history.users["ben"]
    history.users["ben"] = Snapshot(user.state, user.version - 1, ())


def the_state_is_another(history: History) -> None:
    other = evolve(history.users["ben"].state, UserProfileUpdated(last_name="X"), NOON)
    history.users["ben"] = Snapshot(other, 3, ())


def a_state_is_missing(history: History) -> None:
    del history.users["ben"]


def a_state_has_no_events(history: History) -> None:
    history.users["carl"] = history.users["ben"]


def a_document_differs(history: History) -> None:
    history.documents["anna"]["isActive"] = True


def a_document_is_missing(history: History) -> None:
    del history.documents["anna"]


def a_document_has_no_events(history: History) -> None:
    history.documents["carl"] = {**history.documents["ben"], "id": "carl"}


def a_document_is_behind(history: History) -> None:
    history.documents["anna"] = project(None, history.events[0])


def a_document_is_ahead(history: History) -> None:
    history.documents["anna"]["version"] = 9


def a_refused_document_has_no_dead_letter(history: History) -> None:
    anna = history.documents["anna"]
    history.documents["anna"] = {"id": "anna", "version": 2, REFUSED: anna}


def a_rejected_command_has_an_event(history: History) -> None:
    history.accept("anna", UserReactivated())
    history.outcomes[-1] = rejection_of(history.outcomes[-1], Rejection)


def a_command_has_no_outcome(history: History) -> None:
    del history.outcomes[4]


def a_command_has_two_outcomes(history: History) -> None:
    history.outcomes.append(history.outcomes[4])


def an_outcome_is_of_no_command(history: History) -> None:
    history.marker()
    said = history.outcomes[3]
    history.outcomes.append(
        Rejection(
            command_id=said.command_id,
            aggregate_id="nobody",
            timestamp=NOON,
            source=Source(NAMES.commands, NUMBER, 1),
            code="no",
            reason="No",
        )
    )


def a_dead_letter_is_missing(history: History) -> None:
    history.dead_letters.clear()


def a_dead_letter_is_there_twice(history: History) -> None:
    history.dead_letters *= 2


def an_accepted_command_has_a_dead_letter(history: History) -> None:
    history.dead_letters.append(0)


def rejection_of(
    outcome: Outcome, kind: type[Rejection] | type[DeadLettered]
) -> Rejection | DeadLettered:
    return kind(
        command_id=outcome.command_id,
        aggregate_id=outcome.aggregate_id,
        timestamp=outcome.timestamp,
        source=outcome.source,
        code="no",
        reason="No",
    )
