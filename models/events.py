"""Events of a user. Their time, order and cause are in the envelope, `EventRecord`.

Email and names are personal data, the source of a registration is not. If they were encrypted and
the key is destroyed, each of them is read as the empty string, which is no valid value.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from typing_extensions import Self

from models.messages import EventBase, WithoutPersonalData
from models.wire import read_optional_text, read_text

_PROFILE = ("email", "firstName", "lastName")


class UserRegistered(EventBase, frozen=True):
    """A new user exists, and is active."""

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

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """Return the event with these fields. Raises Poison."""
        return cls(
            email=read_text(data, "email"),
            first_name=read_text(data, "firstName"),
            last_name=read_text(data, "lastName"),
            registration_source=read_text(data, "registrationSource"),
        )


class UserProfileUpdated(EventBase, frozen=True):
    """The fields that are not None have new values, different from the ones before.

    After shredding it is unknown which these were: all three are the empty string.
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

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """Return the event with these fields. Raises Poison."""
        return cls(
            email=read_optional_text(data, "email"),
            first_name=read_optional_text(data, "firstName"),
            last_name=read_optional_text(data, "lastName"),
        )


class UserDeactivated(WithoutPersonalData, frozen=True):
    """An active user is inactive now."""


class UserReactivated(WithoutPersonalData, frozen=True):
    """An inactive user is active again."""


class UserErased(WithoutPersonalData, frozen=True):
    """The user is erased. No event follows."""

    erases: ClassVar[bool] = True


UserEvent = UserRegistered | UserProfileUpdated | UserDeactivated | UserReactivated | UserErased

USER_EVENTS: Mapping[str, type[UserEvent]] = {
    event.__name__: event for event in get_args(UserEvent)
}
