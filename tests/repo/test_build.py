"""Requirements are pinned, and one entry builds and checks everything."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"


def _pins(name: str) -> dict[str, str]:
    text = (REQUIREMENTS / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)", text, re.MULTILINE))


def _wanted(name: str) -> set[str]:
    lines = (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines()
    names = (re.match(r"[a-z0-9][a-z0-9._-]*", line) for line in lines)
    return {found[0] for found in names if found}


@pytest.mark.parametrize("name", ["gateway.txt", "dev.txt"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    """The same files are installed everywhere, and no place to get them is named."""
    text = (REQUIREMENTS / name).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())

    assert all(re.match(r"[a-z0-9][\w.-]*==", entry) for entry in entries)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


@pytest.mark.parametrize("name", ["gateway", "dev"])
def test_the_pins_hold_everything_that_is_asked_for(name: str) -> None:
    """A name added to an ``.in`` file is locked in the same change."""
    assert _wanted(f"{name}.in") <= set(_pins(f"{name}.txt"))


def test_the_development_pins_contain_the_gateways() -> None:
    """What is tested is what is installed."""
    assert _pins("gateway.txt").items() <= _pins("dev.txt").items()


def test_the_extra_names_what_the_pins_hold() -> None:
    """``pip install clew[gateway]`` and the pinned file speak of the same packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {
        re.match(r"[a-z0-9][a-z0-9-]*", name)[0]
        for name in project["optional-dependencies"]["gateway"]
    }

    assert extra <= set(_pins("gateway.txt"))
    assert project["dependencies"] == []


def test_make_without_a_target_lists_the_targets() -> None:
    """Who does not know the targets is told."""
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)

    for target in ("run", "test", "check", "conformance", "bench", "soak", "fix"):
        assert f"make {target} " in done.stdout


def test_ci_runs_the_same_targets() -> None:
    """CI has no recipe of its own, stops at the first fault, and the tests come last."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", script, re.MULTILINE)

    assert "set -euo pipefail" in script
    assert "check" in targets
    assert targets[-1] == "test"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
