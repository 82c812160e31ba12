"""How values are written for people: escaped, short, in units; and how tables and JSON are printed.

Everything that came from a request passes through `safe`: a terminal obeys control characters, and
bidirectional marks turn a name round. Nothing is printed wider than `WIDTH` columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console

WIDTH: Final = 100
NOTHING: Final = "–"
"""Stands for what is not known: no price, no time."""

NARROWEST: Final = 8
"""A column that gives way keeps this many, so that prefixes stay usable."""

_LINES: Final = re.compile(r"([\r\n])")
_LARGE: Final = ((10**9, "G"), (10**6, "M"), (10**3, "k"))
_SPANS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))


def safe(value: object) -> str:
    """The value's text with control, format and unpaired characters escaped; None is a dash."""
    text = NOTHING if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(value: object, width: int) -> str:
    """The safe text, its end replaced by … when it is longer than ``width``: a prefix names it."""
    text = safe(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def count(number: float | None) -> str:
    """``12345`` as ``12.3k``; below a thousand as it is."""
    if number is None:
        return NOTHING
    for size, unit in _LARGE:
        # 999 950 and more would print as 1000.0k.
        if abs(number) >= size * 0.99995 and abs(number) >= 1000:
            short = f"{number / size:.1f}"
            return f"{short.removesuffix('.0')}{unit}"
    return f"{number:g}"


def usd(amount: str | None) -> str:
    """A decimal string as ``$0.0123``; null, which is unpriced, as a dash."""
    if amount is None:
        return NOTHING
    try:
        value = Decimal(amount)
    except InvalidOperation:
        return safe(amount)
    if value and abs(value) < Decimal("0.0001"):
        return "<$0.0001"
    return f"${value:,.2f}" if abs(value) >= 100 else f"${value:.4f}"


def share(part: int | None, whole: int | None) -> str:
    """How much of the whole, in percent; a dash where there is no whole."""
    return f"{100 * (part or 0) / whole:.0f}%" if whole else NOTHING


def span(seconds: float) -> str:
    """``7380`` seconds as ``2h3m``, ``12.3`` as ``12s``, ``0.4`` as ``0.4s``."""
    if 0 < seconds < 10:
        return f"{seconds:.1f}s"
    rest = round(max(seconds, 0))
    for size, unit in _SPANS:
        if rest >= size:
            smaller = {86_400: (3_600, "h"), 3_600: (60, "m"), 60: (1, "s")}[size]
            tail = rest % size // smaller[0]
            return f"{rest // size}{unit}" + (f"{tail}{smaller[1]}" if tail else "")
    return f"{rest}s"


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time of the API, or None for what is none."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    if found is None:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ago(text: str | None, now: datetime) -> str:
    """How long ago a time of the API was: ``5m``; ``now`` below a second."""
    at = moment(text)
    if at is None:
        return NOTHING
    seconds = (now - at).total_seconds()
    return "now" if seconds < 1 else span(float(int(seconds)))


def local_time(text: str | None, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time of the API on this machine's clock."""
    at = moment(text)
    return NOTHING if at is None else at.astimezone().strftime(pattern)


def console() -> Console:
    """Standard output, at most `WIDTH` columns; plain where it is no terminal."""
    found = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    found.width = min(found.width, WIDTH) if found.is_terminal else WIDTH
    return found


def say(line: str = "") -> None:
    """One line on standard output; the caller has made its values safe."""
    click.echo(line)


def say_json(value: Any, *, is_line: bool = False) -> None:
    """The value as JSON, ASCII only, so that no terminal obeys it; on one line if so asked."""
    click.echo(json.dumps(value, indent=None if is_line else 2))


def safe_lines(text: str) -> str:
    """Text of several lines, made safe but for its line ends."""
    return "".join(line if line in ("\r", "\n") else safe(line) for line in _LINES.split(text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their headings, at most `WIDTH` columns wide.

    A heading that ends with ``>`` is right-aligned; the columns whose heading ends with ``*`` give
    way where the table is too wide, and are cut at their end. Cells are made safe here.
    """
    out = console()
    lines = table_lines(columns, rows, out.width)
    for number, line in enumerate(lines):
        click.echo(click.style(line, bold=True) if not number else line)


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], width: int) -> list[str]:
    """The heading and a line a row; wide characters count as two columns."""
    heads = [column.rstrip(">*") for column in columns]
    cells = [heads, *([safe(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(line[n]) for line in cells) for n in range(len(columns))]
    giving = [n for n, column in enumerate(columns) if column.endswith("*")]
    while giving and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(giving, key=lambda n: widths[n])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    is_right = [column.endswith(">") for column in columns]
    return [
        "  ".join(_cell(*cell) for cell in zip(line, widths, is_right, strict=True)).rstrip()
        for line in cells
    ]


def _cell(text: str, width: int, is_right: bool) -> str:
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1) + "…"
    padding = " " * (width - cell_len(text))
    return padding + text if is_right else text + padding
