"""Connects to Elasticsearch and turns its failures into the project's errors.

A failure that can pass by itself (nothing listens, no response in time, 429, any 5xx) is
`Transient`. One that only a person can fix (credentials, another server at that address, no index)
is `Fatal`. The client does not wait and retry: callers know whether to retry for ever or to report
it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import elasticsearch
from aiohttp import ClientConnectorDNSError, ClientConnectorError, ServerDisconnectedError
from elastic_transport import (
    BaseNode,
    ConnectionTimeout,
    NodeConfig,
    NodePool,
    TlsError,
    TransportError,
)
from elastic_transport import ConnectionError as ConnectionFailed
from elasticsearch import ApiError, AsyncElasticsearch, SerializationError
from elasticsearch.serializer import NdjsonSerializer, OrjsonSerializer

from models.errors import CqrsError, Fatal, NoSuchView, Transient
from streams.settings import Settings
from streams.tls import tls_context

_NODE_FAILED = (502, 503, 504)  # another node may still be able to do it
_CLIENT_MAJOR = elasticsearch.VERSION[0]
_PASSING_STATUSES = frozenset({408, 429})
_FIRST_ANSWER_S = 5.0
_INDEX_CLOSED = "index_closed_exception"  # a 400, but it passes when a person opens the index

_LOST_CONTEXT = "search_context_missing_exception"  # of a point in time, or a scroll

# In the reason of a 401 whose API key was not refused: the index with the keys is not there.
_LOOKUP_FAILED = "encountered a failure"


class _Json(OrjsonSerializer):
    """Reads a body that is not JSON as text: a gateway may send anything; its status counts."""

    def loads(self, data: bytes) -> Any:
        try:
            return super().loads(data)
        except SerializationError:
            return data.decode(errors="replace")


class _Lines(NdjsonSerializer):
    """Sends a body that is made already as it is, where the original copies it twice."""

    def dumps(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else super().dumps(data)


class OneNodeAtATime(NodePool):
    """Asks one node until it fails, or until somebody wants another one (`ask_another_node`).

    A node that is cut off from the others still answers, of what it had when it was. So two
    requests agree only if the same node was asked. The nodes take turns: one that was left is asked
    again when all others have been left after it. The turn is all that the pool keeps of a failure.
    """

    def __init__(self, node_configs: list[NodeConfig], *args: Any, **options: Any) -> None:
        """Create it; it shuffles its nodes, so that processes do not all ask the same one."""
        super().__init__(node_configs, *args, **options)
        self._nodes = self.all()
        self._turn = 0

    @property
    def current(self) -> NodeConfig:
        """The node whose turn it is."""
        return self._nodes[self._turn].config

    def get(self) -> BaseNode:
        """Return the node whose turn it is."""
        return self._nodes[self._turn]

    def mark_dead(self, node: BaseNode, _now: float | None = None) -> None:
        """Leave a node that did not answer, or whose answer may be its own fault (429, 5xx)."""
        self.leave(node.config)

    def mark_live(self, node: BaseNode) -> None:
        """Do nothing: it is asked when its turn comes."""

    def leave(self, node: NodeConfig) -> None:
        """Let it be the next node's turn, unless somebody has left this one before."""
        if node == self.current:
            self._turn = (self._turn + 1) % len(self._nodes)


def current_node(client: AsyncElasticsearch) -> NodeConfig:
    """Return the node that is asked next."""
    return _pool(client).current


def ask_another_node(client: AsyncElasticsearch, than: NodeConfig) -> None:
    """Ask no more of this node than has to be: it may be cut off. Without others, it goes on."""
    _pool(client).leave(than)


def _pool(client: AsyncElasticsearch) -> OneNodeAtATime:
    pool = client.transport.node_pool
    assert isinstance(pool, OneNodeAtATime), "`connect` made it"
    return pool


def connect(settings: Settings, *, timeout: float) -> AsyncElasticsearch:
    """Create a client for `elasticsearch_url`. It sends nothing yet; the caller closes it.

    With several nodes, one is asked until it fails (see `OneNodeAtATime`). What it cannot do (no
    connection, no answer in time, 502 to 504) is asked of the next one, of each node once. That is
    safe for writes, too: whoever writes has to repeat a request without an answer anyway.

    Args:
        settings: Contains the URLs of Elasticsearch, the credentials and the files for TLS.
        timeout: Seconds that one request to one node may take.

    Raises:
        Fatal: A file of the settings cannot be used.
    """
    urls = settings.elasticsearch_urls
    options: dict[str, Any] = {"api_key": settings.secret("elasticsearch_api_key")}
    if settings.elasticsearch_username is not None:
        password = settings.secret("elasticsearch_password")
        options["basic_auth"] = (settings.elasticsearch_username, password)
    if urls[0].startswith("https:"):
        options["ssl_context"] = tls_context(
            "CQRS_ELASTICSEARCH",
            settings.elasticsearch_ca_file,
            settings.elasticsearch_cert_file,
            settings.elasticsearch_key_file,
        )
    client = AsyncElasticsearch(
        urls,
        request_timeout=timeout,
        node_pool_class=OneNodeAtATime,
        max_retries=len(urls) - 1,
        retry_on_timeout=True,
        retry_on_status=_NODE_FAILED,
        serializers={
            "application/json": _Json(),
            "application/*": _Json(),
            _Lines.mimetype: _Lines(),
        },
        **options,
    )
    # It warns about every failed attempt; callers that retry log a failure once.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    return client


@asynccontextmanager
async def connected(settings: Settings, *, timeout: float) -> AsyncIterator[AsyncElasticsearch]:
    """Open a client to which Elasticsearch has answered, whatever it said.

    So nobody who may wait long for a request waits as long for a server that is not there.

    Args:
        settings: As for `connect`.
        timeout: Seconds that one request may take; the first one, 5.

    Raises:
        Fatal: As for `connect`, or the host is not known.
        Transient: Nothing answers.
    """
    async with connect(settings, timeout=timeout) as client:
        with translating(client, starting=True), suppress(ApiError):
            await client.options(request_timeout=_FIRST_ANSWER_S).perform_request("HEAD", "/")
        yield client


def address(client: AsyncElasticsearch) -> str:
    """Return the addresses that the client connects to, for people and without credentials."""
    return ", ".join(node.base_url for node in client.transport.node_pool.all())


@contextmanager
def translating(client: AsyncElasticsearch, *, starting: bool = False) -> Iterator[None]:
    """Turn every failure of a request into `Transient` or `Fatal`, with a message of one line.

    An unknown host is `Fatal` if `starting`: a mistake in the settings. Later it is an outage,
    because some name services drop a name as soon as nothing runs behind it.
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
    """Remove the tracebacks of an error and of its causes, before a retry.

    Their frames keep the body of the request (up to 1 MiB) in reference cycles: the error is a
    variable in a frame of its own traceback, or since Python 3.13 in one that called such a frame.
    Only garbage collection frees those, and it rarely runs in a worker that waits.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def missing_index(name: str) -> NoSuchView:
    """Return the error for an alias or index that does not exist."""
    return NoSuchView(
        f"Elasticsearch has no index {name}: a view worker makes it and shows it when it is "
        "complete; `cqrs views status` says how far that is"
    )


def is_passing(status: int, kind: str) -> bool:
    """Return whether the same request may succeed later.

    Args:
        status: HTTP status.
        kind: Type of the error, as Elasticsearch names it.
    """
    return (
        status in _PASSING_STATUSES
        or status >= 500
        or kind in {_INDEX_CLOSED, "cluster_block_exception"}
    )


def _transport_failure(error: TransportError, where: str) -> CqrsError:
    if isinstance(error, ConnectionTimeout):
        return Transient(
            f"Elasticsearch at {where} did not answer in time: look at its log, or set "
            "CQRS_ELASTICSEARCH_URL"
        )
    if isinstance(error, TlsError):
        return Fatal(f"No TLS with Elasticsearch at {where}: {_line(error.message)}")
    if isinstance(error, ConnectionFailed):
        if isinstance(error.__context__, ClientConnectorError) and _refuses(error.__context__):
            return Transient(
                f"Elasticsearch at {where} cannot be reached: start it (`cqrs dev` starts a local "
                "one) or set CQRS_ELASTICSEARCH_URL"
            )
        reason = _line(error.message)
        if isinstance(error.__context__, ServerDisconnectedError) and where.startswith("http:"):
            reason += "; does it want https?"
        return Transient(f"Elasticsearch at {where} cannot be reached: {reason}")
    return _not_elasticsearch(where)  # the response cannot be read


def _refuses(error: ClientConnectorError) -> bool:
    return isinstance(error.os_error, ConnectionRefusedError)


def _api_failure(error: ApiError, where: str) -> CqrsError:
    status, kind = error.status_code, str(error.message)
    if is_passing(status, kind):
        reason = _line(kind) or "no reason given"
        return Transient(f"Elasticsearch at {where} answered {status}: {reason}")
    if status == 401 and _LOOKUP_FAILED in _why(error):
        return Transient(f"Elasticsearch at {where} cannot look up API keys (401){_why(error)}")
    if status == 401:
        return Fatal(
            f"Elasticsearch at {where} refuses the credentials (401): check "
            "CQRS_ELASTICSEARCH_API_KEY, or CQRS_ELASTICSEARCH_USERNAME and its password"
            f"{_why(error)}"
        )
    if status == 403:
        return Fatal(
            f"Elasticsearch at {where} refuses the credentials (403), a privilege is missing: "
            f"`cqrs topics acls` prints what each role needs{_why(error)}"
        )
    if error.meta.headers.get("x-elastic-product") != "Elasticsearch":
        return _not_elasticsearch(where)
    if kind == "media_type_header_exception":  # of Elasticsearch 8, which speaks versions 7 and 8
        return Fatal(
            f"Elasticsearch at {where} does not understand the requests of this version: "
            f"Elasticsearch {_CLIENT_MAJOR} is needed"
        )
    if _LOST_CONTEXT in str(error.body):  # also as the cause of another error
        return Transient(
            f"Elasticsearch at {where} has lost the documents that were being read, as when a node "
            "starts again: run this again"
        )
    if kind == "index_not_found_exception":
        return missing_index(error.body["error"].get("index", ""))
    return Fatal(f"Elasticsearch at {where} refuses a request: {_line(str(error))}")


def _why(error: ApiError) -> str:
    """Return what Elasticsearch says of refused credentials, for the end of a line."""
    if not isinstance(error.body, dict) or not isinstance(error.body.get("error"), dict):
        return ""
    details = error.body["error"]
    reason = details.get("additional_unsuccessful_credentials") or details.get("reason")
    return f"; {_line(reason)}" if reason else ""


def _not_elasticsearch(where: str) -> Fatal:
    return Fatal(
        f"The server at {where} is not Elasticsearch (OpenSearch does not do instead): check "
        "CQRS_ELASTICSEARCH_URL"
    )


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
