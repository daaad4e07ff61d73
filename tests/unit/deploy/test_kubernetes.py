"""The manifests for Kubernetes hold against the program: settings, ports, topics, rights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.user_views import USER_VIEWS
from agents.users import USERS
from deploy.cli.acls import acls
from deploy.cli.topic_manifests import topic_manifests
from deploy.embedded.lockfile import ELASTICSEARCH_VERSION
from deploy.rights import elasticsearch_rights
from deploy.roles import ROLES
from deploy.supervisor import ROLES as WORKERS
from streams.aggregate import TopicNames
from streams.settings import Settings
from streams.worker.process import STOP_DEADLINE_S
from tests.harness.command_line import ROOT
from tests.harness.shipped import KUBERNETES, documents, image_environment, resources, settings_of

DOCS = (ROOT / "docs" / "deploy.md").read_text()
MAKES_A_SECRET = r"create secret generic (\S+) \\\n +--from-literal (\w+)=\"\$\((.*)\)\""

BASE = KUBERNETES / "base"
OVERLAYS = KUBERNETES / "overlays"
WORKLOADS = ("StatefulSet", "Deployment", "Job")


def literals() -> Mapping[str, dict[str, str]]:
    """The generated ConfigMaps, by name."""
    (kustomization,) = documents(BASE / "kustomization.yaml")
    return {
        one["name"]: dict(line.split("=", 1) for line in one["literals"])
        for one in kustomization["configMapGenerator"]
    }


def settings() -> Settings:
    """The settings of the deployment as far as all processes share them."""
    return settings_of(environment_of(workers()[0]))


def workloads() -> list[dict[str, Any]]:
    return [one for _, one in resources() if one["kind"] in WORKLOADS]


def name_of(resource: dict[str, Any]) -> str:
    return str(resource["metadata"]["name"])


def workers() -> list[dict[str, Any]]:
    return [one for one in workloads() if one["kind"] != "Job"]


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    return dict(workload["spec"]["template"]["spec"])


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(workload)["containers"]
    return dict(container)


def environment_of(workload: dict[str, Any]) -> dict[str, str]:
    container = container_of(workload)
    found = dict(image_environment())
    for source in container["envFrom"]:
        found |= literals()[source["configMapRef"]["name"]]
    return found | {one["name"]: one["value"] for one in container["env"]}


@pytest.mark.parametrize("workload", workloads(), ids=name_of)
def test_the_environment_is_valid(workload: dict[str, Any]) -> None:
    variables = environment_of(workload)
    assert settings_of(variables).health_port == 9100
    mounts = {one["mountPath"] for one in container_of(workload)["volumeMounts"]}
    for name, value in variables.items():
        if name.endswith("_FILE"):
            assert str(Path(value).parent) in mounts, name
        if name == "CQRS_STATE_DIR":
            assert value in mounts


@pytest.mark.parametrize("workload", workloads(), ids=name_of)
def test_every_volume_is_mounted_and_the_other_way_round(workload: dict[str, Any]) -> None:
    volumes = {one["name"] for one in pod_of(workload)["volumes"]}
    claims = workload["spec"].get("volumeClaimTemplates", [])
    volumes |= {name_of(claim) for claim in claims}
    assert volumes == {one["name"] for one in container_of(workload)["volumeMounts"]}


def test_workers_that_obey_control_records_have_their_key_and_no_others() -> None:
    having = [name_of(one) for one in workloads() if "CQRS_CONTROL_KEY_FILE" in environment_of(one)]
    assert having == ["cqrs-command-worker"]


def secrets_of(workload: dict[str, Any]) -> dict[str, str]:
    """The folder of each secret that it has, by name."""
    volumes = {one["name"]: one.get("secret") for one in pod_of(workload)["volumes"]}
    return {
        volumes[mount["name"]]["secretName"]: mount["mountPath"]
        for mount in container_of(workload)["volumeMounts"]
        if volumes.get(mount["name"])
    }


def test_docs_name_every_secret() -> None:
    named = {name for workload in workloads() for name in secrets_of(workload)}
    assert {name for name in named if f"`{name}`" not in DOCS} == set()


@pytest.mark.parametrize(
    ("secret", "setting"),
    [("cqrs-master-key", "master_key"), ("cqrs-control-key", "control_key")],
)
def test_the_command_of_the_docs_makes_a_secret_that_is_one(
    secret: str, setting: str, tmp_path: Path
) -> None:
    (name, key, command), *_ = [
        found for found in re.findall(MAKES_A_SECRET, DOCS) if found[0] == secret
    ]
    done = subprocess.run(
        ["bash", "-c", f'cqrs() {{ {sys.executable} -m deploy.cli "$@"; }}; {command}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    made = tmp_path / key
    made.write_text(done.stdout.rstrip("\n"))  # as $(...) does
    worker = workers()[0]
    file = environment_of(worker)[f"CQRS_{setting.upper()}_FILE"]
    assert file == f"{secrets_of(worker)[name]}/{key}"
    found = Settings.model_validate({f"{setting}_file": made}).secret(setting)
    assert found == made.read_text()


def test_there_is_a_workload_of_each_role() -> None:
    words = [container_of(one)["args"] for one in workers()]
    assert sorted(args[1] for args in words if args[0] == "worker") == sorted(WORKERS)
    kinds = {container_of(one)["args"][1]: one["kind"] for one in workers()}
    assert kinds == {
        "commands": "StatefulSet",
        "views": "Deployment",
        "registrations": "Deployment",
    }


@pytest.mark.parametrize("workload", workloads(), ids=name_of)
def test_pods_have_no_privileges(workload: dict[str, Any]) -> None:
    pod, container = pod_of(workload), container_of(workload)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize("workload", workers(), ids=name_of)
def test_probes_ask_what_there_is(workload: dict[str, Any]) -> None:
    container = container_of(workload)
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"health": int(image_environment()["CQRS_HEALTH_PORT"])}
    paths = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/startup", "liveness": "/live", "readiness": "/ready"}
    assert pod_of(workload)["terminationGracePeriodSeconds"] > STOP_DEADLINE_S


@pytest.mark.parametrize("workload", workers(), ids=name_of)
def test_all_workers_differ_in_nothing_but_their_role(workload: dict[str, Any]) -> None:
    first = workers()[0]
    for part in ("securityContext", "terminationGracePeriodSeconds"):
        assert pod_of(workload)[part] == pod_of(first)[part]
    for part in ("startupProbe", "livenessProbe", "readinessProbe", "ports"):
        assert container_of(workload)[part] == container_of(first)[part]


def test_each_worker_has_a_disruption_budget() -> None:
    budgets = {
        name_of(one): one["spec"] for _, one in resources() if one["kind"] == "PodDisruptionBudget"
    }
    assert set(budgets) == {name_of(one) for one in workers()}
    for worker in workers():
        budget = budgets[name_of(worker)]
        assert budget["selector"] == worker["spec"]["selector"]
        assert budget["maxUnavailable"] == 1
        # While Elasticsearch is away no view worker is ready; nodes have to be drained then, too.
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def mib(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def test_the_memory_limits_are_those_that_the_docs_calculate() -> None:
    """With one worker missing, and a tenth to spare."""
    limits = {
        container_of(one)["args"][1]: mib(container_of(one)["resources"]["limits"]["memory"])
        for one in workers()
    }
    replicas = {container_of(one)["args"][1]: one["spec"]["replicas"] for one in workers()}
    _, header, rows = DOCS.partition("| workers of | how many |")
    columns = [int(one) for one in re.findall(r"(\d+) million users", rows.partition("\n")[0])]
    for row in rows.split("\n\n")[0].splitlines()[2:]:
        name, *cells = (cell.strip(" `") for cell in row.strip("|").split("|"))
        role, _, is_rebuilding = name.partition("`")
        count, fixed, each, *needed = (int(re.sub(r"\D", "", cell)) for cell in cells)
        assert count == replicas[role]
        for users, mebibytes in zip(columns, needed, strict=True):
            assert mebibytes == round(fixed + users * 1e6 / (count - 1) * each / 2**20), row
        if not is_rebuilding:
            assert needed[0] * 1.1 < limits.pop(role), row
    assert limits == {}, header


def test_the_network_policy_lets_out_what_the_settings_name() -> None:
    first, views = (one for _, one in resources() if one["kind"] == "NetworkPolicy")
    everybody = {port["port"] for rule in first["spec"]["egress"] for port in rule["ports"]}
    kafka = int(settings().bootstrap_servers.split(":")[1])
    assert everybody == {53, kafka}
    ((rule,),) = (views["spec"]["egress"],)
    url = literals()["cqrs-elasticsearch"]["CQRS_ELASTICSEARCH_URL"]
    assert [port["port"] for port in rule["ports"]] == [int(url.rpartition(":")[2])]
    ((scraped,),) = (first["spec"]["ingress"],)
    assert [port["port"] for port in scraped["ports"]] == [9100]
    labels = views["spec"]["podSelector"]["matchExpressions"][1]["values"]
    assert [f"cqrs-{label}" for label in sorted(labels)] == [
        name for name in sorted(map(name_of, workers())) if name != "cqrs-command-worker"
    ]


def test_topics_are_what_the_program_prints() -> None:
    printed = topic_manifests(settings(), "kafka") + "\n"
    assert (OVERLAYS / "strimzi" / "topics.yaml").read_text() == printed


def test_names_of_topics_are_valid_names_of_resources() -> None:
    odd = Settings.model_validate({"namespace": "a_b."})
    (first, *_) = map(json.loads, topic_manifests(odd, "kafka").split("\n---\n"))
    assert first["metadata"]["name"] == "a-b.users.commands.v1"
    assert first["spec"]["topicName"] == "a_b.users.commands.v1"


def test_users_are_what_the_program_prints() -> None:
    printed = [acls(role, f"User:cqrs-{role}", "strimzi", settings()) for role in ROLES]
    text = (OVERLAYS / "strimzi" / "users.yaml").read_text()
    assert text == "\n---\n".join(printed) + "\n"
    names = {name_of(one) for one in documents(OVERLAYS / "strimzi" / "users.yaml")}
    assert {environment_of(one)["CQRS_KAFKA_USERNAME"] for one in workloads()} <= names


def test_the_role_of_elasticsearch_is_what_the_program_prints() -> None:
    roles = yaml.safe_load((OVERLAYS / "eck" / "roles.yml").read_text())
    assert roles == {"cqrs-view-worker": elasticsearch_rights("view-worker", settings())}
    (cluster,) = documents(OVERLAYS / "eck" / "elasticsearch.yaml")
    assert cluster["spec"]["version"] == ELASTICSEARCH_VERSION


def test_keda_reads_the_lag_of_the_view() -> None:
    scaled, _ = documents(OVERLAYS / "keda" / "view-worker.yaml")
    (trigger,) = scaled["spec"]["triggers"]
    names = TopicNames.of(settings(), USERS.name)
    assert trigger["metadata"]["consumerGroup"] == f"{settings().namespace}{USER_VIEWS.group}"
    assert trigger["metadata"]["topic"] == names.events
    assert trigger["metadata"]["bootstrapServers"] == settings().bootstrap_servers
    assert scaled["spec"]["maxReplicaCount"] <= settings().partitions
    assert scaled["spec"]["scaleTargetRef"]["name"] in map(name_of, workers())


def test_kustomizations_name_every_file() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        (found,) = documents(path)
        for named in (*found["resources"], *found.get("components", [])):
            assert (path.parent / named).exists(), named
        beside = {one.name for one in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert beside <= set(found["resources"])
