"""``resume = "recency"`` through running processes; its guards one by one are in `tests.model`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.processes import Gateway, Simulated, gateway_process, simulator_process
from tests.e2e.test_lineage import CONFIGURATION, chat, user

AGENT = {"user-agent": "Kilo-Code/5.1"}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A simulator of this module's own."""
    with simulator_process() as running:
        yield running


def ask(gateway: Gateway, text: str, **ids: str) -> dict[str, str]:
    """One first request of a client; the response's headers."""
    headers = AGENT | {name.replace("_", "-"): value for name, value in ids.items()}
    response, _ = chat(gateway, [user(text)], **headers)
    return dict(response.headers)


def test_sessions_go_on_over_restarts_of_client_and_gateway(
    simulator: Simulated, tmp_path: Path
) -> None:
    """A header that rotates, one that appears, a gateway that knows its sessions from the store."""
    configuration = CONFIGURATION.format(resume="recency", url=simulator.url)
    with gateway_process(tmp_path, configuration) as gateway:
        first = ask(gateway, "one", x_session_affinity="n1")
        rotated = ask(gateway, "two", x_session_affinity="n2")
        stable = ask(gateway, "three", x_session_affinity="n2", x_lore_session_id="s1")
    with gateway_process(tmp_path, configuration) as gateway:
        again = ask(gateway, "four", x_session_affinity="n3")
        later = ask(gateway, "five", x_session_affinity="n9", x_lore_session_id="s1")
        child = ask(gateway, "six", x_session_affinity="n4", x_parent_session_id="n3")
        other = ask(gateway, "seven", x_lore_session_id="s2", x_session_affinity="n5")
        third = ask(gateway, "eight", x_session_affinity="n6")

    found = [first, rotated, stable, again, later, child, other, third]
    labels = [one["x-clew-resolution"] for one in found]
    sessions = [one["x-clew-session"] for one in found]
    assert labels == ["new", "resumed", "migrated", "resumed", "exact", "new", "new", "new"]
    assert len(set(sessions[:5])) == 1
    assert stable["x-clew-source"] == later["x-clew-source"] == "lore"
    assert len(set(sessions[4:])) == 4
