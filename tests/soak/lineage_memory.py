"""What one principal's conversations without ids add to a keeper: promise P6, measured.

One principal opens conversations without end, short and with long bodies, under several products,
with long tool-call arguments; another one's session stands beside it, and must be found at the end
in a scope that never left memory. What counts is the resident memory of this process at its worst
(`getrusage`) above what it was when both had spoken once. Writing goes to a store on disk, as in
the keeper.

Run as ``python -m tests.soak.lineage_memory --conversations N``; exits 1 above 64 MiB.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.keeper.lineage_talking import Talking, block

from clew.core.resolve import Outcome

MAX_GROWTH_MIB: Final = 64
MEBIBYTE: Final = 1024 * 1024
PRODUCTS: Final = 5
LONG_BODY: Final = 300
"""Blocks of the longer conversations' opening; one in `LONG_EVERY` is such a one."""
LONG_EVERY: Final = 4
WRITE_EVERY: Final = 50
PROGRESS_S: Final = 10.0


def worst_bytes() -> int:
    """This process's resident memory at its worst so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def speak(talking: Talking, number: int) -> None:
    """A conversation of its own: an opening and its answer."""
    length = 2 if number % LONG_EVERY else LONG_BODY
    tail = [block(f"{number} {at}") for at in range(length)]
    said = [block(f"answer {number}", is_assistant=True)]
    argument = f"\U0001f9f6 {number} " + "x" * 5_000
    client = f"tool{number // 500 % PRODUCTS}/1.0"
    talking.turn("eve", [], tail, said, client=client, arguments=(argument,))
    if number % WRITE_EVERY == 0:
        talking.write()


def main() -> int:
    """Let one principal talk; print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=1_000_000)
    arguments = parser.parse_args()
    began = shown = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clew-lineage-") as name:
        talking = Talking(Path(name))
        history = [block("u1"), block("a1", is_assistant=True)]
        talking.turn("bob", [], history[:1], history[1:])
        speak(talking, 0)
        before = worst_bytes()
        for number in range(1, arguments.conversations + 1):
            speak(talking, number)
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                grown = (worst_bytes() - before) / MEBIBYTE
                print(f"{number:,} conversations, {grown:.1f} MiB more", flush=True)
        grown = (worst_bytes() - before) / MEBIBYTE
        is_held = any(scope.startswith("bob\x1f") for scope, _ in talking.scopes.items())
        is_found = talking.turn("bob", history, [block("u2")], [])[1] is Outcome.EXACT
        weight = talking.scopes.weight_bytes / MEBIBYTE
        talking.close()
    took_s = time.monotonic() - began
    print(f"conversations: {arguments.conversations:,}, {took_s:.0f} s")
    print(f"memory added: {grown:.1f} MiB of {MAX_GROWTH_MIB} (scopes weigh {weight:.1f} MiB)")
    print(f"the other principal's scope in memory: {is_held}, its session found: {is_found}")
    return 0 if grown <= MAX_GROWTH_MIB and is_held and is_found else 1


if __name__ == "__main__":
    sys.exit(main())
