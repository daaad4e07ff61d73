"""What a refusal of Elasticsearch means: it is waited for, or it ends the program."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elasticsearch import AsyncElasticsearch, AuthenticationException

from models.errors import CqrsError, Fatal, Transient
from streams.elasticsearch import connection
from streams.elasticsearch.connection import translating

NODE = NodeConfig("https", "es", 9200)


def refused(monkeypatch: pytest.MonkeyPatch, error: dict[str, Any]) -> CqrsError:
    """What becomes of a 401 with this error."""
    monkeypatch.setattr(connection, "address", lambda _: "https://es:9200")
    headers = HttpHeaders({"x-elastic-product": "Elasticsearch"})
    meta = ApiResponseMeta(401, "1.1", headers, 0.0, NODE)
    with (
        pytest.raises(CqrsError) as raised,
        translating(cast(AsyncElasticsearch, SimpleNamespace())),
    ):
        raise AuthenticationException("security_exception", meta, {"error": error})
    return raised.value


def test_a_key_that_cannot_be_looked_up_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "API key: apikey authentication for id x encountered a failure"
    error = refused(monkeypatch, {"additional_unsuccessful_credentials": reason})
    assert isinstance(error, Transient)
    assert str(error) == (
        f"Elasticsearch at https://es:9200 cannot look up API keys (401); {reason}"
    )


@pytest.mark.parametrize("error", [{}, {"reason": "unable to authenticate user [anna]"}])
def test_any_other_refusal_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, error: dict[str, Any]
) -> None:
    assert isinstance(refused(monkeypatch, error), Fatal)
