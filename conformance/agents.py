"""Installs an agent from npm and runs it once, in an isolated home, bounded in time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from conformance.recipes import QUIET, RECIPES, Recipe

INSTALL_TIMEOUT_S: Final = 600
OUTPUT_TAIL_CHARS: Final = 2_000
OLDER_RELEASES: Final = 3
"""Releases tried when the newest does not install: a wrapper may be out before its program."""
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Ran:
    """How the processes of a scenario ended; ``code`` is None when the time was over."""

    code: int | None
    output: str


class Installed(NamedTuple):
    """One agent to run, or why it cannot be."""

    recipe: Recipe
    command: Path
    version: str
    fault: str = ""


def each_installed(names: Collection[str], cache: Path, *, offline: bool) -> Iterator[Installed]:
    """The agents of these names, in the recipes' order, each installed when its turn comes."""
    for recipe in RECIPES:
        if recipe.name not in names:
            continue
        try:
            yield Installed(recipe, *install(recipe, cache, offline=offline))
        except (RuntimeError, OSError, ValueError) as fault:
            yield Installed(recipe, Path(), "", str(fault))


def install(recipe: Recipe, cache: Path, *, offline: bool) -> tuple[Path, str]:
    """The newest release's executable and version. Raises RuntimeError when npm cannot."""
    prefix = cache / recipe.name
    command = prefix / "node_modules" / ".bin" / recipe.command
    if not (offline and command.exists()):
        prefix.mkdir(parents=True, exist_ok=True)
        fault = _install_newest(recipe.package, prefix)
        if fault:
            raise RuntimeError(f"npm install {recipe.package}: {fault}")
    manifest = prefix / "node_modules" / recipe.package / "package.json"
    return command, str(json.loads(manifest.read_text())["version"])


def _install_newest(package: str, prefix: Path) -> str:
    """Empty, or why neither the newest release nor one of those before it can be installed."""
    fault = _npm("install", "--no-audit", "--no-fund", "--prefix", str(prefix), f"{package}@latest")
    if not fault[0]:
        return ""
    _, listed = _npm("view", package, "versions", "--json")
    with suppress(ValueError):
        for version in reversed(list(json.loads(listed))[-1 - OLDER_RELEASES : -1]):
            name = f"{package}@{version}"
            arguments = ("--no-audit", "--no-fund", "--prefix", str(prefix), name)
            if not _npm("install", *arguments)[0]:
                return ""
    return fault[0]


def _npm(*arguments: str) -> tuple[str, str]:
    """What went wrong (empty: nothing), and what was printed."""
    done = subprocess.run(
        ["npm", *arguments],
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    return (done.stderr[-OUTPUT_TAIL_CHARS:] if done.returncode else ""), done.stdout


def prepare_home(recipe: Recipe, home: Path, url: str) -> None:
    """Write the agent's configuration into an empty home with a project directory."""
    (home / "work").mkdir(parents=True)
    for path, content in recipe.files.items():
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content.replace("{url}", url).replace("{home}", str(home)))


def run_agent(
    recipe: Recipe, command: Path, scenario: str, home: Path, url: str, timeout_s: float
) -> Ran:
    """Every process of a scenario, one after the other; ``timeout_s`` is for each of them."""
    names = {"{url}": url, "{home}": str(home), "{work}": str(home / "work")}
    names["{session}"] = last_session(recipe, home)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **QUIET}
    environment |= {key: _filled(value, names) for key, value in recipe.environment.items()}
    wanted = recipe.scenarios[scenario]
    ran = Ran(0, "")
    for arguments in wanted.runs:
        line = [str(command), *(_filled(one, names) for one in arguments)]
        ran = _run(line, home, environment, wanted.stdin, timeout_s)
        _end_leftovers(home)
        if ran.code != 0:
            break
    return ran


def last_session(recipe: Recipe, home: Path) -> str:
    """The agent's own id of the session it wrote last; empty where it has none."""
    if not recipe.session_files:
        return ""
    found = sorted(home.glob(recipe.session_files), key=lambda path: path.stat().st_mtime_ns)
    ids = _UUID.findall(found[-1].name) if found else []
    return ids[-1] if ids else ""


def _filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(name, value)
    return text


def _run(
    line: Sequence[str], home: Path, environment: dict[str, str], stdin: str, timeout_s: float
) -> Ran:
    process = subprocess.Popen(
        line,
        cwd=home / "work",
        env=environment,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(stdin or None, timeout=timeout_s)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        _end_group(process.pid)
        output, _ = process.communicate()
        code = None
    # What an agent left running in its group would go on talking to the next one's gateway.
    _end_group(process.pid)
    return Ran(code, output[-OUTPUT_TAIL_CHARS:])


def _end_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _end_leftovers(home: Path) -> None:
    """End daemons that left the group (Cline's hub); known by their home, where /proc tells it."""
    wanted = f"HOME={home}".encode()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                os.kill(int(entry.parent.name), signal.SIGKILL)
