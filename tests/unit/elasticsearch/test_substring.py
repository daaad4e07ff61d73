"""The fragment encoding against brute force, through a small model of the analysis.

`tests/integration/test_user_queries.py` asks the same of the real node.
"""

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import QueryError
from streams.elasticsearch.substring import (
    ANALYSIS,
    MAX_CHARACTERS,
    fold,
    fragment_query,
    fragment_text,
)

HOLE = ANALYSIS["filter"]["fragment_search"]["stopwords"][0]

# What operators, code words, the hole and case folding could stumble over
TRICKY = "aAbBzZhHxX029"
TRICKY += "@.+*?\\\"' \t_-ßẞsSİiI\u0131\u017fﬃfFΣ\u03c3ςéÉe\u0301\u0307ñ日本😀👍🏽\u200d\x00\ud800"
values = st.text(st.sampled_from(TRICKY), max_size=24) | st.text(max_size=24)


def finds(value: str, fragment: str) -> bool:
    """Do what Elasticsearch does: match the same words at the same distances, or any in a hole."""
    [(kind, clause)] = fragment_query("field", fragment).items()
    codes = fragment_text(value).split()
    if kind == "term":
        return clause["field.short"] in {*codes, *map("".join, pairwise(codes))}
    phrase: str = clause["filter"]["match_phrase"]["field"]
    wanted = [(place, word) for place, word in enumerate(phrase.split(" ")) if word != HOLE]
    grams = list(map("".join, zip(codes, codes[1:], codes[2:])))  # noqa: B905
    return any(
        all(start + place < len(grams) and grams[start + place] == word for place, word in wanted)
        for start in range(len(grams))
    )


@given(values, values)
def test_finds_what_brute_force_finds(value: str, fragment: str) -> None:
    if fragment:
        assert finds(value, fragment) == (fold(fragment) in fold(value))


@given(values, st.data())
def test_finds_every_piece_of_a_value_in_any_case(value: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(value)))
    piece = value[start : data.draw(st.integers(start, len(value)))]
    for fragment in (piece, piece.lower(), piece.upper()):
        if fragment and fold(fragment) == fold(piece):  # not so for the dotless i in upper case
            assert finds(value, fragment)


@given(values)
def test_near_misses_are_not_found(value: str) -> None:
    folded = fold(value)
    for other in (value + "q", "q" + value, value[::-1], value.replace(".", "x")):
        if other:
            assert finds(value, other) == (fold(other) in folded)


def test_every_character_folds_alike_in_lower_and_upper_case() -> None:
    odd = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if fold(character.lower()) != fold(character)
        or (fold(character.upper()) != fold(character) and character != "\u0131")
    ]
    # only the dotless i, whose upper case is that of another letter, too
    assert odd == []
    assert fold("\u0131".upper()) == "i"


@given(values, values)
def test_folding_looks_at_one_character_at_a_time(left: str, right: str) -> None:
    assert fold(left + right) == fold(left) + fold(right)


@pytest.mark.parametrize(
    ("value", "fragment", "found"),
    [
        ("anna.b@example.com", "ANNA.B@", True),
        ("anna.b@example.com", "annaxb", False),
        ("anna.b@example.com", "a*b", False),
        ("anna.b@example.com", ".", True),
        ("anna.b@example.com", "m", True),
        ("anna.b@example.com", "q", False),
        ("straße@example.de", "STRASSE", True),
        ("STRASSE@example.de", "straße", True),
        ("İstanbul@example.com", "i\u0307stanbul", True),
        ("oﬃce@example.com", "FFI", True),
        ("x2ez@example.com", ".", True),  # the code word of a dot, typed by somebody
        ("x2ez@example", ".", False),
        ("hhhh@example.com", "hhhh", True),  # the hole is not a letter of any value
    ],
)
def test_examples(value: str, fragment: str, found: bool) -> None:
    assert finds(value, fragment) is found


def test_words_are_letters_and_digits_only() -> None:
    words = fragment_text(TRICKY).split(" ")
    assert len(words) == len(fold(TRICKY))
    assert all(word.isascii() and word.isalnum() for word in words)


def test_a_long_fragment_asks_for_every_third_gram_only() -> None:
    query: dict[str, Any] = fragment_query("field", "abcdefgh")
    phrase = query["constant_score"]["filter"]["match_phrase"]["field"]
    assert phrase == f"abc {HOLE} {HOLE} def {HOLE} fgh"


def test_an_empty_fragment_is_an_error() -> None:
    with pytest.raises(QueryError, match="at least one character"):
        fragment_query("field", "")


def test_a_fragment_longer_than_any_value_finds_nothing() -> None:
    assert fragment_query("field", "x" * (MAX_CHARACTERS + 1)) == {"match_none": {}}
    with pytest.raises(ValueError, match="at most 1000"):
        fragment_text("x" * (MAX_CHARACTERS + 1))


def test_values_too_short_for_grams() -> None:
    assert fragment_text("") == ""
    assert not finds("", "a")
    assert finds("a", "A")
    assert finds("ab", "AB")
    assert not finds("ab", "abc")
