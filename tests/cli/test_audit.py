"""`clew audit verify` and `clew audit head`: what they say, and how they leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clew.cli.main import cli
from clew.core.audit import START, Began, Did, chain
from clew.keeper.audit_files import AuditFiles

INSTANCE = "0123456789abcdef"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a chain of thirty records in several files, and no store."""
    (tmp_path / "instance").write_text(INSTANCE + "\n")
    files = AuditFiles(tmp_path / "audit", file_bytes=1_500)
    records = [Began(1, INSTANCE, "1"), *(Did(n, "session.close", {"n": n}) for n in range(29))]
    _, lines = chain(START, records)
    files.append(lines)
    files.leave()
    return tmp_path


def run(*words: str | Path) -> Result:
    """One call of the command line."""
    return CliRunner().invoke(cli, ["audit", *map(str, words)])


def test_a_whole_chain_leaves_with_zero(data: Path) -> None:
    """And says how much was checked."""
    found = run("verify", "--data", data)

    assert found.exit_code == 0
    assert "whole: 30 records, 1 to 30" in found.output


def test_the_first_bad_record_is_named_and_the_status_is_one(data: Path) -> None:
    """By number, file and line."""
    path = sorted((data / "audit").iterdir())[1]
    path.write_bytes(path.read_bytes().replace(b'"n":', b'"m":', 1))
    found = run("verify", "--data", data)

    assert found.exit_code == 1
    assert f"{path.name} line 1: the hash is not that of the line" in found.output


def test_json_says_the_same(data: Path) -> None:
    """For programs."""
    assert json.loads(run("verify", "--data", data, "--json").output)["ok"] is True
    last = max((data / "audit").iterdir())
    last.write_bytes(b"{}\n")
    found = run("verify", "--data", data, "--json")

    assert found.exit_code == 1
    assert json.loads(found.output)["fault"]["file"] == last.name


def test_a_head_finds_a_tail_that_was_cut_off(data: Path) -> None:
    """Which nothing in the files alone could tell."""
    head = run("head", "--data", data)
    (data / "head.json").write_text(head.output)
    assert run("verify", "--data", data, "--head", data / "head.json").exit_code == 0
    max((data / "audit").iterdir()).unlink()

    assert run("verify", "--data", data).exit_code == 0
    found = run("verify", "--data", data, "--head", data / "head.json")
    assert found.exit_code == 1
    assert "before the head at 30" in found.output


def test_a_head_names_its_installation(data: Path) -> None:
    """Number, hash, and when."""
    found = json.loads(run("head", "--data", data).output)

    assert (found["instance"], found["seq"]) == (INSTANCE, 30)
    assert len(found["hash"]) == 64
    assert found["at"].endswith("Z")


def test_without_records_there_is_nothing_to_say(tmp_path: Path) -> None:
    """An installation that never ran is not broken, and has no head."""
    assert "no audit records yet" in run("verify", "--data", tmp_path).output
    assert run("verify", "--data", tmp_path).exit_code == 0
    assert run("head", "--data", tmp_path).exit_code == 1


def test_a_head_that_is_none_is_refused(data: Path) -> None:
    """In one line."""
    (data / "head.json").write_text("[]")
    found = run("verify", "--data", data, "--head", data / "head.json")

    assert found.exit_code == 1
    assert "is no head" in found.output
