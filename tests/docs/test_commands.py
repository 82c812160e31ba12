"""The commands' page says what the command line does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from clew.cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()


def every_command() -> dict[str, click.Command]:
    """Commands by their whole name, those of groups included."""
    found: dict[str, click.Command] = {}
    for name, one in cli.commands.items():
        inner = getattr(one, "commands", {})
        found |= {f"{name} {sub}": each for sub, each in inner.items()} or {name: one}
    return found


def lines_of(block: str) -> list[list[str]]:
    """The `clew …` calls of a shell block, as words."""
    calls = re.findall(r"(?:^|\| )clew ([^|>\n]*)", block, re.MULTILINE)
    return [shlex.split(call, comments=True) for call in calls]


def test_every_command_has_its_part_and_no_other() -> None:
    """One heading a command."""
    assert set(re.findall(r"^### `clew ([^`]+)`", PAGE, re.MULTILINE)) == set(every_command())


@pytest.mark.parametrize("name", every_command())
def test_every_command_has_an_example_that_parses(name: str) -> None:
    """The example's options exist; it is not run."""
    part = PAGE.partition(f"### `clew {name}`")[2].partition("\n##")[0]
    calls = [c for b in re.findall(r"```sh\n(.*?)```", part, re.DOTALL) for c in lines_of(b)]
    mine = [call for call in calls if call[: len(name.split())] == name.split()]

    assert mine
    for call in mine:
        words = [word for word in call[len(name.split()) :] if not word.endswith((".http", ".har"))]
        every_command()[name].make_context(name, words)


def test_every_option_of_a_help_example_exists() -> None:
    """The examples that `--help` shows parse too."""
    for name, one in every_command().items():
        assert one.epilog
        for call in lines_of(one.epilog.replace("  clew", "\nclew")):
            if call[: len(name.split())] == name.split():
                words = call[len(name.split()) :]
                plain = [word for word in words if not word.endswith((".http", ".har"))]
                one.make_context(name, plain)
