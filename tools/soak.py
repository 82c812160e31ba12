"""``make soak``: what the promises say in figures, and the tests again with new random seeds.

Each row of `PROGRAMS` is a program under `tests/soak/` with the figure that was promised of it
(`docs/trust.md`); it prints what it does, and exits with something else than 0 when the promise was
broken. Another program joins by one row. The last step, ``tests``, runs the test suite with a new
seed each round: property tests draw other examples and timing differs, so a rare fault shows here
first; the seed of a round that failed repeats it.

``--only NAME`` (may stand several times) runs these alone. ``--minutes M`` makes all figures
smaller or larger by one factor, so that everything takes about so long; the table at the end says
what was run. Exits 1 when anything failed; what comes after a failure runs none the less.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

TESTS: Final = "tests"


@dataclass(frozen=True, slots=True)
class Program:
    """A program of `tests/soak/`."""

    name: str
    promise: str
    """The row of `docs/trust.md` that it stands for."""
    module: str
    figure: int
    """What was promised, given to the program as ``option``."""
    option: str
    minutes: float
    """About what that takes on two cores."""
    more: tuple[str, ...] = ()

    def argv(self, figure: int) -> list[str]:
        """The command that runs it to this figure."""
        command = [sys.executable, "-m", f"tests.soak.{self.module}"]
        return [*command, f"--{self.option}", str(figure), *self.more]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one step."""

    name: str
    promise: str
    amount: str
    took_s: float
    code: int


PROGRAMS: Final = (
    Program("crash", "P3", "crash", 500, "rounds", 25),
    Program("kills", "P3", "kills", 500, "kills", 15, ("--minutes", "40")),
    Program("power-loss", "P3", "power_loss", 100, "rounds", 12),
    Program("cuts", "P8", "cuts", 200, "rounds", 5),
    Program("metering", "P8", "metering", 10_000, "attempts", 8),
    Program("lineage", "P2", "lineage_histories", 1_000_000, "histories", 20),
    Program(
        "lineage-tiny", "P2", "lineage_histories", 1_000_000, "histories", 20, ("--tiny-bounds",)
    ),
    Program("lineage-memory", "P6", "lineage_memory", 1_000_000, "conversations", 25),
    Program("model", "P1, P2", "model", 100_000, "steps", 8),
    Program("affinity-file", "P4", "affinity", 10_000, "sessions", 12, ("--store", "file")),
    Program("affinity-etcd", "P4", "affinity", 10_000, "sessions", 12, ("--store", "etcd")),
)
TESTS_MINUTES: Final = 10.0
"""Of the test suite's rounds when no time is given; at least one round runs."""

Run = Callable[[Sequence[str]], int]


def run_command(argv: Sequence[str]) -> int:
    """Run a command to its end, its output passed on; its exit code."""
    return subprocess.run(argv, check=False).returncode


def scale_of(chosen: Sequence[Program], has_tests: bool, minutes: float | None) -> float:
    """By what to multiply every figure so that all of it takes about these minutes."""
    if minutes is None:
        return 1.0
    whole = sum(program.minutes for program in chosen) + TESTS_MINUTES * has_tests
    return minutes / whole


def run_program(program: Program, scale: float, run: Run) -> Done:
    """One program, to its figure times ``scale``."""
    figure = max(1, round(program.figure * scale))
    print(f"soak: {program.name}: {figure:,} {program.option}", flush=True)
    began = time.monotonic()
    code = run(program.argv(figure))
    amount = f"{figure:,} of {program.figure:,} {program.option}"
    return Done(program.name, program.promise, amount, time.monotonic() - began, code)


def run_tests(limit_s: float, run: Run, more: Sequence[str] = ()) -> Done:
    """Rounds of the test suite until the time is up, or one fails."""
    began = time.monotonic()
    rounds, code = 0, 0
    while code == 0 and (rounds == 0 or time.monotonic() - began < limit_s):
        seed = secrets.randbelow(2**32)
        print(f"soak: {TESTS}: round {rounds + 1}, seed {seed}", flush=True)
        code = run([sys.executable, "-m", "pytest", f"--hypothesis-seed={seed}", *more])
        rounds += 1
        if code:
            print(f'soak: repeat with make test TESTS="--hypothesis-seed={seed}"', flush=True)
    return Done(TESTS, "all", f"{rounds} rounds", time.monotonic() - began, code)


def table(steps: Sequence[Done]) -> str:
    """The summary, one line a step."""
    rows = [("name", "promise", "run", "time", "result")]
    for done in steps:
        result = "kept" if done.code == 0 else f"FAILED (exit {done.code})"
        rows.append((done.name, done.promise, done.amount, f"{done.took_s:,.0f} s", result))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: Sequence[str] | None = None, run: Run = run_command) -> int:
    """Run what was asked for, then print the table."""
    names = (*(program.name for program in PROGRAMS), TESTS)
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, help="about how long all of it may take")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=str(names))
    options, more = parser.parse_known_args(arguments)
    wanted = set(options.only or names)
    chosen = [program for program in PROGRAMS if program.name in wanted]
    scale = scale_of(chosen, TESTS in wanted, options.minutes)
    steps = [run_program(program, scale, run) for program in chosen]
    if TESTS in wanted:
        steps.append(run_tests(TESTS_MINUTES * 60 * scale, run, more))
    print(table(steps))
    return 1 if any(done.code for done in steps) else 0


if __name__ == "__main__":
    sys.exit(main())
