"""The OpenCode plugin and Clew agree on names; its behaviour is checked where node is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conformance.plugin import BUILT, OURS, PARENT, SESSION, SOURCE, STEPS

import clew
from clew import headers
from clew.core.claim import Kind
from clew.core.clients import ClientTable
from clew.core.identity import identify
from clew.core.translate import REMOVED_PREFIXES
from clew.sdk.environment import DECLARED, PARENT_VARIABLE
from clew.sdk.gate import GATEWAY_VARIABLE

MANIFEST = json.loads((SOURCE / "package.json").read_text())


def constants(name: str) -> dict[str, str]:
    """The text constants of one source file."""
    text = (SOURCE / "src" / name).read_text()
    return dict(re.findall(r'^(?:export )?const (\w+) = "([^"]*)"', text, re.MULTILINE))


def test_the_headers_are_those_that_clew_reads() -> None:
    """A header spelt otherwise would be nobody's."""
    found = constants("identity.ts")

    assert found["SESSION_HEADER"].lower() == headers.SESSION_ID == SESSION
    assert found["PARENT_HEADER"].lower() == headers.PARENT_SESSION_ID == PARENT
    assert found["KIND_HEADER"].lower() == headers.CLEW_KIND


def test_the_kinds_are_clews() -> None:
    """A kind that Clew does not know would be flagged with each call."""
    text = (SOURCE / "src" / "identity.ts").read_text()
    (table,) = re.findall(r"const KINDS[^{]*\{([^}]*)\}", text)
    kinds = re.findall(r'\w+: "(\w+)"', table)

    assert kinds
    assert set(kinds) <= {kind.value for kind in Kind}


def test_the_variables_are_those_of_the_sdk() -> None:
    """One name of the gateway and of the parent for every program of a user."""
    assert constants("gate.ts")["GATEWAY_VARIABLE"] == GATEWAY_VARIABLE
    found = constants("identity.ts")
    assert (found["PARENT_VARIABLE"], found["DECLARED"]) == (PARENT_VARIABLE, DECLARED)


@pytest.mark.parametrize("value", ["ses_1", "a.b_c:d/e@f+g=h~i-j", "x" * 256])
def test_an_id_that_the_plugin_sends_is_accepted(value: str) -> None:
    """Both know the same characters and the same length."""
    text = (SOURCE / "src" / "identity.ts").read_text()
    (pattern,) = re.findall(r"^const ID = /(.*)/$", text, re.MULTILINE)

    assert re.fullmatch(pattern, value)
    assert not re.fullmatch(pattern, value[:1] * 257)
    assert not re.fullmatch(pattern, f"{value[:-1]} ")
    claim = identify([(headers.SESSION_ID.encode(), value.encode())], ClientTable())
    assert claim.session is not None


def test_a_leak_of_any_header_of_clews_would_be_seen() -> None:
    """The run against another provider looks for every family of ours."""
    ours = {prefix.decode() for prefix in REMOVED_PREFIXES} & {"x-dynamo-", "x-clew-"}

    assert set(OURS) == ours


def test_the_package_is_ready_to_publish() -> None:
    """What it names is built from what is there; it needs nothing at run time, nor runs scripts."""
    assert MANIFEST["version"] == clew.__version__
    assert MANIFEST["license"] == "Apache-2.0"
    entry = Path(MANIFEST["main"])
    assert (SOURCE / "src" / entry.with_suffix(".ts").name).exists()
    assert set(MANIFEST["exports"].values()) == {MANIFEST["main"]}
    assert MANIFEST["files"] == [entry.parent.as_posix()]
    assert entry.parent.as_posix() in BUILT
    assert "dependencies" not in MANIFEST
    assert not {"install", "postinstall", "preinstall", "prepare"} & MANIFEST["scripts"].keys()
    assert (SOURCE / "README.md").exists()
    assert (SOURCE / "LICENSE").read_text() == (SOURCE.parents[1] / "LICENSE").read_text()


def test_what_the_plugin_promises_is_run() -> None:
    """A restart, a child and another provider are run with real OpenCode."""
    names = [name for name, _, _ in STEPS]

    assert {"after a restart", "a subagent", "another provider"} <= set(names)
    assert len(set(names)) == len(names)
