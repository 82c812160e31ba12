"""What becomes of bindings when a worker, a gateway or the claims are lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.e2e.affinity import (
    LEASE_S,
    STORES,
    Answer,
    Place,
    call,
    final,
    in_parallel,
    place_of,
    wait_ready,
)
from tests.e2e.installation import Installation, wait_until

RESTART_LEASE_S = 10
SESSIONS = [f"s{number}" for number in range(12)]
Stand = tuple[int, str, int]


def stands(host: Installation, sessions: list[str]) -> dict[str, Stand]:
    """Status, worker and epoch of each session, asked here."""
    found: list[Answer] = in_parallel(sessions, lambda session: call(host, session))
    return {
        session: (one.status, one.worker, one.epoch)
        for session, one in zip(sessions, found, strict=True)
    }


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def binds(place: Place) -> dict[str, Stand]:
    """Some sessions, each bound by one of the installations."""
    found: dict[str, Stand] = {}
    for index, session in enumerate(SESSIONS):
        found |= stands(place.hosts[index % len(place.hosts)], [session])
    assert {status for status, _, _ in found.values()} == {200}
    return found


@pytest.mark.parametrize("kind", STORES)
def test_a_rolling_restart_loses_no_session(kind: str, tmp_path: Path) -> None:
    """Each leaves in turn, the first for longer than the lease (file: three), and comes back."""
    with place_of(tmp_path, kind) as place:
        before = binds(place)
        for host in place.hosts:
            assert host.stop() == 0
            if host is place.hosts[0]:
                time.sleep(LEASE_S * (3 if kind == "file" else 1) + 1)
            for other in place.hosts:
                if other is not host:
                    assert stands(other, SESSIONS) == before
            host.start()
            wait_ready(host)

        assert [stands(host, SESSIONS) for host in place.hosts] == [before] * 3


@pytest.mark.parametrize("kind", STORES)
def test_a_killed_gateway_that_is_back_within_the_lease_loses_nothing(
    kind: str, tmp_path: Path
) -> None:
    """Supervisor and children killed at once; its sessions are as they were, also meanwhile."""
    with place_of(tmp_path, kind, hosts=2, lease_s=RESTART_LEASE_S) as place:
        before = binds(place)
        place.hosts[0].kill_everything()
        assert stands(place.hosts[1], SESSIONS) == before
        place.hosts[0].start()
        wait_ready(place.hosts[0])

        assert [stands(host, SESSIONS) for host in place.hosts] == [before] * 2


@pytest.mark.parametrize("kind", STORES)
def test_what_a_lost_gateway_bound_has_expired_everywhere(kind: str, tmp_path: Path) -> None:
    """Never bound anew in silence: 409 on each, also on who returns; a new id works."""
    with place_of(tmp_path, kind) as place:
        lost, *others = place.hosts
        assert call(lost, "lost").status == 200
        kept = call(others[0], "kept")
        lost.kill_everything()
        for host in others:
            wait_until(lambda host=host: call(host, "lost").status == 409, 4 * LEASE_S, "expiry")
        lost.start()
        wait_ready(lost)

        for host in place.hosts:
            refused = call(host, "lost")
            assert (refused.status, refused.error) == (409, "session_claim_expired")
            assert "start a new session with a new id" in refused.text
            assert call(host, "kept").worker == kept.worker
            assert call(host, f"new-{host.directory.name}").binding == "new"
        assert ("lost", "session_claim_expired") in _events(others[0], "lost")


def _events(host: Installation, session: str) -> list[tuple[str, str]]:
    """Type and reason of what happened to a session."""
    host.settle()
    items = host.gateway.admin(f"/api/v1/sessions/{session}/events")["items"]
    return [(one["type"], one["reason"]) for one in items]


@pytest.mark.parametrize("kind", STORES)
def test_a_stopped_gateway_does_not_serve_what_expired(kind: str, tmp_path: Path) -> None:
    """It stood still for longer than the lease (file: three); when it goes on it asks first."""
    with place_of(tmp_path, kind, hosts=2) as place:
        one, other = place.hosts
        assert call(one, "stopped").status == 200
        with stopped(one.pid("gateway")):
            wait_until(lambda: call(other, "stopped").status == 409, 5 * LEASE_S, "expiry")

        refused = call(one, "stopped")
        assert (refused.status, refused.error) == (409, "session_claim_expired")
        wait_until(lambda: call(one, "afterwards").status == 200, 5, "new sessions")


@pytest.mark.parametrize("kind", ["memory", *STORES])
def test_a_lost_worker_is_told(kind: str, tmp_path: Path) -> None:
    """Right after the first failure: 409 with what to do, on record, for good."""
    with place_of(tmp_path, kind, hosts=1 if kind == "memory" else 2) as place:
        first, *_ = [call(host, "loses") for host in place.hosts]
        worker = place.worker(first.worker)
        worker.kill()
        assert call(place.hosts[0], "loses").error in (
            "upstream_unreachable",
            "session_worker_lost",
        )
        # A second where nothing else runs; `test_workers.py` reads it off the gateway's own clock.
        wait_until(lambda: call(place.hosts[0], "loses").status == 409, 5, "the loss is known")
        worker.start()
        wait_ready(place.hosts[0])

        for host in place.hosts:
            refused = call(host, "loses")
            assert (refused.status, refused.error) == (409, "session_worker_lost")
            assert "start a new session with a new id" in refused.text
        assert ("lost", "session_worker_lost") in _events(place.hosts[0], "loses")
        (row,) = place.hosts[0].gateway.admin("/api/v1/bindings?state=lost")["items"]
        assert (row["session_id"], row["worker"]) == ("loses", first.worker)


@pytest.mark.parametrize(
    ("kind", "binding"),
    [("memory", "rebind"), ("file", "rebind"), ("etcd", "rebind"), ("file", "prefer")],
)
def test_a_lost_worker_moves_its_sessions_once(kind: str, binding: str, tmp_path: Path) -> None:
    """To one other worker, with one higher epoch on every gateway, and on record."""
    hosts = 1 if kind == "memory" else 2
    with place_of(tmp_path, kind, hosts=hosts, binding=binding) as place:
        here = place.hosts[0]
        first, *_ = [call(host, "moves") for host in place.hosts]
        worker = place.worker(first.worker)
        worker.kill()
        wait_until(lambda: call(here, "moves").status == 200, 2, "a new place")
        moved = call(here, "moves")
        worker.start()
        wait_ready(here)

        assert moved.worker != first.worker
        assert moved.epoch > first.epoch
        stand = (200, moved.worker, moved.epoch)
        assert [stands(host, ["moves"])["moves"] for host in place.hosts] == [stand] * hosts
        assert _events(here, "moves")[1:] == [
            ("bound", "least_loaded"),
            ("rebound", "worker_lost"),
        ]


@pytest.mark.parametrize("kind", STORES)
def test_an_expired_claim_is_bound_again_with_a_higher_epoch(kind: str, tmp_path: Path) -> None:
    """Under ``rebind``: where it was, because that serves, and every gateway says the same."""
    with place_of(tmp_path, kind, hosts=2, binding="rebind") as place:
        lost, other = place.hosts
        first = call(lost, "again")
        lost.kill_everything()

        wait_until(lambda: call(other, "again").epoch > first.epoch, 5 * LEASE_S, "a new claim")
        now = call(other, "again")
        lost.start()
        wait_ready(lost)

        assert now.worker == first.worker
        assert stands(lost, ["again"])["again"] == (200, now.worker, now.epoch)
        assert ("bound", "claim_expired") in _events(other, "again")


@pytest.mark.parametrize("outage", ["refuse", "unbound"])
def test_while_etcd_is_away_known_sessions_are_served(outage: str, tmp_path: Path) -> None:
    """New ones are refused or served unbound, as configured; afterwards all is as it was."""
    with place_of(tmp_path, "etcd", hosts=1, on_outage=outage) as place:
        (host,) = place.hosts
        assert place.etcd is not None
        known = call(host, "known")
        place.etcd.kill()
        wait_until(lambda: call(host, "known").status == 200, 5, "the known session is served")

        new = call(host, "new")
        if outage == "refuse":
            assert (new.status, new.error) == (503, "claims_unavailable")
        else:
            assert (new.status, new.binding, new.epoch) == (200, "unbound", 0)
        part = _part(host)  # the second that a report takes
        assert part["ready"] is (outage == "unbound")
        assert "gateway 0" in part["reason"]
        place.etcd.start()
        wait_until(lambda: call(host, "later").binding == "new", 5, "new sessions are bound")
        again = call(host, "known")
        assert again.status == 409 or again.worker == known.worker


def _part(host: Installation) -> dict[str, object]:
    """What `/ready` says of the claims, once it says anything."""

    def read() -> dict[str, object]:
        answer = httpx.get(f"{host.gateway.admin_url}/ready", timeout=10).json()
        return answer["parts"]["claims"]

    return wait_until(lambda: (found := read())["reason"] and found, 5, "the reason")


def test_memory_binds_again_what_the_store_remembers(tmp_path: Path) -> None:
    """After a restart: held by the same worker with a higher epoch; closed stays closed."""
    with place_of(tmp_path, "memory", hosts=1) as place:
        (host,) = place.hosts
        before = {session: call(host, session) for session in SESSIONS}
        final(host, SESSIONS[0])
        assert host.stop() == 0
        host.start()
        wait_ready(host)

        assert call(host, SESSIONS[0]).error == "session_closed"
        for session in SESSIONS[1:]:
            after = call(host, session)
            assert (after.worker, after.binding) == (before[session].worker, "held")
            assert after.epoch > before[session].epoch
        assert _events(host, SESSIONS[1])[1:] == [("bound", "least_loaded"), ("bound", "recorded")]
        assert "bindings are immutable: a session whose worker or claim is lost ends" in host.log
