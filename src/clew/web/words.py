"""How figures are said on the page: short, honest, the exact value one hover away."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from clew.store.reads_shapes import NANO

DASH: Final = "–"
_SPANS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SCALES: Final = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


def count(number: int | None) -> str:
    """``1234567`` is ``1.23M``; below a thousand the number itself; a dash for null."""
    if number is None:
        return DASH
    for scale, name in _SCALES:
        if abs(number) >= scale:
            return f"{number / scale:.3g}{name}" if abs(number) < 999.5 * scale else f"{number:.2e}"
    return str(number)


def money(text: str | None, unpriced: int = 0) -> str:
    """Dollars to the cent, or to two leading digits below it; ``≥`` when a part has no price."""
    if text is None:
        return DASH
    value = float(text)
    if value and abs(value) < 0.1:
        shown = f"{value:.9f}"
        first = next(place for place, digit in enumerate(shown) if digit in "123456789")
        shown = shown[: max(first + 2, 6)]
    else:
        shown = f"{value:,.2f}"
    return f"{'≥ ' if unpriced else ''}${shown}"


def span(seconds: float) -> str:
    """The two largest units that are not zero: ``1 h 5 min``, ``2 d``."""
    rest = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _SPANS:
        if rest >= size or (unit == "s" and not parts):
            parts.append(f"{rest // size} {unit}")
            rest %= size
    return " ".join(parts[:2])


def milliseconds(value: float | None) -> str:
    """``850 ms`` below a second, ``1.9 s`` from there; a dash for null."""
    if value is None:
        return DASH
    return f"{value:.0f} ms" if value < 999.5 else f"{value / 1000:.1f} s"


def ago(text: str, now_ns: int) -> str:
    """How long before now an RFC 3339 time of `reads_shapes.time_text` was, in one unit."""
    past = now_ns / NANO - seconds_of(text)
    return "now" if past < 2 else f"{' '.join(span(past).split()[:2])} ago"


def clock(text: str) -> str:
    """``2026-11-21 08:00:00``, UTC."""
    return text[:19].replace("T", " ")


def share(part: int, whole: int) -> str:
    """A whole percentage; a dash of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else DASH


def seconds_of(text: str) -> float:
    """Unix seconds of an RFC 3339 time of `reads_shapes.time_text`."""
    return datetime.fromisoformat(text).timestamp()
