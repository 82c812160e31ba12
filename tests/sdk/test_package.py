"""Importing the SDK is cheap and does nothing; its examples run; its names are documented."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import clew
import clew.headers
from clew import sdk

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text(encoding="utf-8")
MODULES = sorted(f"clew.sdk.{found.name}" for found in pkgutil.iter_modules(sdk.__path__))
LOADED = """
import json, sys
before = set(sys.modules)
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event in WATCHED else None)
import clew
print(json.dumps([sorted(set(sys.modules) - before), opened]))
"""
WATCHED = [
    "socket.__new__",
    "socket.connect",
    "subprocess.Popen",
    "os.fork",
    "_thread.start_new_thread",
]
SLOW = {"asyncio", "concurrent.futures", "dataclasses", "hashlib", "inspect", "logging", "uuid"}
"""Each costs more to import than the SDK itself."""


def test_importing_needs_the_standard_library_alone_and_opens_nothing() -> None:
    """No third party, no slow module, no socket, no thread, no process."""
    code = f"WATCHED = {WATCHED!r}\n{LOADED}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    loaded, opened = json.loads(done.stdout)
    tops = {name.partition(".")[0] for name in loaded}

    assert opened == []
    assert tops <= {*sys.stdlib_module_names, "clew"}
    assert SLOW.isdisjoint(loaded)
    assert [name for name in loaded if name.startswith("clew.")] == sorted(
        {"clew.headers", "clew.sdk", *MODULES}
        - {"clew.sdk.executors", "clew.sdk.stamping"}
        - {name for name in MODULES if ".over_" in name}
    )


@pytest.mark.parametrize("name", ["clew.sdk", *MODULES])
def test_every_example_runs(name: str) -> None:
    """What a docstring shows is what happens."""
    found = doctest.testmod(importlib.import_module(name))

    assert found.failed == 0


@pytest.mark.parametrize(
    "name", [name for name in sdk.__all__ if name not in ("KINDS", "TRANSPORTS", "Kind")]
)
def test_everything_public_is_in_the_package_and_on_its_page(name: str) -> None:
    """One name, wherever it is taken from; `docs/sdk.md` has it."""
    if name != "headers":
        assert getattr(clew, name) is getattr(sdk, name)
    assert f"clew.{name}" in PAGE
    assert name in clew.__all__


def test_headers_is_the_function_and_the_table_of_names() -> None:
    """Whoever imports the names first or last."""
    with clew.session("run-42") as run:
        assert clew.headers() == sdk.headers() == {clew.headers.SESSION_ID: run.id}


@pytest.mark.parametrize("name", sdk.TRANSPORTS)
def test_every_transport_is_on_the_page(name: str) -> None:
    """And every kind."""
    assert f"`{name}`" in PAGE
    assert all(f"`{kind}`" in PAGE for kind in sdk.KINDS)


def test_the_pages_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that show what comes out."""
    monkeypatch.setenv("CLEW_GATEWAY", "http://127.0.0.1:2539")
    text = "\n".join(part.partition("```")[0] for part in PAGE.split("```pycon\n")[1:])
    parsed = doctest.DocTestParser().get_doctest(text, {}, "docs/sdk.md", None, None)

    assert parsed.examples
    assert doctest.DocTestRunner().run(parsed).failed == 0
