"""The audit chain: whole as written, broken by whatever else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.audit import (
    START,
    Attempt,
    Began,
    Detached,
    Did,
    File,
    Happened,
    Point,
    Record,
    Retired,
    Verdict,
    chain,
    read_line,
    seal,
    seal_fields,
    verify,
)

RECORDS: list[Record] = [
    Began(1, "here", "1"),
    *(Attempt(n, f"req_{n}", 1, "settled", "local", 200, session="ab" * 16) for n in range(40)),
    Happened(50, "opened", "ab" * 16, after={"session_id": "cd" * 16}),
    Did(51, "session.close", {"session": "ab" * 16, "cascade": False}),
]
END, LINES = chain(START, RECORDS)


def files(lines: Sequence[bytes], sizes: Sequence[int] = (15, 20)) -> list[File]:
    """The lines as three files, each named by the first number that was meant for it."""
    found, at = [], 0
    for size in (*sizes, len(lines)):
        found.append(File(f"audit-{at + 1:012d}.jsonl", at + 1, lines[at : at + size]))
        at += size
    return [file for file in found if file.lines]


def check(lines: Sequence[bytes], **options: Point | None) -> Verdict:
    """The verdict on lines that a head at the end was exported of."""
    data = b"".join(lines)
    parts = data.split(b"\n")
    again = [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    return verify(files(again), [END], **options)


def flip(lines: list[bytes], rng: random.Random) -> None:
    """One bit, anywhere."""
    at = rng.randrange(len(lines))
    line = bytearray(lines[at])
    line[rng.randrange(len(line))] ^= 1 << rng.randrange(8)
    lines[at] = bytes(line)


def drop(lines: list[bytes], rng: random.Random) -> None:
    """One record or a run of them."""
    at = rng.randrange(len(lines))
    del lines[at : at + rng.randrange(1, 4)]


def insert(lines: list[bytes], rng: random.Random) -> None:
    """A record more: a copy, or a new one with hashes that fit."""
    at = rng.randrange(len(lines))  # behind the head nothing tells a forger from the keeper
    if rng.random() < 0.5:
        lines.insert(at, rng.choice(lines))
        return
    before = START if at == 0 else read_line(lines[at - 1][:-1])
    point = before if isinstance(before, Point) else before.at  # type: ignore[union-attr]  # LINES are whole
    lines.insert(at, chain(point, [Did(rng.randrange(99), "session.forget")])[1][0])


def reorder(lines: list[bytes], rng: random.Random) -> None:
    """Two records change places."""
    one, other = rng.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]


def cut(lines: list[bytes], rng: random.Random) -> None:
    """The tail, at any byte."""
    data = b"".join(lines)
    kept = data[: rng.randrange(len(data))]
    parts = kept.split(b"\n")
    lines[:] = [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def rewrite(lines: list[bytes], rng: random.Random) -> None:
    """A record is changed and every hash after it made to fit."""
    at = rng.randrange(len(lines))
    changed = list(RECORDS)
    changed[at] = Did(rng.randrange(10**6, 10**7), "session.merge")
    lines[:] = chain(START, changed)[1]


@pytest.mark.parametrize("mutate", [flip, drop, insert, reorder, cut, rewrite])
def test_every_mutation_is_found(
    mutate: Callable[[list[bytes], random.Random], None],
) -> None:
    """10,000 in all, each on a chain whose head somebody kept."""
    rng = random.Random(mutate.__name__)
    for _ in range(1_700):
        lines = list(LINES)
        mutate(lines, rng)
        assert check(lines).fault is not None


def test_a_chain_as_written_is_whole() -> None:
    """Over three files, with the head that was exported at its end."""
    verdict = check(LINES)

    assert verdict.fault is None
    assert (verdict.records, verdict.first, verdict.end) == (len(LINES), 1, END)


def test_the_first_bad_record_is_named() -> None:
    """By file, line and number."""
    lines = list(LINES)
    lines[17] = lines[17].replace(b"200", b"201")

    fault = check(lines).fault

    assert fault is not None
    assert (fault.file, fault.line, fault.seq) == ("audit-000000000016.jsonl", 3, 18)


def test_records_cross_from_file_to_file() -> None:
    """A file in the middle that is gone breaks the chain."""
    without = [file for number, file in enumerate(files(LINES)) if number != 1]

    assert verify(without).fault is not None


def test_a_cut_tail_needs_somebody_who_knew_it() -> None:
    """Without a head a shorter chain is a whole one; the store's word finds it too."""
    assert verify(files(LINES[:-1])).fault is None
    assert verify(files(LINES[:-1]), [END]).fault is not None
    assert verify(files(LINES[:-1]), durable=END).fault is not None


def test_a_torn_line_behind_what_is_durable_is_a_crash() -> None:
    """What the store still holds may be half written; anything before that may not."""
    durable = read_line(LINES[-2][:-1])
    assert not isinstance(durable, str)
    torn = [*LINES[:-1], LINES[-1][:20]]

    assert verify(files(torn), durable=durable.at).is_torn
    assert verify(files(torn), durable=durable.at).fault is None
    assert verify(files(torn), durable=END).fault is not None
    assert verify(files(torn)).fault is not None


def test_old_records_may_go_when_the_chain_says_so() -> None:
    """The record names the last one that went, by number and hash."""
    gone = read_line(LINES[14][:-1])
    assert not isinstance(gone, str)
    end, more = chain(END, [Retired(60, gone.at.seq, gone.at.hash)])
    left = files([*LINES, *more])[1:]

    assert verify(left).fault is None
    assert verify(left, [gone.at]).fault is None
    assert verify(files(LINES)[1:]).fault is not None
    _, other = chain(END, [Retired(60, gone.at.seq, "0" * 64)])
    assert verify(files([*LINES, *other])[1:]).fault is not None
    assert end.seq == len(LINES) + 1


def test_a_head_older_than_what_is_left_proves_nothing() -> None:
    """And says so, instead of passing."""
    gone = read_line(LINES[14][:-1])
    assert not isinstance(gone, str)
    _, more = chain(END, [Retired(60, gone.at.seq, gone.at.hash)])
    fault = verify(files([*LINES, *more])[1:], [Point(3, "ab" * 32)]).fault

    assert fault is not None
    assert "older" in fault.reason


def test_records_the_store_lost_are_counted() -> None:
    """They stay in the chain, called by their numbers."""
    _, more = chain(END, [Detached(60, 43, 43)])

    assert verify(files([*LINES, *more])).detached == 1


def test_nothing_at_all_is_whole_unless_there_was_something() -> None:
    """An empty directory is a chain that has not begun."""
    assert verify([]).fault is None
    assert verify([], [END]).fault is not None
    assert verify([], durable=END).fault is not None


@given(st.binary(max_size=300))
def test_any_bytes_are_read_as_a_reason(data: bytes) -> None:
    """Whatever stands in a file, reading it never raises."""
    assert isinstance(read_line(data), str)
    assert verify([File("audit-000000000001.jsonl", 1, [data + b"\n"])]).fault is not None


def test_a_line_is_json_anybody_can_read() -> None:
    """Number, hash before, record, hash."""
    found = json.loads(LINES[1])

    assert list(found) == ["seq", "prev", "record", "hash"]
    assert found["record"]["type"] == "attempt"
    assert found["record"]["request_id"] == "req_0"


def test_names_are_sealed_and_what_no_table_names_is_left_out() -> None:
    """A session's key by its own salt, its names by that of the session they belong to."""
    salts = {"cs_a": b"1" * 16, "cs_b": b"2" * 16}
    fields = {"session": "cs_a", "into": "cs_b", "alias": "my-run", "by": "admin", "cascade": True}

    found = seal_fields({**fields, "tags": {"k": "v"}, "note": "my-run"}, salts["cs_a"], salts)

    assert found == {
        "session": seal(salts["cs_a"], "cs_a"),
        "into": seal(salts["cs_b"], "cs_b"),
        "alias": seal(salts["cs_a"], "my-run"),
        "by": "admin",
        "cascade": True,
    }
    assert seal(salts["cs_a"], "my-run") != seal(salts["cs_b"], "my-run")
