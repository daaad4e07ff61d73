"""The decisions about users, on dicts, without anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_REGISTRATION = ("email", "firstName", "lastName", "registrationSource")
_PROFILE = _REGISTRATION[:3]


def decide(command: Mapping[str, Any], user: Mapping[str, Any] | None) -> tuple[str, Json] | str:
    """Return the type and the fields of the event, or the code of a rejection.

    Raises:
        KeyError: it is not a valid command.
    """
    kind = command["type"]
    version = 0 if user is None else user["version"]
    if command.get("expectedVersion", version) != version:
        return "version-mismatch"
    if kind == "RegisterUser":
        if user is not None:
            return "user-exists"
        return "UserRegistered", {name: command[name] for name in _REGISTRATION}
    if kind not in ("UpdateUserProfile", "DeactivateUser", "ReactivateUser"):
        raise KeyError(kind)
    if user is None:
        return "user-not-found"
    if kind == "UpdateUserProfile":
        changes = {
            name: command[name]
            for name in _PROFILE
            if name in command and command[name] != user[name]
        }
        return ("UserProfileUpdated", changes) if changes else "nothing-to-change"
    if kind == "DeactivateUser":
        return ("UserDeactivated", {}) if user["isActive"] else "user-inactive"
    return "user-active" if user["isActive"] else ("UserReactivated", {})


def evolve(user: Mapping[str, Any] | None, kind: str, fields: Mapping[str, Any]) -> Json:
    """Return the user after the event."""
    after = {"version": 0, "isActive": True, **(user or {}), **fields}
    after["version"] += 1
    if kind in ("UserDeactivated", "UserReactivated"):
        after["isActive"] = kind == "UserReactivated"
    return after


def event_of(command: Mapping[str, Any], kind: str, fields: Json, version: int) -> Json:
    """Return the value of the event's record."""
    return {
        "type": kind,
        "id": f"{command['id']}-0",
        "aggregateId": command["aggregateId"],
        "sequence": version,
        "timestamp": command["timestamp"],
        "commandId": command["id"],
        **fields,
    }


def outcome_of(command: Mapping[str, Any], status: str, **fields: Any) -> Json:
    """Return the value of the outcome's record."""
    return {
        "status": status,
        "commandId": command.get("id"),
        "aggregateId": command.get("aggregateId"),
        **fields,
    }
