"""Commands of made-up users."""

from __future__ import annotations

from models.commands import RegisterUser


def register(user: str) -> RegisterUser:
    """Return the registration of a user with this id."""
    return RegisterUser(
        aggregate_id=user,
        email=f"{user}@example.org",
        first_name="Anna",
        last_name="Muster",
        registration_source="web",
    )
