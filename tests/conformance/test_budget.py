"""How an agent's end under a spent budget is judged."""

from __future__ import annotations

import json

import pytest
from conformance.agents import Ran
from conformance.budget import MESSAGE, Met, judge
from conformance.recorder import Recorded


def call(**body: object) -> Recorded:
    """A call that got the budget's answer."""
    return Recorded(
        number=1,
        method="POST",
        path="/v1/responses",
        headers=(),
        body=json.dumps(body).encode(),
        status=402,
        said={"x-clew-error": "budget_exceeded"},
        answer=b"",
    )


STOPPED = Ran(1, f"error: clew: {MESSAGE}: 1 of 1 USD")


def test_an_agent_that_stops_and_says_why_is_well() -> None:
    """Two calls that say different things are no retry."""
    assert judge(Met(STOPPED, (call(input="title"), call(input="hi")))) == []


CASES = [
    (Met(Ran(None, MESSAGE), (call(),)), "did not end"),
    (Met(STOPPED, ()), "met no budget"),
    (Met(Ran(1, "something failed"), (call(),)), "does not say why it ended"),
    (Met(STOPPED, (call(a=1, b=2), call(b=2, a=1))), "sent one call 2 times"),
    (
        Met(STOPPED, (call(a=1, client_metadata={"n": 1}), call(a=1, client_metadata={"n": 2}))),
        "sent one call 2 times",
    ),
]


@pytest.mark.parametrize(("met", "fault"), CASES, ids=[fault for _, fault in CASES])
def test_what_is_wrong_is_named(met: Met, fault: str) -> None:
    """A try that is numbered, or has its fields in another order, is the same call."""
    assert judge(met) == [fault]
