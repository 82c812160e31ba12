"""Installs an agent from npm and runs it once, in an isolated home, bounded in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conformance.recipes import QUIET, Recipe

INSTALL_TIMEOUT_S: Final = 600
OUTPUT_TAIL_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Ran:
    """How one process of an agent ended; ``code`` is None when its time was over."""

    code: int | None
    output: str


def install(recipe: Recipe, cache: Path, *, offline: bool) -> tuple[Path, str]:
    """The newest release's executable and version. Raises RuntimeError when npm cannot."""
    prefix = cache / recipe.name
    command = prefix / "node_modules" / ".bin" / recipe.command
    if not (offline and command.exists()):
        prefix.mkdir(parents=True, exist_ok=True)
        arguments = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(prefix)]
        done = subprocess.run(
            [*arguments, f"{recipe.package}@latest"],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm install {recipe.package}: {done.stderr[-OUTPUT_TAIL_CHARS:]}")
    manifest = prefix / "node_modules" / recipe.package / "package.json"
    return command, str(json.loads(manifest.read_text())["version"])


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
    """One process; its whole group is ended when its time is over."""
    names = {"url": url, "home": str(home), "work": str(home / "work")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **QUIET}
    environment |= {key: value.format(**names) for key, value in recipe.environment.items()}
    process = subprocess.Popen(
        [str(command), *recipe.scenarios[scenario]],
        cwd=home / "work",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
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
