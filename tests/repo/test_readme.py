"""The README stays short and everything it tells the reader to type exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def _console_lines(text: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def _named(program: str, text: str) -> list[str]:
    """First words after ``program`` in the text's console blocks."""
    lines = _console_lines(text)
    return sorted({m[1] for line in lines if (m := re.match(rf"{program} ([a-z]+)", line))})


def test_readme_is_under_150_lines() -> None:
    """Who reads it in a minute must find everything."""
    assert README.count("\n") < 150


@pytest.mark.parametrize("target", _named("make", README))
def test_each_make_target_of_the_readme_exists(target: str) -> None:
    """A reader who types it gets what the text says."""
    assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)


def test_readme_names_commands_at_all() -> None:
    """The tests below are not empty."""
    assert {"run", "test"} <= set(_named("make", README))
    assert {"serve", "sessions", "tree", "show"} <= set(_named("clew", README))


@pytest.mark.parametrize("command", _named("clew", README))
def test_each_clew_command_of_the_readme_exists(command: str) -> None:
    """Each command answers ``--help`` with success."""
    argv = [sys.executable, "-m", "clew.command", command, "--help"]

    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr


def test_readme_leads_with_the_picture() -> None:
    """One sentence, then what it looks like."""
    above = README.partition("![")[0]

    assert above.count("\n") <= 5
    assert (ROOT / "docs/img/session.svg").is_file()
