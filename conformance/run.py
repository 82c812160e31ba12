"""Runs the newest releases of real coding agents through the gateway and checks who they are.

    make conformance                                      # newest releases from npm
    make conformance ARGS="--agent codex --offline"       # one agent, as installed before
    make conformance ARGS="--agent pi --scenario fork --json"

Each agent runs headless with dummy keys in an empty home; the provider is simulated, and every host
but loopback is unreachable to it. What it sent is compared with the reviewed capture of the same
agent and written, masked, to `conformance/out/` for review. Exits 1 when any agent is not
recognised as expected; a changed header alone is told, not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import platformdirs
from conformance.agents import Ran, install, prepare_home, run_agent
from conformance.captures import OUT, Book, newest, read
from conformance.changes import changes
from conformance.expectations import EXPECTATIONS, Seen, compare, judge
from conformance.installation import Installation, installation
from conformance.recipes import NOT_RUN, RECIPES, SCENARIOS, Recipe

OUTPUT_LINES: Final = 12
COLUMNS: Final = ("AGENT", "VERSION", "SCENARIO", "SEEN", "EXPECTED", "VERDICT")
NOT_RUN_MARK: Final = "not run"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a scenario of one agent, or why there is none."""

    agent: str
    version: str
    scenario: str
    seen: str
    expected: str
    verdict: str
    """``ok``, ``not run: reason`` or the faults."""
    faults: tuple[str, ...] = ()
    output: str = ""

    def cells(self) -> tuple[str, ...]:
        """The table's cells."""
        return (self.agent, self.version, self.scenario, self.seen, self.expected, self.verdict)


@dataclass(frozen=True, slots=True)
class Report:
    """What one agent gave."""

    lines: tuple[Line, ...]
    changed: tuple[str, ...] = ()
    """Against the reviewed capture; empty also where there is none."""
    capture: str = ""
    """The file written for review."""
    compared_with: str = ""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    names = [recipe.name for recipe in RECIPES]
    parser.add_argument("agents", nargs="*", metavar="AGENT", help=f"{', '.join(names)}")
    parser.add_argument("--agent", action="append", default=[], help="the same; may be repeated")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=SCENARIOS,
        help="one of them; what it rests on runs too",
    )
    parser.add_argument("--json", action="store_true", help="one document on standard output")
    default = os.environ.get("CLEW_CONFORMANCE_CACHE") or platformdirs.user_cache_path(
        "clew-conformance"
    )
    parser.add_argument("--cache", type=Path, default=Path(default), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT, help="default: conformance/out")
    parser.add_argument("--offline", action="store_true", help="use what is installed")
    parser.add_argument("--timeout-s", type=float, default=120.0, help="of one run of an agent")
    found = parser.parse_args()
    found.agents = [*found.agents, *found.agent] or names
    unknown = set(found.agents) - set(names)
    if unknown:
        parser.error(f"unknown agent {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    return found


def main() -> int:
    """Run what was asked for; the process's exit code."""
    arguments = _arguments()
    chosen = [recipe for recipe in RECIPES if recipe.name in arguments.agents]
    reports = []
    for number, recipe in enumerate(chosen, start=1):
        _progress(f"[{number}/{len(chosen)}] {recipe.name}: installing")
        reports.append(_report(recipe, arguments))
    if arguments.json:
        print(json.dumps([asdict(report) for report in reports], indent=1))
    else:
        _print(reports)
    return 1 if any(line.faults for report in reports for line in report.lines) else 0


def wanted_scenarios(recipe: Recipe, asked: Sequence[str] | None) -> list[str]:
    """What to run of a recipe: what was asked for and all that those scenarios rest on."""
    if asked is None:
        return list(recipe.scenarios)
    needed = set(asked)
    for name in asked:
        wanted = EXPECTATIONS[name]
        needed |= {wanted.same_as, wanted.forked_from, "new" if wanted.goes_on else ""}
    return [name for name in recipe.scenarios if name in needed]


def _report(recipe: Recipe, arguments: argparse.Namespace) -> Report:
    try:
        command, version = install(recipe, arguments.cache, offline=arguments.offline)
    except (RuntimeError, OSError, ValueError) as fault:
        line = Line(recipe.name, "", "install", "", "", "not installed", (str(fault),), str(fault))
        return Report((line,))
    scenarios = wanted_scenarios(recipe, arguments.scenario)
    with tempfile.TemporaryDirectory(prefix="clew-conformance-") as name, ExitStack() as children:
        running = children.enter_context(installation(Path(name), recipe.latency_ms))
        home = Path(name) / "home"
        prepare_home(recipe, home, running.recorder.url)
        book = Book(recipe.name, version, home)
        lines = []
        for line in _lines(recipe, (command, version), scenarios, running, book, arguments):
            _progress(f"    {line.scenario}: {line.verdict}")
            lines.append(line)
    lines += [
        Line(recipe.name, version, scenario, "", "", f"{NOT_RUN_MARK}: {reason}")
        for scenario, reason in recipe.cannot.items()
        if arguments.scenario is None or scenario in arguments.scenario
    ]
    return _compared(recipe, tuple(lines), book, arguments.out)


def _compared(recipe: Recipe, lines: tuple[Line, ...], book: Book, out: Path) -> Report:
    reviewed = newest(recipe.name)
    changed = changes(read(reviewed), book.rows) if reviewed is not None else []
    written = book.write(out)
    return Report(lines, tuple(changed), str(written), reviewed.name if reviewed else "")


def _lines(
    recipe: Recipe,
    agent: tuple[Path, str],
    scenarios: Sequence[str],
    running: Installation,
    book: Book,
    arguments: argparse.Namespace,
) -> Iterator[Line]:
    command, version = agent
    earlier: dict[str, Seen] = {}
    for scenario in scenarios:
        _progress(f"{recipe.name} {version} {scenario} …")
        before, last = running.sessions(), running.recorder.last_number()
        running.script(recipe.scenarios[scenario].replies)
        ran = run_agent(
            recipe, command, scenario, book.home, running.recorder.url, arguments.timeout_s
        )
        # First, because it waits for what the agent left in flight.
        recorded = running.recorder.since(last)
        after = running.sessions()
        seen = earlier[scenario] = compare(before, after)
        faults = (*_ending(ran), *judge(recipe, scenario, seen, earlier))
        keyed = {str(session["id"]): session for session in after}
        kinds = running.kinds(session["id"] for session in seen.touched)
        book.add(scenario, recorded, keyed, kinds, running.calls())
        verdict, wanted = "; ".join(faults) or "ok", str(EXPECTATIONS[scenario])
        yield Line(recipe.name, version, scenario, str(seen), wanted, verdict, faults, ran.output)


def _ending(ran: Ran) -> list[str]:
    if ran.code is None:
        return ["ran out of time"]
    return [f"exit status {ran.code}"] if ran.code else []


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(reports: Sequence[Report]) -> None:
    print()
    lines = [line for report in reports for line in report.lines]
    rows = [COLUMNS, *(line.cells() for line in lines)]
    rows += [(name, "", "", "", "", f"{NOT_RUN_MARK}: {why}") for name, why in NOT_RUN.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    for report in reports:
        agent = report.lines[0].agent
        if report.compared_with:
            print(f"\n{agent} against {report.compared_with}:")
            print("\n".join(f"  {change}" for change in report.changed) or "  nothing changed")
        elif report.capture:
            print(f"\n{agent}: no reviewed capture yet; see {report.capture}")
    for line in lines:
        if line.faults:
            print(f"\n--- {line.agent} {line.scenario}: {'; '.join(line.faults)}")
            print("\n".join(line.output.splitlines()[-OUTPUT_LINES:]))


if __name__ == "__main__":
    sys.exit(main())
