"""Starts real agents from a program's session and checks that their trees hang below it.

    make conformance ARGS="--agent claude-code"        # also runs this, for the agents named
    python -m conformance.under_run claude-code --offline

Each agent is started twice with `run.environ()` of `clew.sdk`, in a home and environment of its
own: below a run that has not called yet, and below one that has. What an agent must be configured
with beside the environment is in the table; `docs/sdk.md` tells users the same. Exits 1 when an
agent's sessions are anywhere else than below the run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import platformdirs
from conformance.agents import install
from conformance.recipes import QUIET, RECIPES

import clew
from clew.lab.children import GatewayPorts, gateway, simulator

CONFIGURATION: Final = '[[upstream]]\nname = "simulated"\nurl = "{url}"\n'
INSTANT: Final = ("--latency-ms", "0", "--tokens-per-second", "0")
OUTPUT_TAIL_CHARS: Final = 1_500
TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Agent:
    """How one agent is started below a run. ``name`` is its recipe's."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    """Beside what `run.environ()` gives: keys, and what keeps it quiet."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path below the home to content; ``{url}`` is the gateway."""


AGENTS: Final = (
    Agent(
        "claude-code",
        ("-p", "SPAWNSUB please", "--model", "claude-sonnet-4-5", "--dangerously-skip-permissions"),
        {
            "ANTHROPIC_API_KEY": "sk-ant-conformance",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
        },
    ),
    Agent(
        "gemini-cli",
        ("--yolo", "--model", "gemini-2.5-pro", "-p", "hi"),
        {"GEMINI_API_KEY": "conformance", "GEMINI_CLI_TRUST_WORKSPACE": "true"},
        {
            ".gemini/settings.json": (
                '{"security": {"auth": {"selectedType": "gemini-api-key"}},'
                ' "privacy": {"usageStatisticsEnabled": false},'
                ' "general": {"enableAutoUpdate": false, "disableAutoUpdate": true}}'
            )
        },
    ),
    Agent(
        "codex",
        ("exec", "--skip-git-repo-check", "hi"),
        {"CODEX_HOME": "{home}/.codex", "SIM_API_KEY": "sk-conformance"},
        {
            ".codex/config.toml": (
                'model = "gpt-5"\n'
                'model_provider = "sim"\n'
                'approval_policy = "never"\n'
                'sandbox_mode = "danger-full-access"\n'
                "[model_providers.sim]\n"
                'name = "sim"\n'
                'base_url = "{url}/v1"\n'
                'env_key = "SIM_API_KEY"\n'
                'wire_api = "responses"\n'
                'env_http_headers = { "X-Clew-Parent" = "CLEW_PARENT" }\n'
            )
        },
    ),
    Agent(
        "opencode",
        ("run", "--model", "sim/gpt-5", "SPAWNSUB please"),
        {
            "XDG_CONFIG_HOME": "{home}/.config",
            "XDG_DATA_HOME": "{home}/.local/share",
            "XDG_STATE_HOME": "{home}/.local/state",
            "XDG_CACHE_HOME": "{home}/.cache",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        },
        {
            ".config/opencode/opencode.json": (
                '{"provider": {"sim": {"npm": "@ai-sdk/openai-compatible", "name": "sim",'
                ' "options": {"baseURL": "{url}/v1", "apiKey": "sk-conformance",'
                ' "headers": {"X-Clew-Parent": "{env:CLEW_PARENT}"}},'
                ' "models": {"gpt-5": {"name": "gpt-5",'
                ' "limit": {"context": 200000, "output": 8000}}}}},'
                ' "permission": "allow", "autoupdate": false, "share": "disabled"}'
            )
        },
    ),
)


def main() -> int:
    """Run what was asked for; the process's exit code."""
    arguments = _arguments()
    failed = False
    for agent in AGENTS:
        if agent.name not in arguments.agents:
            continue
        recipe = next(one for one in RECIPES if one.name == agent.name)
        try:
            command, version = install(recipe, arguments.cache, offline=arguments.offline)
        except (RuntimeError, OSError, ValueError) as fault:
            print(f"{agent.name}: {fault}")
            failed = True
            continue
        for has_called in (False, True):
            faults, tree = _start(agent, command, has_called=has_called)
            what = "a run that has called" if has_called else "a run that has not called yet"
            print(f"{agent.name} {version} below {what}: {'; '.join(faults) or 'ok'}\n{tree}")
            failed = failed or bool(faults)
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    names = [agent.name for agent in AGENTS]
    parser.add_argument("agents", nargs="*", metavar="AGENT", help=f"{', '.join(names)}")
    parser.add_argument("--agent", action="append", default=[], help="the same; may be repeated")
    default = os.environ.get("CLEW_CONFORMANCE_CACHE") or platformdirs.user_cache_path(
        "clew-conformance"
    )
    parser.add_argument("--cache", type=Path, default=Path(default), help="default: %(default)s")
    parser.add_argument("--offline", action="store_true", help="use what is installed")
    found, _ = parser.parse_known_args()  # the others are of conformance.run
    found.agents = [*found.agents, *found.agent] or names
    return found


def _start(agent: Agent, command: Path, *, has_called: bool) -> tuple[list[str], str]:
    """One agent below one run: what is wrong, and the tree that it left."""
    with tempfile.TemporaryDirectory(prefix="clew-under-run-") as name, ExitStack() as children:
        directory, home = Path(name), Path(name) / "home"
        url = children.enter_context(simulator(directory / "simulator.log", INSTANT))
        ports = children.enter_context(gateway(directory, CONFIGURATION.format(url=url)))
        (home / "work").mkdir(parents=True)
        for path, content in agent.files.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(content.replace("{url}", ports.url))
        with clew.session("run-42") as run:
            if has_called:
                _call(ports)
            base = {"PATH": os.environ["PATH"], "HOME": str(home), **QUIET}
            base |= {
                key: one.replace("{home}", str(home)) for key, one in agent.environment.items()
            }
            ending = _run(
                [str(command), *agent.arguments], home, run.environ(base, gateway=ports.url)
            )
            if not has_called:
                _call(ports)
        return _judged(ending, _sessions(ports))


def _call(ports: GatewayPorts) -> None:
    """A call of the current session."""
    body = {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "Tell me of the labyrinth."}],
    }
    url = f"{ports.url}/v1/chat/completions"
    httpx.post(url, json=body, headers=clew.headers(), trust_env=False).raise_for_status()


def _run(line: list[str], home: Path, environment: dict[str, str]) -> list[str]:
    """What is wrong with how the agent ended."""
    try:
        done = subprocess.run(
            line,
            cwd=home / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ["ran out of time"]
    if done.returncode == 0:
        return []
    said = (done.stdout + done.stderr)[-OUTPUT_TAIL_CHARS:]
    return [f"exit status {done.returncode}: {said}"]


def _sessions(ports: GatewayPorts) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{ports.admin_url}/api/v1/sessions?limit=500",
        headers={"authorization": f"Bearer {ports.token}"},
        trust_env=False,
    )
    return list(answer.raise_for_status().json()["items"])


def _judged(faults: list[str], sessions: list[dict[str, Any]]) -> tuple[list[str], str]:
    """Every session but the run's own is in the run's tree, and the agent's root right below it."""
    runs = [one for one in sessions if one["session_id"] == "run-42"]
    if len(runs) != 1:
        return [*faults, f"{len(runs)} sessions are run-42"], ""
    run = runs[0]
    others = [one for one in sessions if one is not run]
    lost = [one["session_id"] for one in others if one["root_id"] != run["id"]]
    if lost or run["parent_id"] is not None:
        faults.append(f"not below the run: {', '.join(lost) or 'the run itself'}")
    if not any(one["parent_id"] == run["id"] and one["requests"] for one in others):
        faults.append("the agent's own session is not right below the run")
    ordered = sorted(sessions, key=lambda one: (one["depth"], one["opened_at"]))
    lines = [
        f"    {'  ' * one['depth']}{one['session_id']} ({one['source']}, {one['requests']} calls)"
        for one in ordered
    ]
    return faults, "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
