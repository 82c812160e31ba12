"""Query parameters: strict, because a filter that is silently ignored gives a wrong answer.

An unknown name, a name given twice and a value that cannot be meant are refused by name. Each
route lists its parameters with the function that reads each; that function raises ValueError.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from starlette.datastructures import QueryParams

from clew.store.bindings import BindingState
from clew.store.reads_drift import MAX_CLIENTS
from clew.store.reads_keys import key_cursor
from clew.store.reads_query import (
    MAX_PAGE,
    Sort,
    State,
    UsageBy,
    event_cursor,
    request_cursor,
    session_cursor,
)
from clew.store.reads_shapes import MAX_INTEGER, NANO
from clew.store.reads_usage import MAX_USAGE
from clew.web.answers import bad_parameter

MAX_TEXT: Final = 1024
"""Characters of a text parameter: as long as the longest id the store holds."""

AGE: Final = r"^[0-9]{1,6}[smhd]$"
_AGE_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d):(\d\d)(\.\d{1,30})?([Zz]|[+-]\d\d:\d\d))?", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Reader = Callable[[str, int], Any]
"""Reads a value; the second argument is the present in Unix nanoseconds."""


def read_parameters(
    query: QueryParams, readers: Mapping[str, Reader], now_ns: int
) -> dict[str, Any]:
    """The parameters that were given, read. Raises `answers.Refusal` naming the bad one."""
    found: dict[str, Any] = {}
    for name, text in query.multi_items():
        reader = readers.get(name)
        if reader is None:
            raise bad_parameter(name, _unknown(name, readers))
        if name in found:
            raise bad_parameter(name, "is given twice")
        try:
            found[name] = reader(text, now_ns)
        except ValueError as error:
            raise bad_parameter(name, str(error)) from None
    return found


def read_time(text: str, now_ns: int) -> int:
    """Unix nanoseconds of an RFC 3339 time, a date (its first moment, UTC) or an age (``24h``)."""
    if re.fullmatch(AGE, text, re.ASCII):
        return _clipped(now_ns - int(text[:-1]) * _AGE_S[text[-1]] * NANO)
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("must be a time such as 2026-11-21T08:00:00Z, a date or an age (24h)")
    day, clock, second, fraction, zone = match.groups()
    # A leap second (RFC 3339, section 5.7) is the last moment of its minute.
    is_leap = second == "60"
    try:
        at = datetime.fromisoformat(
            f"{day}T{clock or '00:00'}:{'59' if is_leap else second or '00'}"
            f"{(zone or 'Z').upper().replace('Z', '+00:00')}"
        )
    except ValueError:
        raise ValueError("is not a time that exists") from None
    past = at - _EPOCH
    nanoseconds = int(((fraction or ".")[1:] + "0" * 9)[:9])
    if is_leap:
        nanoseconds = NANO - 1
    whole = (past.days * 86_400 + past.seconds) * NANO + nanoseconds
    return _clipped(whole)


def read_span(text: str) -> int:
    """Nanoseconds of ``24h``. Raises ValueError."""
    if not re.fullmatch(AGE, text, re.ASCII):
        raise ValueError('must be a span such as "24h" or "90d"')
    return int(text[:-1]) * _AGE_S[text[-1]] * NANO


def read_future(text: str, now_ns: int) -> int:
    """As `read_time`, but a span counts from now on: ``90d`` is in ninety days."""
    if re.fullmatch(AGE, text, re.ASCII):
        return _clipped(now_ns + read_span(text))
    return read_time(text, now_ns)


def _clipped(nanoseconds: int) -> int:
    return max(-MAX_INTEGER, min(nanoseconds, MAX_INTEGER))


def _text(text: str, _now_ns: int) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"must have at most {MAX_TEXT} characters")
    return text


def _one_of(choices: type[StrEnum]) -> Reader:
    def read(text: str, _now_ns: int) -> StrEnum:
        try:
            return choices(text)
        except ValueError:
            raise ValueError(f"must be one of {', '.join(choices)}") from None

    return read


def _count_to(most: int) -> Reader:
    def read(text: str, _now_ns: int) -> int:
        if not re.fullmatch(r"[1-9][0-9]{0,9}", text, re.ASCII) or int(text) > most:
            raise ValueError(f"must be a whole number from 1 to {most}")
        return int(text)

    return read


def _is_newest_first(text: str, _now_ns: int) -> bool:
    if text not in ("asc", "desc"):
        raise ValueError("must be one of asc, desc")
    return text == "desc"


SESSIONS: Final[Mapping[str, Reader]] = {
    "principal": _text,
    "state": _one_of(State),
    "source": _text,
    "q": _text,
    "since": read_time,
    "root": _text,
    "sort": _one_of(Sort),
    "limit": _count_to(MAX_PAGE),
    "cursor": lambda text, _now_ns: session_cursor(text),
}
REQUESTS: Final[Mapping[str, Reader]] = {
    "limit": _count_to(MAX_PAGE),
    "cursor": lambda text, _now_ns: request_cursor(text),
    "order": _is_newest_first,
}
EVENTS: Final[Mapping[str, Reader]] = {
    "limit": _count_to(MAX_PAGE),
    "cursor": lambda text, _now_ns: event_cursor(text),
}
USAGE: Final[Mapping[str, Reader]] = {
    "by": _one_of(UsageBy),
    "since": read_time,
    "until": read_time,
    "limit": _count_to(MAX_USAGE),
}
CLIENTS: Final[Mapping[str, Reader]] = {"limit": _count_to(MAX_PAGE)}
KEYS: Final[Mapping[str, Reader]] = {
    "principal": _text,
    "limit": _count_to(MAX_PAGE),
    "cursor": lambda text, _now_ns: key_cursor(text),
}
DRIFT: Final[Mapping[str, Reader]] = {
    "since": read_time,
    "until": read_time,
    "limit": _count_to(MAX_CLIENTS),
}
BINDINGS: Final[Mapping[str, Reader]] = {
    "upstream": _text,
    "worker": _text,
    "state": _one_of(BindingState),
    "limit": _count_to(MAX_PAGE),
}
WORKERS: Final[Mapping[str, Reader]] = {"upstream": _text}
PLANS: Final[Mapping[str, Reader]] = {"principal": _text, "limit": _count_to(MAX_PAGE)}
LIMITS: Final[Mapping[str, Reader]] = {"subject": _text, "limit": _count_to(MAX_PAGE)}
NONE: Final[Mapping[str, Reader]] = {}


def _unknown(name: str, readers: Mapping[str, Reader]) -> str:
    near = difflib.get_close_matches(name[:64], list(readers), n=1)
    if near:
        return f"is unknown here; did you mean {near[0]!r}?"
    return f"is unknown here; known are {', '.join(readers)}" if readers else "is unknown here"
