"""Reading journals back: prefixes, torn tails, and files that are not ours."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clew.journal.frame import HEADER_BYTES, build_header, frame_record, seed_of
from clew.journal.reader import Position, list_incarnations, list_strangers, read_forward

NAME = "gateway0-17"
PAYLOADS = st.lists(st.binary(min_size=1, max_size=200), max_size=12)


def write_segment(directory: Path, number: int, payloads: list[bytes], room: int = 0) -> Path:
    """A segment as the writer leaves it, with ``room`` preallocated bytes behind."""
    seed = seed_of(NAME)
    body = b"".join(frame_record(payload, seed) for payload in payloads)
    path = directory / f"{NAME}.{number:06d}"
    path.write_bytes(build_header(number, 17) + body + bytes(room))
    return path


def read_all(directory: Path, step: int = 1000) -> list[bytes]:
    """All records, read ``step`` at a time."""
    (incarnation,) = list_incarnations(directory)
    position, found = Position(), []
    while True:
        span = read_forward(incarnation, position, step)
        found += span.payloads
        position = span.position
        if span.is_at_end:
            return found


@given(PAYLOADS, PAYLOADS, st.integers(1, 5), st.integers(0, 64))
def test_what_was_appended_is_read_in_order(
    one: list[bytes], two: list[bytes], step: int, room: int
) -> None:
    """Whatever the sizes, the step and the preallocated rest."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_segment(directory, 0, one, room)
        write_segment(directory, 1, two, room)

        assert read_all(directory, step) == one + two


@given(PAYLOADS, st.data())
def test_any_truncation_leaves_a_prefix(payloads: list[bytes], data: st.DataObject) -> None:
    """A tail that a crash cut is left out; nothing before it suffers."""
    with tempfile.TemporaryDirectory() as name:
        path = write_segment(Path(name), 0, payloads)
        whole = path.read_bytes()
        cut = data.draw(st.integers(HEADER_BYTES, len(whole)))
        path.write_bytes(whole[:cut])

        found = read_all(Path(name))

        assert found == payloads[: len(found)]
        lost = sum(8 + len(payload) for payload in payloads[len(found) :])
        assert lost == 0 or cut < len(whole)


@given(PAYLOADS.filter(bool), st.data())
def test_a_flipped_bit_ends_the_read_before_it(payloads: list[bytes], data: st.DataObject) -> None:
    """Damage is never handed on as a record."""
    with tempfile.TemporaryDirectory() as name:
        path = write_segment(Path(name), 0, payloads)
        raw = bytearray(path.read_bytes())
        at = data.draw(st.integers(HEADER_BYTES, len(raw) - 1))
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(raw)

        found = read_all(Path(name))

        assert found == payloads[: len(found)]
        assert len(found) < len(payloads)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A record appended later is found from the old position."""
    write_segment(tmp_path, 0, [b"one"], room=100)
    (incarnation,) = list_incarnations(tmp_path)
    before = read_forward(incarnation, Position(), 10)
    write_segment(tmp_path, 0, [b"one", b"two"], room=100)

    after = read_forward(incarnation, before.position, 10)

    assert after.payloads == [b"two"]


def test_an_empty_prepared_segment_is_not_gone_to(tmp_path: Path) -> None:
    """The writer may still append to the present one."""
    write_segment(tmp_path, 0, [b"one"], room=100)
    write_segment(tmp_path, 1, [], room=100)
    (incarnation,) = list_incarnations(tmp_path)

    assert read_forward(incarnation, Position(), 10).position.segment == 0


def test_a_torn_tail_is_reported_and_what_follows_is_read(tmp_path: Path) -> None:
    """A segment given up in the middle of a write does not hide the next one."""
    path = write_segment(tmp_path, 0, [b"one", b"two"])
    path.write_bytes(path.read_bytes()[:-1])
    write_segment(tmp_path, 1, [b"two", b"three"])
    (incarnation,) = list_incarnations(tmp_path)

    span = read_forward(incarnation, Position(), 10)

    assert span.payloads == [b"one", b"two", b"three"]
    assert span.faults == (f"{NAME}.000000: torn",)


def test_a_newer_format_is_reported_and_not_read(tmp_path: Path) -> None:
    """A downgrade reads nothing wrong and deletes nothing."""
    path = write_segment(tmp_path, 0, [b"one"])
    raw = bytearray(path.read_bytes())
    raw[8] = 99
    path.write_bytes(raw)
    (incarnation,) = list_incarnations(tmp_path)

    span = read_forward(incarnation, Position(), 10)

    assert (span.payloads, span.faults) == ([], (f"{NAME}.000000: future",))
    assert path.exists()


def test_a_foreign_file_is_reported(tmp_path: Path) -> None:
    """What bears a segment's name need not be one; other files are strangers."""
    (tmp_path / f"{NAME}.000000").write_bytes(b"x" * 200)
    (tmp_path / "notes.txt").write_text("mine")
    (incarnation,) = list_incarnations(tmp_path)

    assert read_forward(incarnation, Position(), 10).faults == (f"{NAME}.000000: foreign",)
    assert list_strangers(tmp_path) == ["notes.txt"]


def test_records_of_another_incarnation_do_not_pass(tmp_path: Path) -> None:
    """Checksums start from the incarnation's own value."""
    record = frame_record(b"theirs", seed_of("gateway0-16"))
    (tmp_path / f"{NAME}.000000").write_bytes(build_header(0, 17) + record)

    assert read_all(tmp_path) == []


def test_a_locked_journal_is_owned(tmp_path: Path) -> None:
    """The lock tells whether its process may still write."""
    write_segment(tmp_path, 0, [])
    (incarnation,) = list_incarnations(tmp_path)
    assert not incarnation.is_owned()
    with (tmp_path / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert incarnation.is_owned()


def test_incarnations_are_listed_oldest_first(tmp_path: Path) -> None:
    """By the time of their start, whatever their names."""
    for name in ("gateway1-9", "gateway0-10", "gateway0-8"):
        (tmp_path / f"{name}.000000").write_bytes(b"")

    assert [inc.started_ns for inc in list_incarnations(tmp_path)] == [8, 9, 10]


def test_a_process_name_may_have_a_hyphen(tmp_path: Path) -> None:
    """The start time is what follows the last one."""
    (tmp_path / "gateway-0-12.000003").write_bytes(b"")

    (found,) = list_incarnations(tmp_path)

    assert (found.name, found.started_ns, found.segments) == ("gateway-0-12", 12, (3,))
