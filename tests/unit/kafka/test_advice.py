"""What no retry cures says what to do."""

from __future__ import annotations

import pytest
from aiokafka import errors

from streams.kafka.advice import advice


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.InconsistentGroupProtocolError, "--members --group staging-users-commands`"),
        (errors.InvalidGroupIdError, "no consumer group named staging-users-commands"),
        (errors.InvalidSessionTimeoutError, "set CQRS_SESSION_TIMEOUT"),
        (errors.InvalidTransactionTimeout, "set CQRS_TRANSACTION_TIMEOUT"),
        (errors.MessageSizeTooLargeError, "set max.message.bytes"),
        (errors.UnsupportedCodecError, "install the library"),
    ],
)
def test_it_says_what_to_do(error: type[Exception], text: str) -> None:
    assert text in (advice(error(), "staging-users-commands") or "")


@pytest.mark.parametrize(
    "error", [errors.RequestTimedOutError(), errors.KafkaError("InconsistentGroup"), OSError()]
)
def test_what_may_pass_has_no_advice(error: Exception) -> None:
    assert advice(error, "users-commands") is None
