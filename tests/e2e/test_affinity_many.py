"""Who shares bindings: processes of one installation, hosts on one store, parents, principals."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.e2e.affinity import (
    LEASE_S,
    STORES,
    Answer,
    call,
    configuration,
    final,
    in_parallel,
    place_of,
    wait_ready,
)
from tests.e2e.engines import engines
from tests.e2e.installation import Installation, wait_until
from tests.store.postgresql import server_process

SESSIONS = [f"s{number}" for number in range(40)]
SOON_S = 2.0
SECRET = {"CLEW_SECRET": "0123456789abcdef0123456789abcdef"}


@pytest.mark.parametrize("kind", STORES)
def test_processes_of_one_installation_share_its_claims(kind: str, tmp_path: Path) -> None:
    """Many connections, so both processes: one worker a session, a close known to both."""
    with place_of(tmp_path, kind, hosts=2, processes=2) as place:
        one, other = place.hosts
        with ThreadPoolExecutor(16) as pool:
            found: list[Answer] = list(pool.map(lambda name: call(one, name), SESSIONS * 4))
        assert {answer.status for answer in found} == {200}
        workers = {
            session: {(answer.worker, answer.epoch) for answer in found[index :: len(SESSIONS)]}
            for index, session in enumerate(SESSIONS)
        }
        assert {len(stand) for stand in workers.values()} == {1}

        final(one, SESSIONS[0])
        time.sleep(SOON_S)
        again = in_parallel([SESSIONS[0]] * 16, lambda name: call(one, name))
        assert {answer.error for answer in again} == {"session_closed"}

        # Both leave at once, and both hand over.
        assert one.stop() == 0
        time.sleep(LEASE_S * (3 if kind == "file" else 1) + 1)
        for session in SESSIONS[1:]:
            answer = call(other, session)
            assert workers[session] == {(answer.worker, answer.epoch)}


def test_memory_and_several_processes_are_refused(tmp_path: Path) -> None:
    """They could not see each other's claims: exit 2, naming the keys."""
    with engines(tmp_path, 1) as workers:
        file = tmp_path / "clew.toml"
        file.write_text(configuration("memory", workers, processes=2))
        command = [sys.executable, "-m", "clew.command", "serve", "-c", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 2
    assert "claims.store" in done.stderr


def test_hosts_on_one_store_agree(tmp_path: Path) -> None:
    """Claims in etcd, sessions in one PostgreSQL: one binding, shown by both, closed for both."""
    with server_process() as server:
        more = f'[store]\nurl = "{server.database()}"'
        with place_of(tmp_path, "etcd", hosts=2, more=more, environment=SECRET) as place:
            one, other = place.hosts
            first = call(one, "shared")
            second = call(other, "shared")
            assert (second.worker, second.epoch) == (first.worker, first.epoch)
            for host in place.hosts:
                host.settle()
            for host in place.hosts:
                (row,) = host.gateway.admin("/api/v1/bindings")["items"]
                assert (row["session_id"], row["worker"]) == ("shared", first.worker)
                assert (row["epoch"], row["state"]) == (first.epoch, "bound")
            final(other, "shared")
            wait_until(lambda: call(one, "shared").error == "session_closed", SOON_S)


@pytest.mark.parametrize("subagents", ["own", "with_parent"])
def test_a_subagent_is_placed_as_configured(subagents: str, tmp_path: Path) -> None:
    """With its parent, also where another gateway bound that; or as any other session."""
    with place_of(tmp_path, "file", hosts=2, subagents=subagents) as place:
        parent = call(place.hosts[0], "parent")
        children = [
            call(place.hosts[index % 2], f"child-{index}", x_dynamo_parent_session_id="parent")
            for index in range(6)
        ]

    workers = {child.worker for child in children}
    assert {child.binding for child in children} == {"new"}
    if subagents == "with_parent":
        assert workers == {parent.worker}
    else:
        assert len(workers) == 3


def test_a_final_request_that_failed_closes_nothing(tmp_path: Path) -> None:
    """The retry after an upstream's error is admitted, served by the same worker, and closes."""
    with place_of(tmp_path, "file", hosts=2) as place:
        here, other = place.hosts
        first = call(here, "retried")
        failed = final(here, "retried", x_sim_error="503")
        assert failed.status == 503
        assert call(other, "retried").status == 200
        again = final(here, "retried")
        assert (again.status, again.worker) == (200, first.worker)

        assert call(here, "retried").error == "session_closed"
        wait_until(lambda: call(other, "retried").error == "session_closed", SOON_S)


def test_another_principals_session_is_untouched(tmp_path: Path) -> None:
    """Equal ids of two principals are two bindings; the close of one is not the other's."""
    more = '[auth]\nmode = "keys"'
    with place_of(tmp_path, "file", hosts=1, more=more) as place:
        (host,) = place.hosts
        ann, bob = (_key(host, name) for name in ("ann", "bob"))
        wait_until(lambda: call(host, "probe", x_clew_key=bob).status == 200, SOON_S)
        mine = call(host, "same", x_clew_key=ann)
        theirs = call(host, "same", x_clew_key=bob)
        assert (mine.binding, theirs.binding) == ("new", "new")
        final(host, "same", x_clew_key=bob)
        final(host, "never-mine", x_clew_key=bob)

        still = call(host, "same", x_clew_key=ann)
        assert (still.status, still.worker, still.binding) == (200, mine.worker, "held")
        assert call(host, "same", x_clew_key=bob).error == "session_closed"
        assert call(host, "never-mine", x_clew_key=ann).binding == "new"
        host.settle()
        items = host.gateway.admin("/api/v1/bindings?state=closed")["items"]
        assert {row["principal"] for row in items} == {"bob"}


def _key(host: Installation, principal: str) -> str:
    gateway = host.gateway
    made = httpx.post(
        f"{gateway.admin_url}/api/v1/keys",
        headers={"authorization": f"Bearer {gateway.token}"},
        json={"principal": principal},
        timeout=10,
    )
    key: str = made.raise_for_status().json()["key"]
    return key


def test_claims_change_with_a_restart_only(tmp_path: Path) -> None:
    """A reload of affinity itself is taken: bindings stay, the new terms hold."""
    with place_of(tmp_path, "file", hosts=1) as place:
        (host,) = place.hosts
        first = call(host, "reloaded")
        host.file.write_text(
            configuration(place.store, place.workers, binding="rebind", place="round_robin")
        )
        host.supervisor.send_signal(1)
        wait_until(lambda: _is_moved(host, "reloaded"), 5, "the new terms")
        assert call(host, "reloaded").worker == first.worker
        wait_ready(host)


def _is_moved(host: Installation, session: str) -> bool:
    name = f"{session}-{time.monotonic_ns()}"
    call(host, name)
    host.settle()
    (record,) = host.gateway.admin(f"/api/v1/sessions/{name}/requests")["items"]
    return bool(record["placed_by"] == "round_robin")
