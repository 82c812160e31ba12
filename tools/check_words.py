"""Looks for what must not be in a tracked file, by a table of rules.

Data that is quoted from outside (captures, price tables, malformed messages) is not prose of
ours and is left out where a rule says so. Lock files are only searched for hosts.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 4 * 1024 * 1024
"""Larger files are data and would only slow the check down."""


class Rule(NamedTuple):
    """One thing that must not be there. Files whose path matches ``unless`` are not searched."""

    name: str
    pattern: re.Pattern[str]
    unless: re.Pattern[str]


def _rule(name: str, pattern: str, unless: str = r"^$", flags: int = 0) -> Rule:
    return Rule(name, re.compile(pattern, flags), re.compile(unless))


# Single letters stand in brackets so that this table does not find itself.
QUOTED = r"^conformance/captures/|^tests/data/|\.svg$"
IN_TEXT = (
    _rule("unfinished work", r"\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b", QUOTED),
    _rule("skipped test", r"pytest\.mark\.(sk[i]p|xfa[i]l)|pytest\.(sk[i]p|xfa[i]l)\(", QUOTED),
    _rule(
        "package registry host",
        r"py[p]i\.org|pythonhos[t]ed\.org|registry\.np[m]js|np[m]js\.(org|com)|--(extra-)?inde[x]-url\b",
        QUOTED,
    ),
    _rule(
        "absolute home path",
        r"(?<![\w.$}])/(?:ho[m]e|Use[r]s)/\w+|(?<![\w.])/ro[o]t/|(?<![\w.])/wo[r]k/",
        QUOTED,
    ),
    _rule("private key", r"-----BEGIN [A-Z ]*PRIVATE K[E]Y", QUOTED),
    _rule("conflict marker", r"^(<<<<<<<|>>>>>>>) ", flags=re.MULTILINE),
)
IN_PATH = _rule("vague module name", r"(^|/)(utils?|helpers?|common|managers?|misc)(\.py)?(/|$)")


def tracked(root: Path) -> list[str]:
    """Files under version control and new ones that are not ignored, as paths from the root."""
    argv = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(listed.splitlines()) if (root / name).is_file())


def search(name: str, text: str) -> Iterator[str]:
    """One sentence for each fault of one file."""
    for rule in IN_TEXT:
        if rule.unless.search(name):
            continue
        for found in rule.pattern.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{name}:{line}: {rule.name}: {found[0].strip()}"


def main() -> int:
    """Print the faults; exit 1 when there are any."""
    found: list[str] = []
    names = tracked(ROOT)
    for name in names:
        if IN_PATH.pattern.search(name):
            found.append(f"{name}: {IN_PATH.name}")
        path = ROOT / name
        if path.stat().st_size > MAX_BYTES:
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            found.extend(search(name, content.decode("utf-8", errors="replace")))
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print(f"words: {len(names)} files are clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
