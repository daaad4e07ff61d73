"""Substring search in a text field: every 3-gram in order, asked for as a sparse phrase.

A `wildcard` query reads every value and grows with the index. Here the characters of a value are
sent as words, of which Elasticsearch makes all 3-grams, in order, in a field with positions; a
fragment is a phrase of every third of its grams with holes between, so that a search touches a few
posting lists only. Fragments of one or two characters are looked up in a second field of the same
text. Only features of Elasticsearch's core are used: there, 3-grams are shingles of three words.

What matches: `fold(fragment) in fold(value)`, nothing else. `fold` is Unicode's full case folding
(`str.casefold`), one character at a time and without regard to language or neighbours, so any
piece of a value in upper, lower or mixed case matches it: `STRASSE` finds `straße`. Nothing else
is normalised (`e` with a combining accent is two characters) and no character is an operator.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from models.errors import QueryError

LONGEST = 1000
"""Most characters of a folded value. A longer fragment is part of no value."""

_HOLE = "H"  # no gram is this: see _CodeWords
# The analyzers; each has a filter of the same name.
_GRAMS, _SHORT, _SEARCH = "fragment_grams", "fragment_short", "fragment_search"

ANALYSIS: Mapping[str, Any] = {
    "filter": {
        _GRAMS: {
            "type": "shingle",
            "min_shingle_size": 3,
            "max_shingle_size": 3,
            "output_unigrams": False,
            "token_separator": "",
        },
        _SHORT: {
            "type": "shingle",
            "min_shingle_size": 2,
            "max_shingle_size": 2,
            "output_unigrams": True,
            "token_separator": "",
        },
        # drops the holes of a phrase and keeps their positions
        _SEARCH: {"type": "stop", "stopwords": [_HOLE]},
    },
    # The tokenizer has to be `standard`: in an analyzer of one's own any other one, like `ngram`,
    # needs the analysis-common module.
    "analyzer": {
        name: {"type": "custom", "tokenizer": "standard", "filter": [name]}
        for name in (_GRAMS, _SHORT, _SEARCH)
    },
}
"""The `analysis` settings of an index with fragment fields."""

MAPPING: Mapping[str, Any] = {
    "type": "text",
    "analyzer": _GRAMS,
    "search_analyzer": _SEARCH,
    "index_options": "positions",
    "norms": False,
    "fields": {
        "short": {"type": "text", "analyzer": _SHORT, "index_options": "docs", "norms": False}
    },
}
"""The mapping of a fragment field. Leave the field out of `_source`: it is only searched."""


class _CodeWords(dict[str, str]):
    """The code word of each character, made when it is first met.

    A tokenizer has to keep it in one piece, so a code word has letters and digits only: `a`-`z` and
    `0`-`9` are their own, any other character is `X`, its code point in hexadecimal, `Z`. No code
    word begins another one, so different texts never have the same code.
    """

    def __missing__(self, character: str) -> str:
        code = self[character] = f"X{ord(character):x}Z"
        return code


_code_words = _CodeWords({plain: plain for plain in string.ascii_lowercase + string.digits})


def fold(text: str) -> str:
    """Take the case out of a value or a fragment; the same function on both sides."""
    return text.casefold()


def fragment_text(value: str) -> str:
    """What a document carries in a fragment field so that `value` is found: its code words.

    Raises:
        ValueError: The value has more than `LONGEST` characters after folding.
    """
    folded = fold(value)
    if len(folded) > LONGEST:
        raise ValueError(f"a value of {len(folded)} characters; at most {LONGEST} are searchable")
    return " ".join(map(_code_words.__getitem__, folded))


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
    phrase = {"match_phrase": {field: " ".join(words)}}
    return {"constant_score": {"filter": phrase}}
