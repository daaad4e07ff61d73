"""The id of a user in a record of anybody, in every spelling of JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.audit.mentions import mentions

ANNA = "änna/1"


@pytest.mark.parametrize(
    "value",
    [
        '{"aggregateId": "änna/1", "email": "a@b.c"}'.encode(),
        b'{"aggregateId": "\\u00e4nna/1", "email": "a@b.c"}',  # Python's json
        b'{"aggregateId": "\\u00e4nna\\/1", "email": "a@b.c"}',  # PHP's
        b'{"batch": [{"user": {"id": "\\u00E4nna/1"}}], "email": "a@b.c"}',
        b'{"\\u00e4nna/1": {}, "email": "a@b.c"}',
        '{"aggregateId": "änna/1", "aggregateId": "x", "email": "a@b.c"}'.encode(),
        b'{"aggregateId": "\\u00e4nna\\/1", "email": "a@b',  # cut
        '{"aggregateId": "änna/1", "email": "a@b.c"}'.encode("utf-16-le"),
        '{"aggregateId": "änna/1", "email": "a@b.c"}'.encode("utf-16-be"),
    ],
)
def test_the_id_is_found_however_a_producer_spells_it(value: bytes) -> None:
    assert mentions(value, ANNA)


@pytest.mark.parametrize(
    "value",
    [
        b'{"aggregateId": "\\u00e4nna/12", "email": "a@b.c"}',
        b'{"aggregateId": "ben\\/1", "n": [1, null, true], "email": "a@b.c"}',
        b'{"aggregateId": "b\\/1',
        None,
    ],
)
def test_other_ids_are_not_found(value: bytes | None) -> None:
    assert not mentions(value, ANNA)


@given(st.text(min_size=1), st.booleans())
def test_every_text_is_found_escaped_or_not(text: str, escaped: bool) -> None:
    assert mentions(json.dumps({"aggregateId": text}, ensure_ascii=escaped).encode(), text)
