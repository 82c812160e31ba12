"""Runs the newest releases of real coding agents through the gateway and checks who they are.

    make conformance                                   # newest releases from npm
    python -m conformance.run codex --offline          # one agent, as installed before

Each agent runs headless with dummy keys in an empty home; the provider is simulated, and every host
but loopback is unreachable to it. Exits 1 when any agent is not recognised as expected.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import platformdirs
from conformance.agents import Ran, install, prepare_home, run_agent
from conformance.expectations import EXPECTATIONS, Seen, compare, judge
from conformance.recipes import RECIPES, Recipe

from clew.lab.children import GatewayPorts, gateway, simulator

CONFIGURATION: Final = '[[upstream]]\nname = "simulated"\nurl = "{url}"\n'
INSTANT: Final = ("--latency-ms", "0", "--tokens-per-second", "0")
OUTPUT_LINES: Final = 12
COLUMNS: Final = ("AGENT", "VERSION", "SCENARIO", "SEEN", "EXPECTED", "VERDICT")


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario of one agent."""

    agent: str
    version: str
    scenario: str
    seen: str
    expected: str
    faults: tuple[str, ...]
    output: str = ""

    def cells(self) -> tuple[str, ...]:
        """The table's cells."""
        verdict = "; ".join(self.faults) or "ok"
        return (self.agent, self.version, self.scenario, self.seen, self.expected, verdict)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    names = [recipe.name for recipe in RECIPES]
    parser.add_argument(
        "agents",
        nargs="*",
        metavar="AGENT",
        help=f"{', '.join(names)}; default: all",
    )
    default = os.environ.get("CLEW_CONFORMANCE_CACHE") or platformdirs.user_cache_path(
        "clew-conformance"
    )
    parser.add_argument("--cache", type=Path, default=Path(default), help="default: %(default)s")
    parser.add_argument("--offline", action="store_true", help="use what is installed")
    parser.add_argument("--timeout-s", type=float, default=120.0, help="of one run of an agent")
    found = parser.parse_args()
    unknown = set(found.agents) - set(names)
    if unknown:
        parser.error(f"unknown agent {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    return found


def main() -> int:
    """Run what was asked for; the process's exit code."""
    arguments = _arguments()
    named = arguments.agents or [recipe.name for recipe in RECIPES]
    chosen = [recipe for recipe in RECIPES if recipe.name in named]
    rows: list[Row] = []
    for recipe in chosen:
        for row in _rows(recipe, arguments):
            print(f"{row.agent} {row.scenario}: {'; '.join(row.faults) or 'ok'}", flush=True)
            rows.append(row)
    print()
    _print_table([COLUMNS, *(row.cells() for row in rows)])
    failed = [row for row in rows if row.faults]
    for row in failed:
        print(f"\n--- {row.agent} {row.scenario}: {'; '.join(row.faults)}")
        print("\n".join(row.output.splitlines()[-OUTPUT_LINES:]))
    return 1 if failed else 0


def _rows(recipe: Recipe, arguments: argparse.Namespace) -> Iterator[Row]:
    try:
        command, version = install(recipe, arguments.cache, offline=arguments.offline)
    except (RuntimeError, OSError, ValueError) as fault:
        yield Row(recipe.name, "", "install", "", "", (str(fault),))
        return
    with tempfile.TemporaryDirectory(prefix="clew-conformance-") as name, ExitStack() as children:
        directory = Path(name)
        url = children.enter_context(simulator(directory / "simulator.log", INSTANT))
        ports = children.enter_context(gateway(directory, CONFIGURATION.format(url=url)))
        home = directory / "home"
        prepare_home(recipe, home, ports.url)
        earlier: dict[str, Seen] = {}
        for scenario in recipe.scenarios:
            before = _sessions(ports)
            ran = run_agent(recipe, command, scenario, home, ports.url, arguments.timeout_s)
            seen = earlier[scenario] = compare(before, _sessions(ports))
            faults = [*_ending(ran), *judge(recipe, scenario, seen, earlier)]
            wanted = str(EXPECTATIONS[scenario])
            yield Row(recipe.name, version, scenario, str(seen), wanted, tuple(faults), ran.output)


def _ending(ran: Ran) -> list[str]:
    if ran.code is None:
        return ["ran out of time"]
    return [f"exit status {ran.code}"] if ran.code else []


def _sessions(ports: GatewayPorts) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{ports.admin_url}/api/v1/sessions?limit=500",
        headers={"authorization": f"Bearer {ports.token}"},
        trust_env=False,
    )
    return list(answer.raise_for_status().json()["items"])


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main())
