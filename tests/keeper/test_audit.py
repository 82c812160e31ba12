"""The audit chain as the keeper writes it: exactly once, before commands, over every death."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.journal.disks import FaultyDisk
from tests.journal.events import START_NS, dispatched, key_of, settled
from tests.keeper.auditing import INSTANCE, AuditHouse, refused

from clew.core.audit import seal
from clew.core.claim import SessionKey
from clew.keeper.audit import AuditLog
from clew.keeper.audit_files import AuditFiles
from clew.keeper.verbs import Verbs
from clew.store.schema import audit_salts


@pytest.fixture
def house(tmp_path: Path) -> AuditHouse:
    """A fresh one."""
    return AuditHouse(tmp_path)


def pairs(first: int, last: int) -> list[object]:
    """Whole attempts of one session."""
    return [event for n in range(first, last + 1) for event in (dispatched(n), settled(n))]


def names(first: int, last: int) -> list[str]:
    """Their request ids."""
    return [f"req_{n:06d}" for n in range(first, last + 1)]


def test_attempts_and_what_happens_to_sessions_are_recorded_once(house: AuditHouse) -> None:
    """One record each, over as many files as they take."""
    house.project(*pairs(1, 20))
    house.log.flush()

    assert house.attempts() == names(1, 20)
    assert [one["event"] for one in house.records() if one["type"] == "identity"] == ["opened"]
    assert house.records()[0]["type"] == "began"
    assert len(list(house.chain.iterdir())) > 2
    assert house.verify().fault is None


def test_no_record_holds_what_a_client_chose(house: AuditHouse) -> None:
    """Ids, paths and user agents are sealed or left out."""
    house.project(
        dispatched(1, "secret-run", parent="secret-parent", path="/v1/secret-path"), settled(1)
    )
    house.log.flush()
    text = b"".join(house.lines())

    assert b"secret" not in text
    assert key_of("secret-run").encode() not in text
    assert b"opencode/1.0" not in text


def test_equal_sessions_have_equal_seals_that_the_salt_opens(house: AuditHouse) -> None:
    """Who holds the store can say which session a record speaks of."""
    house.project(*pairs(1, 2))
    house.log.flush()
    salt = house.one(f"SELECT salt FROM audit_salts WHERE session = '{key_of('s1')}'")
    seals = {one["session"] for one in house.records() if one["type"] == "attempt"}

    assert seals == {seal(bytes(salt), key_of("s1"))}


def test_a_keeper_killed_before_the_files_were_written_loses_nothing(house: AuditHouse) -> None:
    """The store holds the lines until the files do."""
    house.project(*pairs(1, 5))
    house.start()

    assert house.attempts() == names(1, 5)
    assert house.verify().fault is None


def test_a_keeper_killed_after_the_files_were_written_doubles_nothing(house: AuditHouse) -> None:
    """The files hold the lines and the store does not know it yet."""
    house.project(*pairs(1, 5))
    rows = house.rows("SELECT instance, last_seq, lines FROM audit_outbox")
    before = house.ends()[1]
    house.log.flush()
    with house.engine.begin() as connection:
        for row in rows:
            clause = sa.text("INSERT INTO audit_outbox VALUES (:i, :n, :l)")
            connection.execute(clause, {"i": row[0], "n": row[1], "l": bytes(row[2])})
        connection.execute(
            sa.text("UPDATE audit_heads SET written_seq = :n, written_hash = :h"),
            {"n": before.seq, "h": before.hash},
        )
    house.start()

    assert house.attempts() == names(1, 5)
    assert house.verify().fault is None


@pytest.mark.parametrize("left", [1, 40, 300])
def test_a_torn_tail_is_written_again(house: AuditHouse, left: int) -> None:
    """Whatever a crash left behind the last synced record is replaced by the store's copy."""
    house.start(file_bytes=10**6)
    house.project(*pairs(1, 3))
    with house.engine.connect() as connection:
        lines = connection.exec_driver_sql("SELECT lines FROM audit_outbox").scalars().all()
    last = max(house.chain.iterdir())
    with last.open("ab") as file:
        file.write(b"".join(bytes(line) for line in lines)[:left])
    house.start()

    assert house.attempts() == names(1, 3)
    assert house.verify().fault is None


def test_a_projection_that_is_rolled_back_leaves_no_record(house: AuditHouse) -> None:
    """Row and line are one transaction, which is done again."""
    house.project(*pairs(1, 1))
    journal = house._journals[0]
    journal.append(*pairs(2, 2))
    with house.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_salts RENAME TO elsewhere")
    with pytest.raises(sa.exc.DBAPIError):
        house.keeper.run_pass()
    with house.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO audit_salts")
    house.keeper.run_pass()
    house.log.flush()

    assert house.attempts() == names(1, 2)
    assert house.verify().fault is None


def test_a_command_is_on_disk_before_it_is_carried_out(house: AuditHouse) -> None:
    """With everything that was recorded before it."""
    house.project(*pairs(1, 2))
    house.command("session.close", session=key_of("s1"), cascade=True, by="admin")

    last = house.records()[-1]
    assert (last["type"], last["command"]) == ("admin", "session.close")
    assert last["said"]["cascade"] is True
    assert house.attempts() == names(1, 2)
    assert house.commands_done == 1
    assert house.verify().fault is None


def test_what_waits_goes_to_the_files_in_parts(
    house: AuditHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far the files are behind, no more than one part of the lines is in memory."""
    monkeypatch.setattr("clew.store.audit.LINES_BYTES", 6_000)
    taken: list[int] = []
    append = AuditFiles.append

    def counted(files: AuditFiles, lines: Sequence[bytes]) -> None:
        taken.append(sum(map(len, lines)))
        append(files, lines)

    for n in range(1, 61):
        house.project(*pairs(n, n))
    monkeypatch.setattr(AuditFiles, "append", counted)
    house.command("session.close", session=key_of("s1"), cascade=True, by="admin")
    for n in range(61, 81):
        house.project(*pairs(n, n))
    with house.engine.begin() as connection:  # a command that finds lines of its own transaction
        house.log.write_ahead(connection, house.log.prepare(connection, "session.close", {}))

    assert len(taken) > 10
    assert max(taken) <= 6_000
    assert house.attempts() == names(1, 80)
    assert house.verify().fault is None


@pytest.mark.parametrize("fault", ["fails_sync", "fails_write"])
def test_a_command_whose_record_cannot_be_written_does_not_happen(
    house: AuditHouse, fault: str
) -> None:
    """It fails closed, and works again as soon as the disk does; nothing is restarted."""
    disk = FaultyDisk()
    house.start(disk)
    setattr(disk, fault, True)
    with refused():
        house.command("session.close", session=key_of("s1"))
    assert house.commands_done == 0
    house.project(*pairs(1, 3))
    house.log.flush()
    assert house.log.fault

    setattr(disk, fault, False)
    house.command("session.close", session=key_of("s1"))

    assert house.commands_done == 1
    assert not house.log.fault
    assert house.attempts() == names(1, 3)
    assert [one["type"] for one in house.records()].count("admin") == 1
    assert house.verify().fault is None


def test_a_directory_that_cannot_be_made_refuses_commands_only(tmp_path: Path) -> None:
    """Attempts wait in the store until the directory can be made."""
    (tmp_path / "audit").write_text("in the way")
    house = AuditHouse(tmp_path)
    house.project(*pairs(1, 2))
    with refused():
        house.command("session.close")
    (tmp_path / "audit").unlink()
    house.log.flush()

    assert house.attempts() == names(1, 2)
    assert house.records()[0]["type"] == "began"
    assert house.verify().fault is None


def test_a_command_lost_between_its_record_and_its_commit_is_called_detached(
    house: AuditHouse,
) -> None:
    """The line stays, and the next record says that the store does not know it."""
    connection = house.engine.connect()
    lost = connection.begin()
    record = house.log.prepare(connection, "session.forget", {"session": key_of("s1")})
    house.log.write_ahead(connection, record)
    lost.rollback()
    connection.close()
    house.start()
    house.project(*pairs(1, 2))
    house.log.flush()
    types = [one["type"] for one in house.records()]

    assert types[types.index("admin") + 1] == "detached"
    assert house.verify().detached == 1
    assert house.verify().fault is None
    assert house.attempts() == names(1, 2)


def test_a_restored_store_goes_on_behind_what_the_files_hold(house: AuditHouse) -> None:
    """Nothing on disk is cut; what the older store does not know is said."""
    house.project(*pairs(1, 3))
    house.log.flush()
    end = house.ends()[0]
    with house.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit_heads")
    house.start()
    house.project(*pairs(4, 4))
    house.log.flush()

    assert house.verify().fault is None
    assert house.verify().detached == end.seq
    assert house.attempts() == names(1, 4)


def test_missing_files_are_reported_for_ever_and_nothing_stops(house: AuditHouse) -> None:
    """The chain goes on in a file of its own; the check names what is missing."""
    house.project(*pairs(1, 3))
    house.log.flush()
    for path in house.chain.iterdir():
        path.unlink()
    house.start()
    house.project(*pairs(4, 4))
    house.log.flush()
    fault = house.verify().fault

    assert house.attempts() == names(4, 4)
    assert fault is not None
    assert "missing" in fault.reason


def test_damage_before_the_synced_end_is_left_as_it_is(house: AuditHouse) -> None:
    """It is evidence: the chain goes on behind it and the check names it."""
    house.start(file_bytes=10**6)
    house.project(*pairs(1, 3))
    house.log.flush()
    path = max(house.chain.iterdir())
    damaged = path.read_bytes().replace(b'"status":200', b'"status":201', 1)
    path.write_bytes(damaged)
    house.start(file_bytes=10**6)
    house.project(*pairs(4, 4))
    house.log.flush()

    assert path.read_bytes() == damaged
    assert house.attempts()[-1] == "req_000004"
    assert house.verify().fault is not None


def test_forgetting_keeps_the_chain_and_opens_no_seal(house: AuditHouse) -> None:
    """The salt is gone with the names; the same id opens a session with other seals."""
    house.project(*pairs(1, 2))
    house.log.flush()
    before = {one["session"] for one in house.records() if one["type"] == "attempt"}

    def derive(principal: object, alias: object) -> SessionKey:
        return key_of("s1")

    with house.engine.begin() as connection:
        record = house.log.prepare(connection, "session.forget", {"session": key_of("s1")})
        Verbs(connection, derive, os.urandom, START_NS + 10**12, "admin").forget(key_of("s1"))
        house.log.write_ahead(connection, record)
    assert record.said["session"] in before
    assert house.rows(f"SELECT salt FROM audit_salts WHERE session = '{key_of('s1')}'") == []
    late = {"at_ns": START_NS + 2 * 10**12}
    house.project(dispatched(9, **late), settled(9))
    house.log.flush()
    after = {one["session"] for one in house.records() if one.get("request_id") == "req_000009"}

    assert after
    assert not after & before
    assert house.verify().fault is None


def test_forgetting_a_session_forgets_what_was_merged_into_it(house: AuditHouse) -> None:
    """Else the merged one's seals would still name it."""
    house.project(dispatched(1, "a"), settled(1), dispatched(2, "b"), settled(2))

    def derive(principal: object, alias: object) -> SessionKey:
        return key_of("a")

    with house.engine.begin() as connection:
        verbs = Verbs(connection, derive, os.urandom, START_NS + 10**12, "admin")
        verbs.merge(key_of("a"), key_of("b"))
        verbs.forget(key_of("b"))
        left = connection.execute(sa.select(audit_salts.c.session)).scalars().all()

    assert not {key_of("a"), key_of("b")} & set(left)


def test_a_keeper_waits_for_the_one_before_it_to_leave(house: AuditHouse) -> None:
    """Two of them would each take their own end of the chain for its end."""
    house.project(*pairs(1, 2))
    log = AuditLog(house.engine, AuditFiles(house.chain), INSTANCE)
    log.open()
    log.flush()
    assert log.fault
    house.log.close()
    log.flush()

    assert not log.fault
    assert house.attempts() == names(1, 2)
    assert house.verify().fault is None


def test_old_files_are_retired_and_the_chain_says_so(house: AuditHouse) -> None:
    """Whole files only, oldest first, and never the one that is written."""
    clock = [0.0]
    house.start(retention_s=60.0, monotonic=lambda: clock[0])
    house.project(*pairs(1, 20))
    house.log.flush()
    paths = sorted(house.chain.iterdir())
    for path in paths[:2]:
        os.utime(path, ns=(house.now_ns - 10**12,) * 2)
    for path in paths[2:]:
        os.utime(path, ns=(house.now_ns,) * 2)
    clock[0] = 1_000.0
    house.log.attend()

    assert not paths[0].exists()
    assert not paths[1].exists()
    assert paths[2].exists()
    assert house.verify().fault is None
    assert house.verify().first > 1


def test_the_files_are_their_owners_alone(house: AuditHouse) -> None:
    """Mode 0600, in a directory of 0700."""
    house.log.flush()

    assert house.chain.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in house.chain.iterdir()} == {0o600}


def test_a_late_outcome_is_a_record_of_its_own(house: AuditHouse) -> None:
    """The unsettled attempt stays on record as it was."""
    house.project(dispatched(1))
    house._journals[0].end()
    house.keeper.run_pass()
    late = house.journal("gateway0-2")
    late.append(settled(1))
    house.keeper.run_pass()
    house.log.flush()
    states = [one["state"] for one in house.records() if one["type"] == "attempt"]

    assert states == ["unsettled", "settled"]
    assert json.loads(house.lines()[-1])["record"]["status"] == 200
