"""Starts real agents with `clew run`, as a user would, and checks what it says of them.

    make conformance ARGS="--agent codex"              # also runs this, for the agents named
    python -m conformance.run_agents codex --offline

Each agent's recipe names the simulated provider where a user's own provider would stand: in the
environment or in the agent's configuration. `clew run` finds it there, starts a gateway for it and
hands the agent its new base url; nothing in the agent's home changes. Checked of two processes one
after the other, where the agent can continue a session: the exit status, that every call which
reached the provider is in the summary with its tokens, that the session is in the run's tree, that
the second goes on in the first one's session, and that no file of the agent's names the gateway.
Exits 1 on any fault.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import platformdirs
from conformance.agents import each_installed, last_session, prepare_home
from conformance.recipes import QUIET, Recipe

from clew.lab.children import simulator
from clew.supervisor.ready import Ready, read_ready

NAMES: Final[Mapping[str, str]] = {
    "claude-code": "claude",
    "codex": "codex",
    "opencode": "opencode",
    "gemini-cli": "gemini",
    "qwen-code": "qwen",
    "copilot-cli": "copilot",
    "pi": "pi",
}
"""Recipe to the name `clew run` knows it by."""
SCENARIOS: Final = ("new", "continue")
CONFIGURATION: Final = '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n'
INSTANT: Final = ("--latency-ms", "0", "--tokens-per-second", "0")
OUTPUT_TAIL_CHARS: Final = 1_500
LEAVE_S: Final = 30.0
LOOK_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Ran:
    """How one `clew run` ended; ``summary`` is empty where it printed none."""

    code: int | None
    summary: dict[str, Any]
    output: str


@dataclass(frozen=True, slots=True)
class Bench:
    """One agent's home, its data directory and the provider."""

    recipe: Recipe
    command: Path
    directory: Path
    provider: str
    timeout_s: float

    @property
    def home(self) -> Path:
        """The agent's."""
        return self.directory / "home"

    @property
    def data(self) -> Path:
        """The gateway's."""
        return self.directory / "data"

    def calls(self) -> list[dict[str, Any]]:
        """What the provider generated."""
        answer = httpx.get(f"{self.provider}/sim/calls", trust_env=False)
        return list(answer.raise_for_status().json()["calls"])

    def run(self, scenario: str) -> Ran:
        """One process of the agent below `clew run`."""
        names = {
            "{url}": self.provider,
            "{home}": str(self.home),
            "{work}": str(self.home / "work"),
        }
        names["{session}"] = last_session(self.recipe, self.home)
        path = f"{self.command.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(self.home), **QUIET}
        environment |= {k: _filled(v, names) for k, v in self.recipe.environment.items()}
        file = self.directory / "clew.toml"
        line = [sys.executable, "-m", "clew.command", "run", "--json", "-c", str(file)]
        line += ["--data", str(self.data), NAMES[self.recipe.name]]
        line += [_filled(one, names) for one in self.recipe.scenarios[scenario].runs[0]]
        return _start(line, self.home / "work", environment, self.timeout_s)


def main() -> int:
    """Run what was asked for; the process's exit code."""
    arguments = _arguments()
    failed = False
    wanted = set(NAMES).intersection(arguments.agents)
    found = each_installed(wanted, arguments.cache, offline=arguments.offline)
    for recipe, command, version, fault in found:
        if fault:
            print(f"clew run {NAMES[recipe.name]}: {fault}")
            failed = True
            continue
        for said, faults in _try(recipe, command, arguments.timeout_s):
            print(
                f"clew run {NAMES[recipe.name]} ({version}): {'; '.join(faults) or 'ok'} · {said}"
            )
            failed = failed or bool(faults)
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("agents", nargs="*", metavar="AGENT", help=", ".join(NAMES))
    parser.add_argument("--agent", action="append", default=[], help="the same; may be repeated")
    default = os.environ.get("CLEW_CONFORMANCE_CACHE") or platformdirs.user_cache_path(
        "clew-conformance"
    )
    parser.add_argument("--cache", type=Path, default=Path(default), help="default: %(default)s")
    parser.add_argument("--offline", action="store_true", help="use what is installed")
    parser.add_argument("--timeout-s", type=float, default=120.0, help="of one run of an agent")
    found, _ = parser.parse_known_args()  # the others are of conformance.run
    found.agents = [*found.agents, *found.agent] or list(NAMES)
    return found


def _try(recipe: Recipe, command: Path, timeout_s: float) -> Iterator[tuple[str, list[str]]]:
    """What each scenario came to, and what was wrong with it."""
    with tempfile.TemporaryDirectory(prefix="clew-run-") as name, _provider(Path(name)) as url:
        bench = Bench(recipe, command, Path(name), url, timeout_s)
        (bench.directory / "clew.toml").write_text(CONFIGURATION)
        prepare_home(recipe, bench.home, url)
        earlier = ""
        with _ending(bench.data):
            for scenario in SCENARIOS:
                if scenario not in recipe.scenarios:
                    continue
                before = len(bench.calls())
                ran = bench.run(scenario)
                faults = _judged(ran, bench.calls()[before:], bench, earlier)
                faults += _written(bench)
                yield f"{scenario}: {_told(ran)}", faults
                earlier = str(ran.summary.get("session") or "")


@contextmanager
def _provider(directory: Path) -> Iterator[str]:
    with simulator(directory / "simulator.log", INSTANT) as url:
        yield url


@contextmanager
def _ending(data: Path) -> Iterator[None]:
    """Ends the gateway that `clew run` left behind, by its own id."""
    try:
        yield
    finally:
        ready = read_ready(data)
        if ready is not None:
            _end(ready, data)


def _end(ready: Ready, data: Path) -> None:
    with suppress(ProcessLookupError):
        os.kill(ready.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + LEAVE_S
    while read_ready(data) is not None and time.monotonic() < deadline_s:
        time.sleep(LOOK_EVERY_S)


def _start(line: list[str], directory: Path, environment: dict[str, str], timeout_s: float) -> Ran:
    try:
        done = subprocess.run(
            line,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(None, {}, "ran out of time")
    summary: dict[str, Any] = {}
    for text in done.stderr.splitlines():
        if text.startswith('{"run"'):
            summary = json.loads(text)
    return Ran(done.returncode, summary, (done.stdout + done.stderr)[-OUTPUT_TAIL_CHARS:])


def _judged(ran: Ran, calls: list[dict[str, Any]], bench: Bench, earlier: str) -> list[str]:
    if ran.code != 0 or not ran.summary:
        return [f"exit status {ran.code}, summary {bool(ran.summary)}: {ran.output}"]
    said = ran.summary
    faults = []
    for name, wanted in _sums(calls).items():
        if said[name] != wanted:
            faults.append(f"{name} {said[name]}, the provider says {wanted}")
    if not said["turns"]:
        faults.append("no turn")
    if earlier and said["session"] != earlier:
        faults.append(f"went on in {said['session']}, not in {earlier}")
    if not earlier:
        faults += _lost(bench, said)
    return faults


def _sums(calls: list[dict[str, Any]]) -> dict[str, int]:
    """What the summary must say of these calls."""
    names = ("input_tokens", "cached_tokens", "output_tokens")
    sums = {name: sum(call["planned"][name] for call in calls) for name in names}
    return {"requests": len(calls), **sums}


def _lost(bench: Bench, said: dict[str, Any]) -> list[str]:
    """The sessions of a first run that are not in its tree."""
    ready = read_ready(bench.data)
    if ready is None:
        return ["the gateway is gone"]
    answer = httpx.get(
        f"{ready.admin}/api/v1/sessions?limit=500&root={said['run']}",
        headers={"authorization": f"Bearer {(bench.data / 'admin.token').read_text().strip()}"},
        trust_env=False,
    )
    found = {one["id"] for one in answer.raise_for_status().json()["items"]}
    lost = [one for one in said["sessions"] if one not in found]
    return [f"not in the run's tree: {', '.join(lost)}"] if lost else []


def _told(ran: Ran) -> str:
    said = ran.summary
    if not said:
        return "no summary"
    cached, whole = said["cached_tokens"], said["input_tokens"]
    return (
        f"{said['session_id']}, {said['turns']} turns, {said['requests']} calls, "
        f"{whole} in ({cached} cached), {said['output_tokens']} out, ${said['cost_usd']}"
    )


def _written(bench: Bench) -> list[str]:
    """Settings that name a run: an agent keeps what it is given in them, so none may be there."""
    files = [bench.home / path for path in bench.recipe.files]
    return [f"{path} names the run" for path in files if "/r/run-" in path.read_text()]


def _filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(name, value)
    return text


if __name__ == "__main__":
    sys.exit(main())
