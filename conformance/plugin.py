"""Builds and tests the OpenCode plugin, then runs real OpenCode with it.

    make conformance ARGS="--agent opencode"       # also runs this
    python -m conformance.plugin --offline         # with what is installed

The plugin is built and its own tests are run. What `npm pack` makes of it is what OpenCode loads,
in an empty home, with two providers: one behind the gateway and one that is not. A recorder stands
before each. Exits 1 when a session is not recognised by the plugin's headers, or when one of them
reaches the other provider. Status 0 without a run where agents were named and OpenCode is none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import platformdirs
from conformance.agents import INSTALL_TIMEOUT_S, OUTPUT_TAIL_CHARS, install
from conformance.installation import Installation, installation
from conformance.recipes import QUIET, RECIPES
from conformance.recorder import Recorded, Recorder, recorder

SOURCE: Final = Path(__file__).resolve().parent.parent / "integrations" / "opencode"
RECIPE: Final = next(recipe for recipe in RECIPES if recipe.name == "opencode")
BUILT: Final = ("node_modules", "dist", "*.tgz")
TIMEOUT_S: Final = 120.0
# OpenCode tries to fetch its own package for every plugin; nothing but loopback can be reached.
ONE_TRY: Final = {"NPM_CONFIG_FETCH_RETRIES": "0"}
OURS: Final = ("x-dynamo-", "x-clew-")
SESSION: Final = "x-dynamo-session-id"
PARENT: Final = "x-dynamo-parent-session-id"
PROGRAM: Final = "run-42"
LISTENING: Final = re.compile(r"listening on (http://\S+)")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where OpenCode runs: the installation, a provider beside it, an empty home."""

    running: Installation
    elsewhere: Recorder
    """Stands before a provider that is no gateway."""
    command: Path
    home: Path

    def run(self, *arguments: str, **more: str) -> list[str]:
        """One process of OpenCode; what is wrong with how it ended."""
        line = [str(self.command), "run", "--model", *arguments]
        try:
            done = subprocess.run(
                line,
                cwd=self.home / "work",
                env=self.environment(more),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ["ran out of time"]
        said = (done.stdout + done.stderr)[-OUTPUT_TAIL_CHARS:]
        return [f"exit status {done.returncode}: {said}"] if done.returncode else []

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Isolated, with the gateway named as users name it."""
        found = {"PATH": os.environ["PATH"], "HOME": str(self.home), **QUIET, **ONE_TRY}
        for name, value in RECIPE.environment.items():
            found[name] = value.replace("{home}", str(self.home))
        return found | {"CLEW_GATEWAY": self.running.recorder.url} | more

    def sessions(self) -> dict[str, dict[str, Any]]:
        """Every session that has called, by the id OpenCode gave it."""
        return {one["session_id"]: one for one in self.running.sessions() if one["requests"]}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done, and what was recorded of it on either side."""

    stage: Stage
    before: dict[str, dict[str, Any]]
    sent: list[dict[str, str]]
    """The headers of each call through the gateway, names in lower case."""
    elsewhere: list[dict[str, str]]

    @property
    def opened(self) -> list[dict[str, Any]]:
        """Sessions that were not there before, the shallowest first."""
        found = [one for key, one in self.stage.sessions().items() if key not in self.before]
        return sorted(found, key=lambda one: int(one["depth"]))


def main() -> int:
    """Build, test, run; the process's exit code."""
    arguments = _arguments()
    if arguments.agents and RECIPE.name not in arguments.agents:
        return 0
    try:
        command, version = install(RECIPE, arguments.cache, offline=arguments.offline)
        with tempfile.TemporaryDirectory(prefix="clew-plugin-") as name:
            package = build(arguments.cache, Path(name), offline=arguments.offline)
            print("opencode plugin: built, its own tests passed")
            return int(_run_all(command, version, package, Path(name)))
    except (RuntimeError, OSError, ValueError) as fault:
        print(f"opencode plugin: {fault}")
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("named", nargs="*", metavar="AGENT", help="run only where it is opencode")
    parser.add_argument("--agent", action="append", default=[], help="the same; may be repeated")
    default = os.environ.get("CLEW_CONFORMANCE_CACHE") or platformdirs.user_cache_path(
        "clew-conformance"
    )
    parser.add_argument("--cache", type=Path, default=Path(default), help="default: %(default)s")
    parser.add_argument("--offline", action="store_true", help="use what is installed")
    found, _ = parser.parse_known_args()  # the others are of conformance.run
    found.agents = [*found.named, *found.agent]
    return found


def build(cache: Path, directory: Path, *, offline: bool) -> Path:
    """The package as it would be published, unpacked; its tests have passed. Raises RuntimeError.

    Built in the cache, so that what it is built with is installed once.
    """
    place = cache / "opencode-plugin"
    for old in ("src", "dist", "test"):
        shutil.rmtree(place / old, ignore_errors=True)
    shutil.copytree(
        SOURCE, place, ignore=shutil.ignore_patterns(*BUILT), dirs_exist_ok=True, symlinks=True
    )
    if not (offline and (place / "node_modules").exists()):
        _npm(place, "install", "--ignore-scripts", "--no-audit", "--no-fund")
    _npm(place, "test")
    _npm(place, "pack", "--pack-destination", str(directory))
    (packed,) = directory.glob("*.tgz")
    with tarfile.open(packed) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4; the archive is our own
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(directory)
    return directory / "package"


def _npm(place: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["npm", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-OUTPUT_TAIL_CHARS:]
        raise RuntimeError(f"npm {arguments[0]}: {said}")


def _run_all(command: Path, version: str, package: Path, directory: Path) -> bool:
    """Whether a step failed."""
    failed = False
    with ExitStack() as children:
        running = children.enter_context(installation(directory))
        elsewhere = children.enter_context(recorder(running.simulator_url))
        stage = Stage(running, elsewhere, command, directory / "home")
        _prepare_home(stage, package)
        for name, act, judge in STEPS:
            faults = _taken(stage, act, judge)
            print(f"opencode {version} with the plugin, {name}: {'; '.join(faults) or 'ok'}")
            failed = failed or bool(faults)
    return failed


def _prepare_home(stage: Stage, package: Path) -> None:
    """Two providers, alike but for where they are, and the plugin."""
    for path, content in RECIPE.files.items():
        config = json.loads(content.replace("{url}", stage.running.recorder.url))
        other = json.loads(json.dumps(config["provider"]["sim"]))
        other["options"]["baseURL"] = f"{stage.elsewhere.url}/v1"
        config["provider"]["other"] = other
        config["plugin"] = [package.as_uri()]
        target = stage.home / path
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(config))
    (stage.home / "work").mkdir()


def _taken(
    stage: Stage, act: Callable[[Stage], list[str]], judge: Callable[[Step], list[str]]
) -> list[str]:
    before = stage.sessions()
    last = stage.running.recorder.last_number(), stage.elsewhere.last_number()
    faults = act(stage)
    sent = _headers(stage.running.recorder.since(last[0]))
    step = Step(stage, before, sent, _headers(stage.elsewhere.since(last[1])))
    return faults or [*_leaked(step), *judge(step)]


def _headers(calls: Sequence[Recorded]) -> list[dict[str, str]]:
    return [{name.lower(): value for name, value in one.headers} for one in calls]


def _leaked(step: Step) -> list[str]:
    """Headers of ours at the provider that is no gateway."""
    names = {name for one in step.elsewhere for name in one if name.startswith(OURS)}
    return [f"sent to another provider: {', '.join(sorted(names))}"] if names else []


def _judge_new(step: Step) -> list[str]:
    opened = step.opened
    if len(opened) != 1 or opened[0]["source"] != "canonical":
        return [f"{len(opened)} sessions, by {[one['source'] for one in opened]}"]
    unnamed = sum(SESSION not in one for one in step.sent)
    faults = [f"{unnamed} calls without the session's id"] if unnamed else []
    kinds = dict(opened[0]["kinds"])
    return faults if kinds == {"turn": 1, "title": 1} else [*faults, f"kinds {kinds}"]


def _judge_same(step: Step) -> list[str]:
    ids = {one.get(SESSION, "none") for one in step.sent}
    is_known = len(ids) == 1 and ids <= step.before.keys()
    return [] if is_known and not step.opened else [f"named {', '.join(sorted(ids))}"]


def _judge_compacted(step: Step) -> list[str]:
    kinds = [one.get("x-clew-kind", "turn") for one in step.sent]
    return _judge_same(step) + ([] if "compaction" in kinds else [f"kinds {kinds}"])


def _judge_child(step: Step) -> list[str]:
    opened = step.opened
    if [one["depth"] for one in opened] != [0, 1]:
        return [f"depths {[one['depth'] for one in opened]}"]
    root, child = opened
    is_linked = child["parent_id"] == root["id"]
    is_said = any(one.get(PARENT) == root["session_id"] for one in step.sent)
    return [] if is_linked and is_said else ["the child is not linked by its header"]


def _judge_elsewhere(step: Step) -> list[str]:
    faults = [] if step.elsewhere else ["nothing arrived at the other provider"]
    return faults if not step.sent else [*faults, "the gateway was called"]


def _judge_program(step: Step) -> list[str]:
    parents = {one.get(PARENT, "none") for one in step.sent}
    return [] if parents == {PROGRAM} else [f"parents {', '.join(sorted(parents))}"]


def _compact(stage: Stage) -> list[str]:
    """What `/compact` does in the terminal, over OpenCode's own server."""
    newest = max(stage.sessions().values(), key=lambda one: str(one["last_seen_at"]))
    with _serving(stage) as url:
        answer = httpx.post(
            f"{url}/session/{newest['session_id']}/summarize",
            json={"providerID": "sim", "modelID": "gpt-5"},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    return [] if answer.is_success else [f"summarize: {answer.status_code}"]


@contextmanager
def _serving(stage: Stage) -> Iterator[str]:
    """OpenCode's server, running."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = subprocess.Popen(
        [str(stage.command), "serve", "--hostname", "127.0.0.1", "--port", port],
        cwd=stage.home / "work",
        env=stage.environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        found = next(filter(None, map(LISTENING.search, process.stdout)), None)
        if found is None:
            raise RuntimeError("opencode serve ended")
        yield found[1]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


STEPS: Final[tuple[tuple[str, Callable[[Stage], list[str]], Callable[[Step], list[str]]], ...]] = (
    ("a first turn", lambda stage: stage.run("sim/gpt-5", "hi"), _judge_new),
    (
        "after a restart",
        lambda stage: stage.run("sim/gpt-5", "--continue", "hi again"),
        _judge_same,
    ),
    ("compaction", _compact, _judge_compacted),
    ("a subagent", lambda stage: stage.run("sim/gpt-5", "SPAWNSUB please"), _judge_child),
    ("another provider", lambda stage: stage.run("other/gpt-5", "SPAWNSUB hi"), _judge_elsewhere),
    (
        "below a program",
        lambda stage: stage.run("sim/gpt-5", "hi", CLEW_PARENT=f"canonical:{PROGRAM}"),
        _judge_program,
    ),
)


if __name__ == "__main__":
    sys.exit(main())
