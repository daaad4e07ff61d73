"""No model takes a number for a time: pydantic would guess the unit from the number's size."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from datetime import date, datetime
from importlib import import_module
from typing import Annotated, Any

import pytest
from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError

import models

_annotated: Any = Annotated  # to index it with what is known only here


def times() -> Iterator[Any]:
    """Yield every field of a model in `models/` that is a date or a datetime."""
    for module in pkgutil.iter_modules(models.__path__):
        import_module(f"models.{module.name}")
    unseen = [BaseModel]
    while unseen:
        model = unseen.pop()
        unseen += model.__subclasses__()
        if not model.__module__.startswith("models."):
            continue
        for name, field in model.model_fields.items():
            if field.annotation in (date, datetime, AwareDatetime):
                parts = (field.annotation, name, *field.metadata)
                yield pytest.param(_annotated[parts], id=f"{model.__name__}.{name}")


@pytest.mark.parametrize("number", [0, 1_641_600_000, 1_641_600_000_000, 1.5, "1641600000"])
@pytest.mark.parametrize("kind", list(times()))
def test_a_number_is_no_time(kind: Any, number: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(number)
