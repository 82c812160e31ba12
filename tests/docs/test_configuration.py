"""The configuration's page says what the schema and the checks do."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from clew.cli.main import cli
from clew.config.checks import NOT_YET
from clew.config.load import FLAGS, ConfigError, load
from clew.config.reading import known_keys
from clew.config.schema import Config

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
BLOCKS = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]


def keys_of(tree: dict[str, Any], lead: str = "") -> set[str]:
    """Dotted keys of every value, lists of tables without an index."""
    found: set[str] = set()
    for name, value in tree.items():
        key = f"{lead}{name}"
        items = (
            [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
        )
        for table in [value] if isinstance(value, dict) else items:
            found |= keys_of(table, f"{key}.")
        if not isinstance(value, dict) and not items:
            found.add(key)
    return found


def test_every_key_is_shown() -> None:
    """A key that is not on the page does not exist for the reader."""
    shown = set().union(*(keys_of(block) for block in BLOCKS))

    assert set(known_keys()) - shown == set()


def test_the_whole_file_is_the_defaults(tmp_path: Path) -> None:
    """The first block changes nothing."""
    path = tmp_path / "clew.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])

    assert load(path, {}, {"data": str(tmp_path)}) == Config(data=str(tmp_path))


def test_the_examples_are_well_formed(tmp_path: Path) -> None:
    """Every block is accepted, but for what this version does not have."""
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        try:
            load(path, {}, {})
        except ConfigError as error:
            lines = [fault.text for fault in error.faults]
            assert all("not available in this version" in line for line in lines), lines


@pytest.mark.parametrize("key", sorted({row.key for row in NOT_YET}))
def test_what_is_not_in_this_version_is_told(key: str) -> None:
    """The table of the page is the table of the code."""
    section = PAGE.partition("## Not in this version")[2].partition("\n## ")[0]

    assert f"`{key}`" in section


def test_nothing_else_is_told_to_be_missing() -> None:
    """When a feature arrives, its line goes."""
    section = PAGE.partition("## Not in this version")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    told = {key for row in rows for key in re.findall(r"`([a-z_.]+)`", row)}

    assert told == {row.key for row in NOT_YET}


def test_the_variables_of_the_page_are_understood() -> None:
    """The shell block can be pasted."""
    block = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[-1]
    pairs = re.findall(r"^(CLEW_\w+)=('[^']*'|\S+)", block, re.MULTILINE)

    found = load(None, {name: value.strip("'") for name, value in pairs}, {})

    assert found.server.listen == "127.0.0.1:8080"
    assert found.upstream[0].name == "local"


def test_every_flag_that_sets_a_key_is_told() -> None:
    """And exists."""
    known = {opt for option in cli.commands["serve"].params for opt in option.opts}

    for flag in FLAGS.values():
        assert f"`{flag}`" in PAGE
        assert flag in known
