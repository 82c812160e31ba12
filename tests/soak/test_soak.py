"""``make soak``: which programs it runs, how far, and what it answers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    """The tool, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("clew_soak", ROOT / "tools" / "soak.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # its dataclasses look themselves up
    spec.loader.exec_module(made)
    return made


SOAK = load()
NAMES = [program.name for program in SOAK.PROGRAMS]


class Running:
    """Takes commands instead of the system; those with a word fail."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.commands: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> int:
        """A command's exit code."""
        self.commands.append(list(argv))
        return 3 if self.failing and any(self.failing in part for part in argv) else 0


@pytest.mark.parametrize("program", SOAK.PROGRAMS, ids=NAMES)
def test_a_row_names_a_program_that_takes_its_figure(program: SOAK.Program) -> None:  # type: ignore[name-defined]  # loaded by path
    """Every row's module is there and knows the option."""
    text = (ROOT / "tests" / "soak" / f"{program.module}.py").read_text()

    assert f'"--{program.option}"' in text
    options = [part for part in program.more if part.startswith("--")]
    assert all(f'"{option}"' in text for option in options)


def test_everything_runs_to_its_promised_figure() -> None:
    """Without a time each program gets the figure of its row."""
    running = Running()

    code = SOAK.main(["--only", "lineage", "--only", "model"], running)

    assert code == 0
    assert [command[2:] for command in running.commands] == [
        ["tests.soak.lineage_histories", "--histories", "1000000"],
        ["tests.soak.model", "--steps", "100000"],
    ]


def test_a_time_scales_the_figures() -> None:
    """Half of the minutes that a program takes is half of its figure."""
    running = Running()
    program = next(program for program in SOAK.PROGRAMS if program.name == "model")

    SOAK.main(["--only", "model", "--minutes", str(program.minutes / 2)], running)

    assert running.commands[0][-1] == str(program.figure // 2)


def test_a_violation_is_told_and_the_rest_still_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """One that fails makes the whole fail, in the end."""
    running = Running(failing="crash")

    code = SOAK.main(["--only", "crash", "--only", "cuts"], running)

    assert code == 1
    assert len(running.commands) == 2
    assert "FAILED (exit 3)" in capsys.readouterr().out


def test_the_tests_run_at_least_once_and_name_their_seed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However short the time, one round runs; its seed repeats it."""
    running = Running(failing="pytest")

    code = SOAK.main(["--only", "tests", "--minutes", "0"], running)

    assert code == 1
    (command,) = running.commands
    seed = next(part for part in command if part.startswith("--hypothesis-seed="))
    assert f'repeat with make test TESTS="{seed}"' in capsys.readouterr().out
