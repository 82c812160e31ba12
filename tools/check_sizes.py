"""Holds the house's sizes: a file ends at 800 lines, a function body at 60.

A body is counted from its first statement after the docstring to its last line. What is over
stands in `size_exceptions.txt` with its size of today; the list may only shrink: a size may not
grow, and an entry that is no longer needed, or too generous, is a fault as well.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "tools", "bench", "conformance")
MAX_FILE_LINES = 800
MAX_BODY_LINES = 60
EXCEPTIONS = Path(__file__).with_name("size_exceptions.txt")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def body_lines(function: _Function) -> int:
    """Lines of the body without its docstring."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if is_docstring and len(function.body) == 1:
        return 0
    start = function.body[1] if is_docstring else first
    return (function.end_lineno or start.lineno) - start.lineno + 1


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, _Function]]:
    """Every function with its dotted name, methods and nested ones included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Function):
            yield prefix + node.name, node
        is_scope = isinstance(node, _Function | ast.ClassDef)
        yield from functions(node, f"{prefix}{node.name}." if is_scope else prefix)


def measure(root: Path) -> tuple[dict[str, int], list[int]]:
    """What is over its limit (path or path::function to lines), and all body sizes of src."""
    over: dict[str, int] = {}
    bodies: list[int] = []
    for path in sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            over[name] = lines
        for function, node in functions(ast.parse(text)):
            size = body_lines(node)
            if size > MAX_BODY_LINES:
                over[f"{name}::{function}"] = size
            if name.startswith("src/"):
                bodies.append(size)
    return over, bodies


def exceptions(text: str) -> dict[str, int]:
    """The list: one ``name lines`` a line, ``#`` begins a comment."""
    rows = (line.partition("#")[0].split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if row}


def faults(over: dict[str, int], allowed: dict[str, int]) -> list[str]:
    """One sentence for each difference between what is over and what may be."""
    found = [
        f"{name}: {lines} lines, allowed {allowed.get(name, 'is no exception')}; cut it in two"
        for name, lines in over.items()
        if lines > allowed.get(name, 0)
    ]
    for name, lines in allowed.items():
        if name not in over:
            found.append(f"{name}: no exception needed any more; remove it from {EXCEPTIONS.name}")
        elif over[name] < lines:
            found.append(f"{name}: has {over[name]} lines; lower its entry in {EXCEPTIONS.name}")
    return found


def main() -> int:
    """Print the faults, or the figures; exit 1 on a fault."""
    over, bodies = measure(ROOT)
    found = faults(over, exceptions(EXCEPTIONS.read_text(encoding="utf-8")))
    for fault in found:
        print(fault, file=sys.stderr)
    if len(bodies) > 1:
        ordered = sorted(bodies)
        print(
            f"sizes: {len(bodies)} functions in src, median body "
            f"{statistics.median(ordered):.0f} lines, 95th percentile "
            f"{ordered[int(len(ordered) * 0.95)]}, longest {ordered[-1]}"
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
