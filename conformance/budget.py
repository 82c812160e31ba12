"""Starts real agents under a budget that is spent: each must stop, say why, and not storm.

    make conformance ARGS="--agent codex"          # also runs this, for the agents named
    python -m conformance.budget claude-code --offline

The budget is spent by one call before the agent starts. An agent passes when it ends by itself, its
output holds the message, and no call of it is sent more than once. Exits 1 when one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import platformdirs
from conformance.agents import Ran, each_installed, prepare_home, run_agent
from conformance.recipes import Recipe
from conformance.recorder import Recorded, recorder

from clew.lab.children import gateway, simulator

AGENTS: Final = ("claude-code", "codex", "opencode")
CONFIGURATION: Final = """
[[upstream]]
name = "simulated"
url = "{url}"
[[budget]]
scope = "principal"
usd = 0.000001
window = "day"
"""
INSTANT: Final = ("--latency-ms", "0", "--tokens-per-second", "0")
SPENDING: Final = {"model": "gpt-5", "messages": [{"role": "user", "content": "spend it"}]}
MESSAGE: Final = "the budget of this principal is spent"
CODE: Final = "budget_exceeded"
ABOUT_THE_TRY: Final = ("client_metadata", "metadata")
SPENDING_TRIES: Final = 20
OUTPUT_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class Met:
    """What an agent did under a spent budget."""

    ran: Ran
    calls: tuple[Recorded, ...]
    """Everything it sent that got the budget's answer."""

    @property
    def most_repeated(self) -> int:
        """How often the call was sent that was sent most often."""
        bodies = Counter(said(call.body) for call in self.calls)
        return max(bodies.values(), default=0)


def said(body: bytes) -> str:
    """What a call says, however its fields are ordered and whatever counts its tries."""
    try:
        found = json.loads(body)
    except ValueError:
        return repr(body)
    if isinstance(found, dict):
        found = {name: value for name, value in found.items() if name not in ABOUT_THE_TRY}
    return json.dumps(found, sort_keys=True)


def judge(met: Met) -> list[str]:
    """What is not as it should be; empty when all is well."""
    faults = []
    if met.ran.code is None:
        faults.append("did not end")
    if not met.calls:
        faults.append("met no budget")
    if met.most_repeated > 1:
        faults.append(f"sent one call {met.most_repeated} times")
    if MESSAGE not in " ".join(met.ran.output.split()):
        faults.append("does not say why it ended")
    return faults


def meet(recipe: Recipe, command: Path, timeout_s: float) -> Met:
    """Spend the budget, then run the agent's first scenario."""
    with tempfile.TemporaryDirectory(prefix="clew-budget-") as name:
        directory, home = Path(name), Path(name) / "home"
        with (
            simulator(directory / "simulator.log", INSTANT) as url,
            gateway(directory, CONFIGURATION.format(url=url)) as ports,
            recorder(ports.url) as recording,
        ):
            _spend(ports.url)
            prepare_home(recipe, home, recording.url)
            ran = run_agent(recipe, command, "new", home, recording.url, timeout_s)
            calls = tuple(c for c in recording.since(0) if c.said.get("x-clew-error") == CODE)
    return Met(ran, calls)


def _spend(gateway_url: str) -> None:
    """Call until the budget refuses. Raises RuntimeError when it never does."""
    url = f"{gateway_url}/v1/chat/completions"
    for _ in range(SPENDING_TRIES):
        answer = httpx.post(url, json=SPENDING, trust_env=False, timeout=60)
        if answer.headers.get("x-clew-error") == CODE:
            return
    raise RuntimeError("the budget is not spent")


def main() -> int:
    """Run what was asked for; the process's exit code."""
    arguments = _arguments()
    failed = False
    wanted = set(AGENTS).intersection(arguments.agents)
    found = each_installed(wanted, arguments.cache, offline=arguments.offline)
    for recipe, command, version, fault in found:
        if fault:
            print(f"{recipe.name}: {fault}")
            failed = True
            continue
        met = meet(recipe, command, arguments.timeout_s)
        faults = judge(met)
        failed = failed or bool(faults)
        verdict = "; ".join(faults) or "ok"
        print(f"{recipe.name} {version} under a spent budget: {len(met.calls)} calls, {verdict}")
        if faults:
            _print_output(met.ran)
    return int(failed)


def _print_output(ran: Ran) -> None:
    print(f"  exit status {ran.code}")
    for line in ran.output.splitlines()[-OUTPUT_LINES:]:
        print(f"  {line}")


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("agents", nargs="*", metavar="AGENT", help=", ".join(AGENTS))
    parser.add_argument("--agent", action="append", default=[], help="the same; may be repeated")
    default = os.environ.get("CLEW_CONFORMANCE_CACHE") or platformdirs.user_cache_path(
        "clew-conformance"
    )
    parser.add_argument("--cache", type=Path, default=Path(default), help="default: %(default)s")
    parser.add_argument("--offline", action="store_true", help="use what is installed")
    parser.add_argument("--timeout-s", type=float, default=120.0, help="of one run of an agent")
    found, _ = parser.parse_known_args(argv)  # the others are of conformance.run
    found.agents = [*found.agents, *found.agent] or list(AGENTS)
    return found


if __name__ == "__main__":
    sys.exit(main())
