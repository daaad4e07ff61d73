"""Tokens: what they look like, how they join, and what is none."""

import base64
import json
import random
import string
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidToken
from models.tokens import Point, Token, join, token_text
from tests.unit.samples import SOURCE

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
TOKEN = Token.parse(token_text(CLUSTER, SOURCE, "user-1", 4))
LETTERS = string.ascii_letters + string.digits + "-_"

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
numbers = st.integers(0, 2**63 - 1)
singles = st.builds(
    lambda *point: Token(CLUSTER, (Point(*point),)),
    st.sampled_from(["users.commands.v1", "ä-orgs.commands.v1"]),
    st.integers(0, 3),
    st.integers(0, 5) | numbers,
    ids,
    numbers,
)
tokens = st.lists(singles, min_size=1, max_size=6).map(join)


def written(data: object) -> str:
    """The text of a token made of this, with the right checksum."""
    body = json.dumps(data, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body).decode().rstrip("=")


def test_a_token_says_which_command_it_was() -> None:
    assert Token(CLUSTER, (Point("users.commands.v1", 3, 12345, "user-1", 4),)) == TOKEN
    assert set(str(TOKEN)) <= set(LETTERS)
    assert token_text(CLUSTER, SOURCE, "user-1", 4) == str(TOKEN)
    assert len(str(TOKEN)) < 150


@settings(deadline=None)
@given(tokens)
def test_a_token_survives_being_written(token: Token) -> None:
    assert Token.parse(str(token)) == token


@given(tokens, tokens, tokens)
def test_tokens_join_in_any_order(one: Token, two: Token, three: Token) -> None:
    assert one | two == two | one
    assert (one | two) | three == one | (two | three)
    assert one | one == one
    assert join([one, str(two), three]) == one | two | three


@given(tokens, tokens)
def test_a_joined_token_has_the_last_write_to_each_partition(one: Token, two: Token) -> None:
    given_ = one.points + two.points
    joined = (one | two).points
    assert [point[:2] for point in joined] == sorted({point[:2] for point in given_})
    for point in joined:
        same = [other for other in given_ if other[:2] == point[:2]]
        assert point in same
        assert point.offset == max(other.offset for other in same)


def test_none_joined_is_none() -> None:
    assert join([]) is None


def test_clusters_do_not_join() -> None:
    with pytest.raises(InvalidToken, match="different Kafka clusters"):
        TOKEN | Token("other", TOKEN.points)


def is_none(text: str) -> bool:
    with pytest.raises(InvalidToken) as caught:
        Token.parse(text)
    assert "\n" not in str(caught.value)
    return True


@settings(deadline=None)
@given(tokens, st.data())
def test_a_cut_token_is_invalid(token: Token, data: st.DataObject) -> None:
    text = str(token)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    if text[start:end] != text:
        assert is_none(text[start:end])


def test_a_token_with_a_changed_character_is_invalid() -> None:
    text = str(TOKEN)
    for place, letter in enumerate(text):
        for other in LETTERS + "=+/ .\n":
            if other != letter:
                assert is_none(text[:place] + other + text[place + 1 :])


def test_a_token_with_swapped_characters_is_invalid() -> None:
    text, chance = str(TOKEN), random.Random(1)
    for _ in range(500):
        letters = list(text)
        one, two = chance.sample(range(len(text)), 2)
        letters[one], letters[two] = letters[two], letters[one]
        if "".join(letters) != text:
            assert is_none("".join(letters))


POINT = ["users.commands.v1", 3, 12345, "user-1", 4]
WRONG: list[object] = [None, -1, 1.5, True, 2**63, [], "\ud800"]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "é", "\ud800", "\x00", "A" * 10_000, "eyJhIjoxfQ", f"{TOKEN}=", f" {TOKEN}"),
        *(None, 5, b"x", [], TOKEN.points),
        *map(written, [None, {}, [], 1, "x", [1], [1, CLUSTER], [2, CLUSTER, POINT]]),
        *map(written, [[1, None, POINT], [1, CLUSTER, POINT, POINT], [1, CLUSTER, "users"]]),
        *map(written, [[True, CLUSTER, POINT], [1.0, CLUSTER, POINT], [1, CLUSTER, [*POINT, 1]]]),
        *map(written, [[1, CLUSTER, POINT, ["a", *POINT[1:]]]]),
        *(
            written([1, CLUSTER, [*POINT[:place], wrong, *POINT[place + 1 :]]])
            for place in range(5)
            for wrong in WRONG
        ),
        base64.urlsafe_b64encode(b"\x00" * 4 + b"[" * 100_000).decode(),
    ],
)
def test_other_text_is_invalid(text: str) -> None:
    assert is_none(text)
