"""What a machine or a clone lacks for a scenario is said in one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from models.errors import Fatal
from tests.harness import hosts, older_programs


def test_a_clone_without_history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(older_programs, "ROOT", tmp_path)
    with pytest.raises(Fatal) as refused:
        list(older_programs.older_programs(tmp_path))
    (line,) = str(refused.value).splitlines()
    assert line.startswith("older versions are not tried: fatal: not a git repository")
    assert line.endswith("`git fetch --unshallow --tags`")


def test_a_machine_that_permits_no_network_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_libc", SimpleNamespace(unshare=lambda _flags: -1))
    monkeypatch.setattr(hosts, "_TOOLS", ())
    with (
        pytest.raises(Fatal, match="this machine permits no network namespace"),
        hosts.open_hosts("one"),
    ):
        pass


def test_a_machine_without_the_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_TOOLS", ("no-such-program",))
    with (
        pytest.raises(Fatal, match="hosts are not tried without no-such-program: apt-get install"),
        hosts.open_hosts("one"),
    ):
        pass
