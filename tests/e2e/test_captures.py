"""Every recorded request of a real agent, sent through a running gateway."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.e2e.processes import Gateway, Simulated, gateway_process, simulator_process

CAPTURES = sorted((Path(__file__).parents[2] / "conformance" / "captures").glob("*.jsonl"))
CONFIGURATION = """
[metering]
ask_usage = "never"
[sessions]
resume = "off"
[[upstream]]
name = "simulator"
url = "{url}"
kind = "{kind}"
"""
REMOVED = ("x-dynamo-", "x-cagent-", "x-lore-", "x-clew-")
HOP_BY_HOP = {"connection", "host", "content-length", "transfer-encoding"}


def rows(path: Path) -> list[dict[str, Any]]:
    """The capture's requests in order."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def body_of(row: dict[str, Any]) -> bytes:
    """The captured body as bytes; tool names become the tools a client would declare."""
    return b"" if row["body"] is None else json.dumps(row["body"]).encode()


@pytest.fixture(scope="module", params=["provider", "engine", "gateway"])
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, Simulated, str]]:
    """A fresh gateway before a fresh simulator, for each kind of upstream."""
    directory = tmp_path_factory.mktemp(request.param)
    with simulator_process() as simulator:
        configuration = CONFIGURATION.format(url=simulator.url, kind=request.param)
        with gateway_process(directory, configuration) as gateway:
            yield gateway, simulator, request.param


def send(gateway: Gateway, row: dict[str, Any]) -> http.client.HTTPResponse:
    """Send one captured request as it was, but for the masked credentials."""
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    body = body_of(row)
    connection.putrequest(row["method"], row["path"], skip_accept_encoding=True)
    for name, value in row["headers"]:
        connection.putheader(name, "secret-of-the-client" if value == "***" else value)
    if row["body"] is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_capture_gives_the_identity_it_expects(
    installation: tuple[Gateway, Simulated, str], path: Path
) -> None:
    """Source, session, parent and root of every recorded request are those expected of it.

    Requests that only their content can place are unattributed with ``resume = "off"``.
    """
    gateway, simulator, kind = installation
    for row in rows(path):
        simulator.script(row.get("reply") or {"text": "ok"})
        before = len(simulator.requests())
        response = send(gateway, row)
        expect = row["expect"]
        where = f"{path.name}:{row['n']}"
        if not expect["source"] or expect["source"] == "lineage":
            if response.headers.get("x-clew-resolution") is not None:
                assert response.headers["x-clew-resolution"] == "unattributed", where
            assert response.headers.get("x-clew-session") is None, where
            continue
        assert response.headers["x-clew-source"] == expect["source"], where
        assert response.headers["x-clew-session-id"] == expect["session"], where
        session = gateway.admin(f"/api/v1/sessions/{response.headers['x-clew-session']}")
        assert session["session_id"] == expect["session"], where
        _assert_tree(gateway, session, expect, where)
        received = simulator.requests()[before:]
        assert len(received) == 1, where
        _assert_same_request(row, received[0], kind, where)


def _assert_tree(
    gateway: Gateway, session: dict[str, Any], expect: dict[str, Any], where: str
) -> None:
    if expect["parent"] is None:
        assert session["parent_id"] is None, where
    else:
        parent = gateway.admin(f"/api/v1/sessions/{session['parent_id']}")
        assert parent["session_id"] == expect["parent"], where
    if expect.get("root"):
        root = gateway.admin(f"/api/v1/sessions/{session['root_id']}")
        assert root["session_id"] == expect["root"], where


def _assert_same_request(
    row: dict[str, Any], received: dict[str, Any], kind: str, where: str
) -> None:
    """The upstream got the body to the byte and every header but those that stay here."""
    assert base64.b64decode(received["body"]) == body_of(row), where
    sent = [
        (name, "secret-of-the-client" if value == "***" else value)
        for name, value in row["headers"]
        if name.lower() not in HOP_BY_HOP and not name.lower().startswith(REMOVED)
    ]
    got = [(name, value) for name, value in received["headers"] if name.lower() not in HOP_BY_HOP]
    if kind == "engine":
        google = [pair for pair in sent if pair[0].lower() == "x-goog-api-key"]
        sent = [pair for pair in sent if pair not in google]
    assert got == sent, where
