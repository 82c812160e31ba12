"""Reading names and counts out of JSON whose fields may hold anything.

A tap reads what strangers sent: a field of the wrong type is as good as absent, never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

MAX_NAME_CHARS: Final = 256
"""Longest model name or response id that is kept; the store's columns have this width."""

MAX_COUNT: Final = 10**12
"""No answer has a trillion tokens: beyond it a figure is noise, and sums could overflow."""

_Decoded = TypeVar("_Decoded")


def decoded(decode: Callable[[bytes], _Decoded], data: bytes) -> _Decoded | None:
    """What ``decode`` makes of ``data``; None where it is not the JSON that was expected."""
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def name_of(value: Any) -> str:
    """A model name or id: text, cut to `MAX_NAME_CHARS`; anything else is empty."""
    return value[:MAX_NAME_CHARS] if isinstance(value, str) else ""


def count_of(value: Any) -> int | None:
    """A token count: a whole number from 0 to `MAX_COUNT`; anything else is None."""
    if type(value) is int:  # no bool, which is an int as well
        return value if 0 <= value <= MAX_COUNT else None
    return count_of(int(value)) if type(value) is float and value.is_integer() else None


def first_count(mapping: Mapping[str, Any], *path: str) -> int | None:
    """The count at ``path``, e.g. ``first_count(usage, "prompt_tokens_details", "cached_tokens")``.

    None where a step is missing, null or no object, or the value is no count.
    """
    found: Any = mapping
    for step in path:
        if type(found) is not dict:
            return None
        found = found.get(step)
    return count_of(found)


NO_JSON: Final = msgspec.Raw(b"")
"""The default of a field that is measured, not read (a union with None would refuse objects)."""


def raw_chars(value: msgspec.Raw) -> int:
    """Characters of a JSON value left undecoded, about; 0 when absent or null."""
    text = bytes(value)
    return 0 if text == b"null" else len(text)


def chars_of(value: Any) -> int:
    """Characters of a text; 0 for anything else."""
    return len(value) if isinstance(value, str) else 0
