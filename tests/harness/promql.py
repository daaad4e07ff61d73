"""As much of PromQL as the alert rules need, to evaluate them on invented histories.

promtool does this, too (`deploy/monitoring/alerts_test.yaml` is written for it), but comes with
Prometheus only. The parser is a library; `rate` and `increase` leave out Prometheus' extrapolation.
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import promql_parser as promql

Labels = frozenset[tuple[str, str]]
Vector = Mapping[Labels, float]
History = Mapping[Labels, Sequence[tuple[float, float]]]
"""Samples, as time in seconds and value, by labels; the name is the label `__name__`."""

_LOOKBACK_S = 300.0

_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_COMPARISON: Mapping[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_AGGREGATION: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max}


def evaluate(expression: promql.Expr, history: History, now: float) -> Vector | float:
    """Return the value of an expression at a time.

    Raises:
        NotImplementedError: it uses what no rule has used so far.
    """
    match expression:
        case promql.NumberLiteral():
            return float(expression.val)
        case promql.ParenExpr():
            return evaluate(expression.expr, history, now)
        case promql.VectorSelector():
            return {
                labels: samples[-1][1]
                for labels, samples in _select(expression, history, now, _LOOKBACK_S).items()
            }
        case promql.AggregateExpr():
            return _aggregate(expression, _vector(expression.expr, history, now))
        case promql.Call():
            return _call(expression, history, now)
        case promql.BinaryExpr():
            left = evaluate(expression.lhs, history, now)
            right = evaluate(expression.rhs, history, now)
            return _combine(str(expression.op), left, right)
        case _:
            raise NotImplementedError(type(expression).__name__)


def _vector(expression: promql.Expr, history: History, now: float) -> Vector:
    found = evaluate(expression, history, now)
    assert not isinstance(found, float)
    return found


def _select(
    selector: promql.VectorSelector, history: History, now: float, range_s: float
) -> dict[Labels, list[tuple[float, float]]]:
    """Return the samples of each matching series within the range; none of empty ones."""
    found = {}
    for labels, samples in history.items():
        named = dict(labels)
        if named["__name__"] == selector.name and all(
            _matches(one, named.get(one.name, "")) for one in selector.matchers.matchers
        ):
            within = [sample for sample in samples if now - range_s <= sample[0] <= now]
            if within:
                found[labels] = within
    return found


def _matches(matcher: Any, value: str) -> bool:
    match matcher.op:
        case promql.MatchOp.Equal:
            return bool(value == matcher.value)
        case promql.MatchOp.NotEqual:
            return bool(value != matcher.value)
        case promql.MatchOp.Re:
            return re.fullmatch(matcher.value, value) is not None
        case _:
            raise NotImplementedError(str(matcher.op))


def _aggregate(expression: promql.AggregateExpr, vector: Vector) -> Vector:
    by = set(expression.modifier.labels) if expression.modifier else set()
    groups: dict[Labels, list[float]] = defaultdict(list)
    for labels, value in vector.items():
        groups[frozenset(pair for pair in labels if pair[0] in by)].append(value)
    aggregate = _AGGREGATION[str(expression.op)]
    return {labels: aggregate(values) for labels, values in groups.items()}


def _call(call: promql.Call, history: History, now: float) -> Vector | float:
    if call.func.name == "time":
        return now
    (argument,) = call.args
    assert isinstance(argument, promql.MatrixSelector)
    range_s = argument.range.total_seconds()
    series = _select(argument.vector_selector, history, now, range_s)
    values = {
        _nameless(labels): [value for _, value in samples] for labels, samples in series.items()
    }
    match call.func.name:
        case "max_over_time":
            return {labels: max(of) for labels, of in values.items()}
        case "changes":
            return {labels: _changes(of) for labels, of in values.items()}
        case "increase":
            return {labels: _increase(of) for labels, of in values.items()}
        case "rate":
            return {labels: _increase(of) / range_s for labels, of in values.items()}
        case other:
            raise NotImplementedError(other)


def _changes(values: Sequence[float]) -> float:
    return float(sum(a != b for a, b in pairwise(values)))


def _increase(values: Sequence[float]) -> float:
    """Return how much a counter has grown; a lower value is that of a process that began again."""
    return sum(b - a if b >= a else b for a, b in pairwise(values))


def _combine(operation: str, left: Vector | float, right: Vector | float) -> Vector | float:
    if operation == "or":
        assert not isinstance(left, float)
        assert not isinstance(right, float)
        both = set(map(_nameless, left))
        return {
            **left,
            **{one: value for one, value in right.items() if _nameless(one) not in both},
        }
    if operation in ("and", "unless"):
        assert not isinstance(left, float)
        assert not isinstance(right, float)
        shown, is_shown = set(map(_nameless, right)), operation == "and"
        return {
            labels: value
            for labels, value in left.items()
            if (_nameless(labels) in shown) is is_shown
        }
    pairs = _pairs(left, right)
    if operation in _COMPARISON:
        compare = _COMPARISON[operation]
        return {labels: a for labels, a, b in pairs if compare(a, b)}
    compute = _ARITHMETIC[operation]
    return {_nameless(labels): compute(a, b) for labels, a, b in pairs}


def _pairs(left: Vector | float, right: Vector | float) -> list[tuple[Labels, float, float]]:
    """Return the values of both sides that have the same labels; a number goes with each."""
    if isinstance(left, float):
        assert not isinstance(right, float)
        return [(labels, left, value) for labels, value in right.items()]
    if isinstance(right, float):
        return [(labels, value, right) for labels, value in left.items()]
    others = {_nameless(labels): value for labels, value in right.items()}
    return [
        (labels, value, others[_nameless(labels)])
        for labels, value in left.items()
        if _nameless(labels) in others
    ]


def _nameless(labels: Labels) -> Labels:
    return frozenset(pair for pair in labels if pair[0] != "__name__")
