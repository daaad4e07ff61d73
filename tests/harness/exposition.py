"""What a process exposes to Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploy.ephemeral import WorkerProcess


class Exposition:
    """The samples in the text of one or several scrapes."""

    def __init__(self, *texts: str) -> None:
        self.samples: list[Sample] = [
            sample
            for text in texts
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name that have these labels."""
        return sum(self._values(name, labels))

    def value(self, name: str, **labels: str) -> float:
        """Return the one sample with this name that has these labels."""
        (value,) = self._values(name, labels)
        return value

    def _values(self, name: str, labels: dict[str, str]) -> Iterable[float]:
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]


async def get(worker: WorkerProcess, path: str) -> tuple[int, str]:
    """Return the HTTP status and the body of one of a worker's pages; it needs a `health_port`."""
    url = re.findall(r"health: (http://[\w.:]+)/health", worker.log_text)[-1]
    async with aiohttp.ClientSession() as client, client.get(url + path) as response:
        return response.status, await response.text()


async def scrape(*workers: WorkerProcess) -> Exposition:
    """Return what these workers expose together."""
    return Exposition(*[(await get(worker, "/metrics"))[1] for worker in workers])
