"""What happened to a user. Their time, order and cause are in the envelope, `EventRecord`.

Email and names are personal data, the source of a registration is not. Where they were encrypted
and the key is destroyed, each of them reads as the empty string, which is no valid value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import Self

from models.wire import read_optional_text, read_text

_PROFILE = ("email", "firstName", "lastName")


class _Impersonal:
    """An event without personal data."""

    __slots__ = ()
    personal: ClassVar[tuple[str, ...]] = ()
    erases: ClassVar[bool] = False

    @property
    def is_shredded(self) -> bool:
        """Never: there is nothing to be shredded."""
        return False


@dataclass(frozen=True, slots=True)
class UserRegistered:
    """There is a new user, active."""

    personal: ClassVar[tuple[str, ...]] = _PROFILE
    erases: ClassVar[bool] = False

    email: str
    first_name: str
    last_name: str
    registration_source: str

    @property
    def is_shredded(self) -> bool:
        """Whether email and names were read without their key."""
        return self.email == ""

    def to_wire(self) -> dict[str, Any]:
        """All four fields."""
        return {
            "email": self.email,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "registrationSource": self.registration_source,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`. Raises Poison."""
        return cls(
            email=read_text(data, "email"),
            first_name=read_text(data, "firstName"),
            last_name=read_text(data, "lastName"),
            registration_source=read_text(data, "registrationSource"),
        )


@dataclass(frozen=True, slots=True)
class UserProfileUpdated:
    """The fields that are not None have new values, different from the ones before.

    Of a shredded one nobody knows which these were: all three are the empty string.
    """

    personal: ClassVar[tuple[str, ...]] = _PROFILE
    erases: ClassVar[bool] = False

    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None

    @property
    def is_shredded(self) -> bool:
        """Whether email and names were read without their key."""
        return self.email == ""

    def to_wire(self) -> dict[str, Any]:
        """The fields that changed."""
        data = {}
        if self.email is not None:
            data["email"] = self.email
        if self.first_name is not None:
            data["firstName"] = self.first_name
        if self.last_name is not None:
            data["lastName"] = self.last_name
        return data

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`. Raises Poison."""
        return cls(
            email=read_optional_text(data, "email"),
            first_name=read_optional_text(data, "firstName"),
            last_name=read_optional_text(data, "lastName"),
        )


@dataclass(frozen=True, slots=True)
class UserDeactivated(_Impersonal):
    """An active user is inactive now."""

    def to_wire(self) -> dict[str, Any]:
        """Nothing but that it happened."""
        return {}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`."""
        return cls()


@dataclass(frozen=True, slots=True)
class UserReactivated(_Impersonal):
    """An inactive user is active again."""

    def to_wire(self) -> dict[str, Any]:
        """Nothing but that it happened."""
        return {}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`."""
        return cls()


@dataclass(frozen=True, slots=True)
class UserErased(_Impersonal):
    """The user has ended. Nothing follows."""

    erases: ClassVar[bool] = True

    def to_wire(self) -> dict[str, Any]:
        """Nothing but that it happened."""
        return {}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`."""
        return cls()


UserEvent = UserRegistered | UserProfileUpdated | UserDeactivated | UserReactivated | UserErased

USER_EVENTS: Mapping[str, type[UserEvent]] = {
    event.__name__: event
    for event in (UserRegistered, UserProfileUpdated, UserDeactivated, UserReactivated, UserErased)
}
