"""Substring search in a text field: every 3-gram in order, asked for as a sparse phrase.

A `wildcard` query reads every value and grows with the index. Here a value is written as all its
3-grams, in order, in a field with positions; a fragment is a phrase of every third of its grams
with holes between, so that a search touches a few posting lists only. Fragments of one or two
characters are looked up in a second field. Only features of Elasticsearch's core are used.

What matches: `fold(fragment) in fold(value)`, nothing else. `fold` is Unicode's full case folding
(`str.casefold`), one character at a time and without regard to language or neighbours, so any
piece of a value in upper, lower or mixed case matches it: `STRASSE` finds `straße`. Nothing else
is normalised (`e` with a combining accent is two characters) and no character is an operator.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from operator import add
from typing import Any

from models.errors import QueryError

LONGEST = 1000
"""Most characters of a folded value. A longer fragment is part of no value."""

_HOLE = "H"  # no gram is this: see _CodeWords
_SEARCH_ANALYZER = "fragment_search"

ANALYSIS: Mapping[str, Any] = {
    # A stop filter drops the holes of the phrase and keeps their positions. The tokenizer has to
    # be `standard`: the `whitespace` one can be named in an analyzer of one's own only where the
    # analysis-common module is installed.
    "filter": {"fragment_hole": {"type": "stop", "stopwords": [_HOLE]}},
    "analyzer": {
        _SEARCH_ANALYZER: {
            "type": "custom",
            "tokenizer": "standard",
            "filter": ["fragment_hole"],
        }
    },
}
"""The `analysis` settings of an index with fragment fields."""

MAPPING: Mapping[str, Any] = {
    "properties": {
        "grams": {
            "type": "text",
            "analyzer": "whitespace",
            "search_analyzer": _SEARCH_ANALYZER,
            "index_options": "positions",
            "norms": False,
        },
        # words of a text loaded 1.3 times as fast as values of a keyword, and took less disk
        "short": {
            "type": "text",
            "analyzer": "whitespace",
            "index_options": "docs",
            "norms": False,
        },
    }
}
"""The mapping of a fragment field. Leave the field out of `_source`: it is only searched."""


class _CodeWords(dict[str, str]):
    """The code word of each character, made when it is first met.

    A tokenizer has to keep a gram in one piece, so a code word has letters and digits only: `a`-`z`
    and `0`-`9` are their own, any other character is `X`, its code point in hexadecimal, `Z`. No
    code word begins another one, so different texts never have the same code.
    """

    def __missing__(self, character: str) -> str:
        code = self[character] = f"X{ord(character):x}Z"
        return code


_code_words = _CodeWords({plain: plain for plain in string.ascii_lowercase + string.digits})


def fold(text: str) -> str:
    """Take the case out of a value or a fragment; the same function on both sides."""
    return text.casefold()


def fragment_source(value: str) -> dict[str, str]:
    """What a document carries in a fragment field so that `value` is found.

    Raises:
        ValueError: The value has more than `LONGEST` characters after folding.
    """
    folded = fold(value)
    if len(folded) > LONGEST:
        raise ValueError(f"a value of {len(folded)} characters; at most {LONGEST} are searchable")
    codes = [_code_words[character] for character in folded]
    pairs = list(map(add, codes, codes[1:]))
    grams = map(add, pairs, codes[2:])
    return {"grams": " ".join(grams), "short": " ".join(dict.fromkeys((*codes, *pairs)))}


def fragment_query(field: str, fragment: str) -> dict[str, Any]:
    """The query for the documents whose value contains `fragment` (see the module for "contains").

    Raises:
        QueryError: The fragment is empty.
    """
    folded = fold(fragment)
    if not folded:
        raise QueryError("An empty fragment: give at least one character to search for")
    if len(folded) > LONGEST:
        return {"match_none": {}}
    codes = [_code_words[character] for character in folded]
    if len(codes) < 3:
        return {"term": {f"{field}.short": "".join(codes)}}
    last = len(codes) - 3
    words = [
        "".join(codes[start : start + 3]) if start % 3 == 0 or start == last else _HOLE
        for start in range(last + 1)
    ]
    # `constant_score`: whether a document matches is all there is to know, so nothing is scored
    phrase = {"match_phrase": {f"{field}.grams": " ".join(words)}}
    return {"constant_score": {"filter": phrase}}
