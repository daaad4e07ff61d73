"""What a view worker does when Elasticsearch cannot look up its API key, and when that has ended.

A node keeps what it has looked up for five minutes. So workers notice neither for as long; here the
cache is cleared, as a node's is that starts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from elasticsearch import AuthenticationException, ElasticsearchWarning
from pydantic import SecretStr

from agents.client import open_commands, open_queries
from deploy.embedded.stack import EmbeddedStack
from deploy.waiting import wait_until
from models.errors import Transient
from models.queries import GetUsersByEmail
from streams.elasticsearch.connection import connect
from streams.settings import Settings
from tests.harness.deployments import until_processing
from tests.harness.secured import Secured
from tests.harness.users import register

_INDEX = ".security-7"
_KEEPER = "keeper"  # also the password


@pytest.fixture
async def secured(secured_servers: EmbeddedStack, tmp_path: Path) -> Secured:
    return await Secured.create(secured_servers, tmp_path)


@pytest.fixture
async def keeper(secured: Secured) -> Settings:
    """The settings of a user whom Elasticsearch knows from files, and who may close that index."""
    config = secured.stack.home / "config"
    role = {
        "cluster": ["all"],
        "indices": [
            {"names": [".security*"], "privileges": ["all"], "allow_restricted_indices": True}
        ],
    }
    (config / "roles.yml").write_text(json.dumps({_KEEPER: role}))  # JSON is YAML
    salt, rounds = bytes(32), 10_000
    key = hashlib.pbkdf2_hmac("sha512", _KEEPER.encode(), salt, rounds, 32)
    hashed = "$".join((str(rounds), *(base64.b64encode(one).decode() for one in (salt, key))))
    (config / "users_roles").write_text(f"{_KEEPER}:{_KEEPER}\n")
    (config / "users").write_text(f"{_KEEPER}:{{PBKDF2}}{hashed}\n")
    own = secured.admin.model_copy(
        update={
            "elasticsearch_username": _KEEPER,
            "elasticsearch_password": SecretStr(_KEEPER),
            "elasticsearch_password_file": None,
        }
    )
    async with connect(own, timeout=30) as client:

        async def is_known() -> bool:
            with suppress(AuthenticationException):
                needed = {"names": [_INDEX], "privileges": ["manage"]}
                may = await client.security.has_privileges(
                    index=[{**needed, "allow_restricted_indices": True}]
                )
                return bool(may["has_all_requested"])
            return False

        await wait_until(is_known, timeout=60, what="Elasticsearch has read its files")
    return own


@asynccontextmanager
async def without_security_index(keeper: Settings) -> AsyncIterator[None]:
    """Close the index in which API keys are: for lookups it is as if its nodes were lost."""
    async with connect(keeper, timeout=30) as client:
        with warnings.catch_warnings():  # of a request for such an index
            warnings.simplefilter("ignore", ElasticsearchWarning)
            await client.indices.close(index=_INDEX)
            try:
                await client.security.clear_api_key_cache(ids=["*"])
                yield
            finally:
                await client.indices.open(index=_INDEX)


async def test_a_view_worker_waits_for_the_security_index(
    secured: Secured, keeper: Settings
) -> None:
    roles = await secured.roles()
    with (
        secured.worker("commands", roles["command-worker"]),
        secured.worker("views", roles["view-worker"]) as worker,
    ):
        await until_processing(worker)
        async with open_commands(roles["client"]) as commands:
            await commands.dispatch(register("anna"))
            async with without_security_index(keeper):
                outcome = await commands.dispatch(register("berta"))
                line = "Projecting waits: Elasticsearch at "
                await wait_until(lambda: line in worker.log_text, timeout=60, what="it waits")
                assert "cannot look up API keys (401)" in worker.log_text
                with pytest.raises(Transient, match="cannot look up API keys"):
                    async with open_queries(roles["client"]) as queries:
                        await queries.execute(GetUsersByEmail("berta@"))
        async with open_queries(roles["client"]) as queries:
            page = await queries.execute(
                GetUsersByEmail("berta@"), at_least=outcome.token, timeout=60
            )
            assert [user.id for user in page.items] == ["berta"]
        assert worker.is_running
        assert "Projecting continues" in worker.log_text


async def test_an_api_key_that_is_taken_from_a_running_worker(secured: Secured) -> None:
    roles = await secured.roles()
    with secured.worker("views", roles["view-worker"]) as worker:
        await until_processing(worker)
        async with connect(secured.admin, timeout=30) as client:
            name = f"{secured.admin.namespace}view-worker"
            done = await client.security.invalidate_api_key(name=name)
            assert len(done["invalidated_api_keys"]) == 1
        assert worker.wait(timeout=60) == 1
    last = worker.log_text.splitlines()[-1]
    assert last.startswith("error: Elasticsearch at ")
    assert "refuses the credentials (401)" in last
