"""The connection to Elasticsearch, and what its failures mean here.

Whatever can pass by itself (nothing listens, no answer in time, 429, any 5xx) is `Transient`. What
only a person can change (credentials, another server at that address, no index) is `Fatal`. The
client does not retry: who calls knows whether to wait for ever or to tell the user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientConnectorDNSError
from elastic_transport import ConnectionError as ConnectionFailed
from elastic_transport import ConnectionTimeout, TlsError, TransportError
from elasticsearch import ApiError, AsyncElasticsearch, SerializationError
from elasticsearch.serializer import OrjsonSerializer

from models.errors import CqrsError, Fatal, NoSuchView, Transient
from streams.settings import Settings

_PASSING = frozenset({408, 429})
_INDEX_CLOSED = "index_closed_exception"  # a 400, and yet it passes when somebody opens the index


class _Json(OrjsonSerializer):
    """Takes what is no JSON for text: a gateway's answer may be empty, and its status counts."""

    def loads(self, data: bytes) -> Any:
        try:
            return super().loads(data)
        except SerializationError:
            return data.decode(errors="replace")


def connect(settings: Settings, *, timeout: float) -> AsyncElasticsearch:
    """A client for `elasticsearch_url`; close it. Nothing is sent yet.

    Credentials, API keys and certificates go in here when `Settings` has them.

    Args:
        settings: Where Elasticsearch is.
        timeout: Seconds that any one request may take.

    Raises:
        Fatal: The URL is not one.
    """
    url = settings.elasticsearch_url
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.port:
            raise ValueError(url)
        client = AsyncElasticsearch(
            url,
            request_timeout=timeout,
            max_retries=0,
            serializers={"application/json": _Json(), "application/*": _Json()},
        )
    except ValueError:
        raise Fatal(
            "CQRS_ELASTICSEARCH_URL has to be a scheme, a host and a port, "
            "as in http://127.0.0.1:9200"
        ) from None
    # It warns of every failed attempt; whoever retries says it once
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    return client


def address(client: AsyncElasticsearch) -> str:
    """Where the client connects to, without credentials, for people to read."""
    return ", ".join(node.base_url for node in client.transport.node_pool.all())


@contextmanager
def translating(client: AsyncElasticsearch, *, starting: bool = False) -> Iterator[None]:
    """Turn every failure of a request into `Transient` or `Fatal`, one line each.

    An unknown host is a mistake in the settings when `starting`; later on it is an outage, for
    some name services forget a name as soon as nothing runs behind it.
    """
    try:
        yield
    except ApiError as error:
        clear_traceback(error)
        raise _api_failure(error, address(client)) from error
    except TransportError as error:
        clear_traceback(error)
        if starting and isinstance(error.__context__, ClientConnectorDNSError):
            raise Fatal(
                f"The host of {address(client)} is not known: check CQRS_ELASTICSEARCH_URL"
            ) from error
        raise _transport_failure(error, address(client)) from error


def clear_traceback(error: BaseException | None) -> None:
    """Empty the frames that a failure has passed, for whoever is going to try again.

    They hold the body of the request, up to a MiB, in cycles (an error in a frame of its own
    traceback) that only garbage collection undoes; and it runs seldom in a worker that waits.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__context__


def missing_index(name: str) -> NoSuchView:
    """There is nothing behind an alias."""
    return NoSuchView(
        f"Elasticsearch has no index {name}: a view worker makes it and shows it when it is "
        "complete; `cqrs views status` says how far that is"
    )


def is_passing(status: int, kind: str) -> bool:
    """Whether the same request may work later, by its HTTP status and Elasticsearch's type."""
    return status in _PASSING or status >= 500 or kind in {_INDEX_CLOSED, "cluster_block_exception"}


def _transport_failure(error: TransportError, where: str) -> CqrsError:
    if isinstance(error, ConnectionTimeout):
        return Transient(f"Elasticsearch at {where} did not answer in time")
    if isinstance(error, TlsError):
        return Fatal(f"No TLS with Elasticsearch at {where}: {_line(error.message)}")
    if isinstance(error, ConnectionFailed):
        return Transient(f"Elasticsearch at {where} cannot be reached: {_line(error.message)}")
    return _not_elasticsearch(where)  # an answer that cannot be read


def _api_failure(error: ApiError, where: str) -> CqrsError:
    status, kind = error.status_code, str(error.message)
    if is_passing(status, kind):
        said = _line(kind) or "without a word"
        return Transient(f"Elasticsearch at {where} answered {status}: {said}")
    if status in (401, 403):
        return Fatal(
            f"Elasticsearch at {where} refuses the credentials ({status}): "
            "check CQRS_ELASTICSEARCH_URL and the user's privileges"
        )
    if error.meta.headers.get("x-elastic-product") != "Elasticsearch":
        return _not_elasticsearch(where)
    if kind == "index_not_found_exception":
        return missing_index(error.body["error"].get("index", ""))
    return Fatal(f"Elasticsearch at {where} refuses a request: {_line(str(error))}")


def _not_elasticsearch(where: str) -> Fatal:
    return Fatal(f"What answers at {where} is not Elasticsearch: check CQRS_ELASTICSEARCH_URL")


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
