"""The `clew` command's entry. Decides only whether the command is installed.

The library alone installs without third-party packages, and its entry point exists all the same;
so nothing of theirs is imported before it is known to be there.
"""

from __future__ import annotations

import importlib.util
import sys

NEEDED = ("click", "rich", "httpx", "msgspec", "platformdirs", "sqlalchemy", "starlette", "uvicorn")
"""What every installation of the extra has; one of them missing means the extra is missing."""


def main() -> None:
    """Run the command line; exits 2 with one line where ``clew[gateway]`` is not installed."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        print("clew: the command needs its extra: pip install 'clew[gateway]'", file=sys.stderr)
        sys.exit(2)
    from clew.cli.main import cli  # noqa: PLC0415  not importable without the extra

    cli(prog_name="clew")


if __name__ == "__main__":
    main()
