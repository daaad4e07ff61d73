"""The compose file and the manifests, read by the tools that people use and by real schemas.

The Go programs are built from the Go module proxy, with their versions pinned here; the schemas of
Kubernetes are in a Python package, those of Strimzi and KEDA in `tests/shipping/schemas`. ECK's may
not be distributed: the Elasticsearch resource is not validated.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.jars import cache_home
from tests.harness.command_line import ROOT
from tests.harness.shipped import DEPLOY, KUBERNETES

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(900)]

KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"
COMPOSE = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"  # the parser of docker compose
HERE = Path(__file__).parent


def go_program(module: str) -> Path:
    """The program of a Go module, built when it is needed first."""
    folder = cache_home() / "go" / module.replace("/", "-")
    if not folder.exists():
        if shutil.which("go") is None:
            pytest.fail(f"{module} is not run: there is no Go here (apt-get install golang-go)")
        building = folder.with_suffix(".building")
        subprocess.run(
            ["go", "install", module], env={**os.environ, "GOBIN": str(building)}, check=True
        )
        building.rename(folder)
    (program,) = folder.iterdir()
    return program


@pytest.fixture(scope="module")
def validating_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the schemas of Kubernetes."""
    folder = tmp_path_factory.mktemp("schemas")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r"]
    subprocess.run([*install, str(HERE / "tools.lock")], check=True)
    return python


def validated(python: Path, file: Path) -> dict[str, str]:
    """What was found of each resource in a file, by kind and name."""
    script = [python, HERE / "validate_manifests.py", file, HERE / "schemas"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def test_the_example_is_built_and_valid(validating_python: Path, tmp_path: Path) -> None:
    built = tmp_path / "built.yaml"
    program = go_program(KUSTOMIZE)
    subprocess.run([program, "build", KUBERNETES, "-o", built], check=True, timeout=60)
    found = validated(validating_python, built)
    assert found.pop("Elasticsearch elasticsearch") == "no schema"
    assert set(found.values()) == {"valid"}, found
    kinds = {name.split()[0] for name in found}
    assert {"StatefulSet", "KafkaTopic", "KafkaUser", "ScaledObject"} <= kinds


def test_the_topics_of_other_clusters_are_built_and_valid(
    validating_python: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "manifests"
    shutil.copytree(KUBERNETES, folder)
    (folder / "kustomization.yaml").write_text("resources: [base]\ncomponents: [overlays/topics]\n")
    built = tmp_path / "built.yaml"
    subprocess.run([go_program(KUSTOMIZE), "build", folder, "-o", built], check=True, timeout=60)
    found = validated(validating_python, built)
    assert found["Job cqrs-topics"] == "valid"
    assert set(found.values()) == {"valid"}, found


def test_a_misspelt_field_is_found(validating_python: Path, tmp_path: Path) -> None:
    """So the schemas above say something."""
    wrong = tmp_path / "wrong.yaml"
    topics = (KUBERNETES / "overlays" / "strimzi" / "topics.yaml").read_text()
    budget = (
        "\n---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: x}\n"
        "spec: {maxUnavailabel: 1}\n"
    )
    wrong.write_text(topics.replace('"partitions"', '"partition"') + budget)
    found = validated(validating_python, wrong)
    assert not [name for name, result in found.items() if result == "valid"]
    assert "maxUnavailabel" in found["PodDisruptionBudget x"]


def test_compose_reads_its_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [go_program(COMPOSE), "-format", "json", str(DEPLOY / "compose.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    assert {"kafka", "elasticsearch", "prometheus", "grafana"} < services.keys()
    for name in ("command-worker", "view-worker", "registrations-worker"):
        worker = services[name]
        assert worker["environment"]["CQRS_BOOTSTRAP_SERVERS"] == "kafka:9093"
        assert worker["read_only"] is True
        assert worker["depends_on"]["topics"]["condition"] == "service_completed_successfully"
        assert worker["build"]["dockerfile"] == "deploy/Dockerfile"
