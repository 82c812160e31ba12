"""How far a subscription's windows are used, as the vendor's own response headers say.

| vendor | headers |
|---|---|
| Anthropic (a Claude plan) | ``anthropic-ratelimit-unified-5h-utilization`` (a share of 1), ``…-reset`` (Unix seconds), ``…-status``; the window's name (``5h``, ``7d``, ``7d_opus``…) is in the header's |
| ChatGPT (Codex) | ``x-codex-primary-used-percent``, ``…-window-minutes``, ``…-reset-at`` (Unix seconds) or ``…-reset-after-seconds``; ``secondary`` likewise |

A value that is no number, or out of all bounds, is as good as absent. Other people's prose in them
is never kept: a status is one of few letters.
"""  # noqa: E501  a table's row is one line

from __future__ import annotations

import re
from typing import Final

import msgspec

from clew.core.claim import Headers

MAX_WINDOWS: Final = 8
"""Windows kept of one response; vendors have two or three."""
MAX_PERCENT: Final = 10_000.0
_MAX_NUMBER: Final = 4 * 10**9
"""Seconds until the year 2096: later times are noise, and twice as much fits as nanoseconds."""

_ANTHROPIC: Final = re.compile(
    rb"anthropic-ratelimit-unified-([a-z0-9_]{1,16})-(utilization|reset|status)"
)
_CODEX: Final = re.compile(
    rb"x-codex-(primary|secondary)-(used-percent|window-minutes|reset-at|reset-after-seconds)"
)
_STATUS: Final = re.compile(rb"[a-z_]{1,32}")
_NUMBER: Final = re.compile(rb"\d{1,12}(?:\.\d{1,12})?")
_SPAN: Final = re.compile(r"(\d{1,3})([hd])")
_SPAN_S: Final = {"h": 3_600, "d": 86_400}
_NANO: Final = 1_000_000_000


class PlanWindow(msgspec.Struct, frozen=True, array_like=True):
    """One window of a plan at the time of one response."""

    name: str
    used_percent: float | None = None
    """Above 100 where the vendor lets a plan be exceeded."""
    status: str = ""
    """The vendor's word (``allowed``, ``allowed_warning``, ``rejected``), or empty."""
    window_s: int | None = None
    resets_at_ns: int | None = None


def plan_windows(headers: Headers, now_ns: int) -> tuple[PlanWindow, ...]:
    """The windows that a response's fields tell of; empty where they tell of none."""
    found: dict[str, dict[str, bytes]] = {}
    for name, value in headers:
        if name.startswith((b"anthropic-ratelimit-unified-", b"x-codex-")):
            told = _ANTHROPIC.fullmatch(name) or _CODEX.fullmatch(name)
            if told is not None:
                found.setdefault(told[1].decode(), {}).setdefault(told[2].decode(), value)
    windows = (_window(name, fields, now_ns) for name, fields in found.items())
    return tuple(one for one in windows if one is not None)[:MAX_WINDOWS]


def _window(name: str, fields: dict[str, bytes], now_ns: int) -> PlanWindow | None:
    share, percent = _number(fields.get("utilization")), _number(fields.get("used-percent"))
    used = percent if share is None else share * 100
    minutes = _number(fields.get("window-minutes"))
    at_s = _number(fields.get("reset", fields.get("reset-at")))
    after_s = _number(fields.get("reset-after-seconds"))
    resets_at_ns = None if at_s is None else int(at_s) * _NANO
    if resets_at_ns is None and after_s is not None:
        resets_at_ns = now_ns + int(after_s) * _NANO
    status = fields.get("status", b"")
    has_status = _STATUS.fullmatch(status) is not None
    if used is None and not has_status:
        return None
    return PlanWindow(
        name,
        used_percent=None if used is None else round(min(used, MAX_PERCENT), 2),
        status=status.decode() if has_status else "",
        window_s=_span_s(name) if minutes is None else int(minutes) * 60,
        resets_at_ns=resets_at_ns,
    )


def _number(value: bytes | None) -> float | None:
    if value is None or _NUMBER.fullmatch(value) is None:
        return None
    number = float(value)
    return number if number <= _MAX_NUMBER else None


def _span_s(name: str) -> int | None:
    span = _SPAN.match(name)
    return None if span is None else int(span[1]) * _SPAN_S[span[2]]
