"""How durations, sizes and rates are written, read and shown.

A duration is a number and one of ms, s, m, h, d, or a bare number of seconds. A size is a number
and one of B, KB, KiB … TB, TiB, or a bare number of bytes. A rate is a count, a slash and one of
s, m, h, d: ``60/m``, ``1M/h``.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

DURATION_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
SIZE_BYTES: Final = {
    "b": 1,
    "kb": 1000,
    "kib": 1024,
    "mb": 1000**2,
    "mib": 1024**2,
    "gb": 1000**3,
    "gib": 1024**3,
    "tb": 1000**4,
    "tib": 1024**4,
}
COUNT: Final = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}

LONGEST_S: Final = 36_500 * 86_400.0
"""Keeps nanoseconds of any sum of times inside 64 bits."""

_NUMBER_AND_UNIT: Final = re.compile(
    r"\s*([0-9]{1,16}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*", re.ASCII
)
_RATE: Final = re.compile(
    r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kKmMgG]?)\s*/\s*([smhd])\s*", re.ASCII
)


class Rate(msgspec.Struct, frozen=True):
    """So many per so long: ``count`` in ``window_s`` seconds."""

    count: int
    window_s: int


def read_duration(value: object) -> float:
    """Seconds of ``"30m"``, ``"24h"``, ``90`` or ``1.5``. Raises ValueError in a person's words."""
    found = _read(value, DURATION_S, "s", 'a duration such as "30s", "45m", "24h" or "90d"')
    if found > LONGEST_S:
        raise ValueError("must be at most 36500d (100 years)")
    return found


def read_size(value: object) -> int:
    """Bytes of ``"2GiB"``, ``"512MB"`` or ``1048576``. Raises ValueError in a person's words."""
    expected = 'a size such as "512MB", "2GiB" or a number of bytes'
    found = _read(value, SIZE_BYTES, "b", expected)
    if found != int(found):
        raise ValueError(f"must be {expected}; this is not a whole number of bytes")
    return int(found)


def read_rate(text: str) -> Rate:
    """``"60/m"`` as a count and seconds. Raises ValueError in a person's words."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError('must be a rate such as "60/m" or "1M/h" (per s, m, h or d)')
    count = float(match[1]) * COUNT[match[2].lower()]
    if count < 1 or count != int(count):
        raise ValueError("must be a rate of at least one, counted in whole numbers")
    return Rate(int(count), int(DURATION_S[match[3]]))


def show_duration(seconds: float) -> str:
    """The shortest exact writing: 86400 is ``24h``, 604800 is ``7d``, 0 is ``0s``."""
    if seconds == 86_400:
        return "24h"
    for unit in ("d", "h", "m", "s"):
        count = seconds / DURATION_S[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"


def show_size(size_bytes: int) -> str:
    """The shortest exact writing: 2147483648 is ``2GiB``; what fits no unit stays in bytes."""
    for unit, name in (("tib", "TiB"), ("gib", "GiB"), ("mib", "MiB"), ("kib", "KiB")):
        count, rest = divmod(size_bytes, SIZE_BYTES[unit])
        if count and not rest:
            return f"{count}{name}"
    return str(size_bytes)


def _read(value: object, units: dict[str, float] | dict[str, int], bare: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be {what}")  # noqa: TRY004  one error type for every bad value
    if isinstance(value, str):
        return _read_text(value, units, bare, what)
    # NaN fails both comparisons.
    if not 0 <= value < float("inf"):
        raise ValueError(f"must be {what}, not below zero")
    return float(value)


def _read_text(text: str, units: dict[str, float] | dict[str, int], bare: str, what: str) -> float:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    factor = units.get((match[2] or bare).lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"must be {what}; found {text!r:.60}")
    # Rounded to a microsecond so that "1.1s" is what was written; whole numbers stay exact.
    return round(float(match[1]) * factor, 6)
