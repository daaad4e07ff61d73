"""A worker among variables of other programs does what our settings say."""

from __future__ import annotations

from pathlib import Path

from agents.client import open_commands
from models.commands import RegisterUser
from models.outcomes import Accepted
from tests.conftest import Deploy

FOREIGN = {
    "BROKER_URL": "kafka://127.0.0.1:1",  # of Celery
    "APP_VERSION": "1.4.2",
    "WEB_PORT": "tcp://10.0.0.1:80",  # of Kubernetes, for a service called web
    "PROCESSING_GUARANTEE": "at_least_once",
    "CONSUMER_GROUP_INSTANCE_ID": "x",
    "TIMEZONE": "Local",
    "FAUST_DEBUG": "1",
    "FAUST_STRICT": "1",
    "FAUST_LOOP": "aio",
}


async def test_a_worker_decides_a_command(deploy: Deploy, tmp_path: Path) -> None:
    deployed = deploy(partitions=1)
    worker = deployed.start("commands", **FOREIGN, FAUST_WORKDIR=str(tmp_path))
    async with open_commands(deployed.settings) as commands:
        outcome = await commands.dispatch(
            RegisterUser(
                aggregate_id="anna",
                email="anna@example.org",
                first_name="Anna",
                last_name="Berg",
                registration_source="web",
            )
        )
    assert isinstance(outcome, Accepted)
    await deployed.retire(worker)
    assert "console" not in worker.log_text
