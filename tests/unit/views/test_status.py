"""Whether an index adds up, from its documents and the checkpoints before and after them."""

from __future__ import annotations

import pytest

from streams.views.checkpoint import Checkpoint
from streams.views.status import adds_up
from streams.views.tally import NO_EVENTS, Tally

_FEW, _MORE, _MOST = Tally(5, 55), Tally(6, 66), Tally(7, 77)
_SAME_NUMBER = Tally(6, 67)


def at(position: int, tally: Tally) -> Checkpoint:
    return Checkpoint(position=position, tally=tally)


@pytest.mark.parametrize(
    ("found", "before", "after", "end", "verdict"),
    [
        pytest.param(NO_EVENTS, at(0, NO_EVENTS), at(0, NO_EVENTS), 0, True, id="empty"),
        pytest.param(_MORE, at(6, _MORE), at(6, _MORE), 6, True, id="at the end"),
        pytest.param(_MORE, at(6, _MORE), at(9, _MORE), 9, True, id="passes what is no event"),
        pytest.param(_FEW, at(5, _FEW), at(6, _MORE), 9, True, id="read before a chunk"),
        pytest.param(_MORE, at(5, _FEW), at(6, _MORE), 9, True, id="read after a chunk"),
        pytest.param(_MORE, at(5, _FEW), at(7, _MOST), 9, None, id="read amid a chunk"),
        pytest.param(_MOST, at(6, _MORE), at(6, _MORE), 9, None, id="its checkpoint is to come"),
        pytest.param(_SAME_NUMBER, at(6, _MORE), at(6, _MORE), 9, None, id="another event"),
        pytest.param(_MOST, at(6, _MORE), at(6, _MORE), 6, False, id="more than there are"),
        pytest.param(_SAME_NUMBER, at(6, _MORE), at(6, _MORE), 6, False, id="other documents"),
        pytest.param(_FEW, at(6, _MORE), at(6, _MORE), 9, False, id="less than there should be"),
    ],
)
def test_documents_add_up_to_one_of_the_checkpoints_around_them(
    found: Tally, before: Checkpoint, after: Checkpoint, end: int, verdict: bool | None
) -> None:
    assert adds_up(found, before, after, end) is verdict
