"""Substring search in a text field: 3-grams with positions, queried by a sparse phrase.

A `wildcard` query reads every value, so its cost grows with the index. Here each character of a
value is sent as one word, and Elasticsearch indexes all 3-grams of them with their positions. The
query for a fragment is a phrase of every third of its 3-grams with holes between them, so a search
reads only a few posting lists. Fragments of one or two characters are searched in a subfield. Only
features of Elasticsearch's core are used; there, a 3-gram is a shingle of three words.

A value matches if `fold(fragment) in fold(value)`, and only then. `fold` is Unicode's full case
folding (`str.casefold`): one character at a time, whatever the language and the characters around
it. So any part of a value matches in upper, lower or mixed case: `STRASSE` finds `straße`. The one
exception is the dotless i (U+0131): it folds to itself, but its upper case `I` to `i`. Nothing
else is normalised (`e` with a combining accent is two characters), and no character is an operator.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from models.errors import QueryError

MAX_CHARACTERS = 1000
"""Limit for a folded value. A longer fragment matches no value."""

_HOLE = "H"  # never a 3-gram: see _CodeWords
# Names of the analyzers; each uses one filter of the same name.
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
        # Drops the holes of a phrase but keeps their positions.
        _SEARCH: {"type": "stop", "stopwords": [_HOLE]},
    },
    # The tokenizer has to be `standard`: in a custom analyzer any other one, like `ngram`, needs
    # the analysis-common module.
    "analyzer": {
        name: {"type": "custom", "tokenizer": "standard", "filter": [name]}
        for name in (_GRAMS, _SHORT, _SEARCH)
    },
}
"""`analysis` settings of an index with fragment fields."""

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
"""Mapping of a fragment field. Keep the field out of `_source`: it is only searched."""


class _CodeWords(dict[str, str]):
    """Code word of each character, created when it is first used.

    The tokenizer must not split a code word, so it consists of letters and digits only. `a`-`z` and
    `0`-`9` stand for themselves; any other character becomes `X`, its code point in hexadecimal,
    `Z`. No code word is a prefix of another one, so different texts never have the same code.
    """

    def __missing__(self, character: str) -> str:
        code = self[character] = f"X{ord(character):x}Z"
        return code


_code_words = _CodeWords({plain: plain for plain in string.ascii_lowercase + string.digits})


def fold(text: str) -> str:
    """Remove the case from a value or a fragment, so that they can be compared."""
    return text.casefold()


def fragment_text(value: str) -> str:
    """Return the content of a fragment field by which `value` is found: its code words.

    Raises:
        ValueError: The value has more than `MAX_CHARACTERS` characters after folding.
    """
    folded = fold(value)
    if len(folded) > MAX_CHARACTERS:
        raise ValueError(
            f"a value of {len(folded)} characters; at most {MAX_CHARACTERS} are searchable"
        )
    return " ".join(map(_code_words.__getitem__, folded))


def fragment_query(field: str, fragment: str) -> dict[str, Any]:
    """Return the query for documents whose value contains `fragment`, as the module defines it.

    Raises:
        QueryError: The fragment is empty.
    """
    folded = fold(fragment)
    if not folded:
        raise QueryError("An empty fragment: give at least one character to search for")
    if len(folded) > MAX_CHARACTERS:
        return {"match_none": {}}
    codes = [_code_words[character] for character in folded]
    if len(codes) < 3:
        return {"term": {f"{field}.short": "".join(codes)}}
    last = len(codes) - 3
    words = [
        "".join(codes[start : start + 3]) if start % 3 == 0 or start == last else _HOLE
        for start in range(last + 1)
    ]
    # `constant_score`: a document matches or does not, so scoring would be wasted work.
    phrase = {"match_phrase": {field: " ".join(words)}}
    return {"constant_score": {"filter": phrase}}
