"""Draws ``docs/img/session.svg``: one session over a restart, with two subagents.

The tokens below are an example; every share and cost in the picture is computed from them, at the
rates given. Colours follow the reader's light or dark preference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).resolve().parent.parent / "docs" / "img" / "session.svg"

INPUT_USD, CACHED_USD, OUTPUT_USD = 3.00, 0.30, 15.00
"""Dollars per million tokens."""

WIDTH, HEIGHT = 960, 470
LEFT, STEP, BAR = 190, 46, 24
BASE_Y, ROOT_PX = 222, 118
GAP_STEPS = 2


class Turn(NamedTuple):
    """One call: thousands of input tokens, cached and fresh, and of output tokens."""

    cached: float
    fresh: float
    output: float


class Lane(NamedTuple):
    """A subagent: its name, the root's turn that spawned it, its turns."""

    name: str
    spawned_by: int
    turns: tuple[Turn, ...]


BEFORE = (
    Turn(0, 18, 0.6),
    Turn(18, 3, 0.9),
    Turn(21, 6, 0.4),
    Turn(27, 4, 1.2),
    Turn(31, 9, 0.8),
    Turn(40, 3, 0.5),
)
AFTER = (
    Turn(0, 45, 0.7),
    Turn(45, 4, 1.1),
    Turn(49, 5, 0.6),
    Turn(54, 3, 0.9),
    Turn(57, 6, 1.4),
    Turn(63, 2, 0.5),
)
LANES = (
    Lane("explore", 2, (Turn(0, 9, 0.3), Turn(9, 5, 0.4), Turn(14, 6, 0.9))),
    Lane("fix-tests", 8, (Turn(0, 11, 0.5), Turn(11, 4, 0.6), Turn(15, 3, 0.4), Turn(18, 5, 0.8))),
)

STYLE = """
  .card { fill: #ffffff; stroke: #d9dee5; }
  .ink { fill: #1c2430; } .dim { fill: #5c6875; } .line { stroke: #d9dee5; }
  .cached { fill: #9db8d2; } .fresh { fill: #e07b39; }
  .thread { stroke: #b3261e; fill: none; stroke-width: 2.5; stroke-linecap: round; }
  .knot { fill: #b3261e; } .gap { fill: #f3f5f8; stroke: #c3cbd5; stroke-dasharray: 4 4; }
  text { font: 13px ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  .mono { font-family: ui-monospace, SFMono-Regular, Menlo, monospace; font-size: 12px; }
  .head { font-size: 15px; font-weight: 600; }
  .end { text-anchor: end; } .mid { text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #10161e; stroke: #2c3643; }
    .ink { fill: #e6ebf1; } .dim { fill: #9aa6b3; } .line { stroke: #2c3643; }
    .cached { fill: #4a6a8c; } .fresh { fill: #f0975a; }
    .thread { stroke: #ff6b5e; } .knot { fill: #ff6b5e; }
    .gap { fill: #171f2a; stroke: #3a4656; }
  }
"""


def cost_usd(turns: tuple[Turn, ...]) -> float:
    """What the turns cost at the rates above."""
    thousandths = sum(
        turn.cached * CACHED_USD + turn.fresh * INPUT_USD + turn.output * OUTPUT_USD
        for turn in turns
    )
    return thousandths / 1000


def column(turn: int) -> float:
    """The middle of the root's turn on the x axis; the restart takes ``GAP_STEPS``."""
    return LEFT + (turn + (GAP_STEPS if turn >= len(BEFORE) else 0)) * STEP


def bar(x: float, base: float, turn: Turn, scale: float) -> str:
    """One turn: cached below, fresh above, from the base line up."""
    cached, fresh = turn.cached * scale, turn.fresh * scale
    left = x - BAR / 2
    parts = [("fresh", base - cached - fresh, fresh), ("cached", base - cached, cached)]
    return "".join(
        f'<rect class="{name}" x="{left:.1f}" y="{top:.1f}" width="{BAR}" height="{height:.1f}" '
        'rx="2"/>'
        for name, top, height in parts
        if height
    )


def text(x: float, y: float, words: str, classes: str = "dim") -> str:
    """One line of text."""
    return f'<text class="{classes}" x="{x:.0f}" y="{y:.0f}">{words}</text>'


def label(y: float, name: str, turns: tuple[Turn, ...], indent: int = 0) -> str:
    """A row's name at the left, its turns and cost at the right."""
    return (
        text(28 + indent, y, name, "ink mono")
        + text(28 + indent, y + 18, f"{len(turns)} turns", "dim")
        + text(WIDTH - 28, y, f"${cost_usd(turns):.2f}", "ink end")
    )


def thread(y: float, last: int) -> str:
    """The session's thread: through every turn, and over the restart without a break."""
    line = f'<path class="thread" d="M{column(0)} {y} H{column(last)}"/>'
    knots = (
        f'<circle class="knot" cx="{column(turn)}" cy="{y}" r="4"/>' for turn in range(last + 1)
    )
    return line + "".join(knots)


def restart(y: float) -> str:
    """The time in which no process was there."""
    left = column(len(BEFORE) - 1) + STEP * 0.55
    width = column(len(BEFORE)) - STEP * 0.55 - left
    middle = left + width / 2
    words = ("agent exits", "and is started", "3 h later")
    return (
        f'<rect class="gap" x="{left:.0f}" y="84" width="{width:.0f}" '
        f'height="{y - 62:.0f}" rx="6"/>'
    ) + "".join(text(middle, 112 + 17 * n, line, "dim mid") for n, line in enumerate(words))


def lane(y: float, row: Lane, from_y: float) -> str:
    """A subagent's row, tied to the turn that spawned it."""
    start = column(row.spawned_by)
    first = start + STEP * 0.75
    end = first + (len(row.turns) - 1) * STEP
    parts = [
        f'<path class="thread" d="M{start} {from_y} C{start} {y} {start} {y} {first} {y} H{end}"/>',
        label(y - 8, f"└ {row.name}", row.turns, indent=18),
    ]
    for index, turn in enumerate(row.turns):
        x = first + index * STEP
        parts.append(bar(x, y - 9, turn, ROOT_PX / 65))
        parts.append(f'<circle class="knot" cx="{x}" cy="{y}" r="3.5"/>')
    return "".join(parts)


def legend() -> str:
    """What the colours say."""
    y = HEIGHT - 30
    return (
        f'<rect class="cached" x="28" y="{y - 10}" width="12" height="12" rx="2"/>'
        + text(46, y, "input from cache")
        + f'<rect class="fresh" x="164" y="{y - 10}" width="12" height="12" rx="2"/>'
        + text(182, y, "fresh input")
        + f'<path class="thread" d="M268 {y - 4} h26"/><circle class="knot" cx="281" cy="{y - 4}" '
        'r="4"/>'
        + text(302, y, "one session, whatever happens to its process")
        + text(WIDTH - 28, y, "example", "dim end")
    )


def picture() -> str:
    """The whole picture."""
    root = BEFORE + AFTER
    everything = root + tuple(turn for row in LANES for turn in row.turns)
    cached = sum(turn.cached for turn in everything)
    share = cached / (cached + sum(turn.fresh for turn in everything))
    thread_y = BASE_Y + 10
    parts = [
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
        text(28, 40, "One session, its turns, its subagents", "ink head"),
        text(WIDTH - 28, 40, f"tree ${cost_usd(everything):.2f} · {share:.0%} cached", "ink end"),
        f'<line class="line" x1="28" x2="{WIDTH - 28}" y1="58" y2="58"/>',
        restart(thread_y),
        label(thread_y - 8, "ses_7f3a9c", root),
        thread(thread_y, len(root) - 1),
    ]
    parts += [bar(column(n), BASE_Y, turn, ROOT_PX / 65) for n, turn in enumerate(root)]
    parts += [lane(thread_y + 74 * n, row, thread_y) for n, row in enumerate(LANES, 1)]
    parts.append(
        f'<line class="line" x1="28" x2="{WIDTH - 28}" y1="{HEIGHT - 58}" y2="{HEIGHT - 58}"/>'
    )
    parts.append(legend())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="Turns of one session before and after a restart, joined by one '
        f'thread; two subagents hang below with their cost"><style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(picture(), encoding="utf-8")
    print(f"drawn {TARGET.name}", file=sys.stderr)
