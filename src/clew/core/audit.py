"""The audit chain: what a record says, how each is bound to the one before it, what breaks it.

One record is one line of JSON: ``{"seq":N,"prev":"…","record":{…},"hash":"…"}``. ``hash`` is the
SHA-256 of the line's own bytes before ``,"hash"``, which hold the number and the hash of the line
before. So a changed byte, a record left out, put in or moved is found at the first line that does
not fit; a tail that was cut off is found by a head that somebody kept elsewhere (`Head`).

No record holds content, a credential, or a name that a client chose: sessions stand there as seals
(`seal`), which mean nothing without a salt that `clew forget` removes. The chain stays whole then.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

GENESIS: Final = "0" * 64
"""What stands before the first record."""
SEAL_BYTES: Final = 16
MAX_LINE_BYTES: Final = 64 * 1024
"""Longer is damage: each field of a record is bounded far below."""

_LINE: Final = re.compile(
    rb'\{"seq":([1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})","record":(\{.*\}),"hash":"([0-9a-f]{64})"\}'
)
_TAIL_BYTES: Final = len(b',"hash":""}') + 64

Value = str | int | bool | None


class Began(msgspec.Struct, frozen=True, tag="began"):
    """The chain of an installation begins."""

    at_ns: int
    instance: str
    version: str


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The keeper started again."""

    at_ns: int
    version: str


class Attempt(msgspec.Struct, frozen=True, tag="attempt", omit_defaults=True):
    """One attempt's envelope; durations are microseconds, money is nano-dollars.

    An attempt that was left unsettled and then got its outcome has a second record.
    """

    at_ns: int
    """When the request was received."""
    request_id: str
    attempt: int
    state: str
    principal: str
    status: int
    session: str = ""
    """Sealed."""
    root: str = ""
    """Sealed."""
    team: str = ""
    project: str = ""
    source: str = ""
    resolution: str = ""
    kind: str = ""
    transport: str = ""
    method: str = ""
    api: str = ""
    upstream: str = ""
    worker: str = ""
    binding: str = ""
    epoch: int | None = None
    model: str = ""
    error: str = ""
    total_us: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    billing: str = ""
    billed_nanousd: int | None = None
    imputed_nanousd: int | None = None
    price_version: str = ""
    request_bytes: int = 0
    response_bytes: int = 0
    client_disconnected: bool = False
    final: bool = False
    flags: tuple[str, ...] = ()


class Happened(msgspec.Struct, frozen=True, tag="identity", omit_defaults=True):
    """Something happened to a session: opened, aliased, migrated, resumed, forked, closed…"""

    at_ns: int
    event: str
    session: str
    """Sealed."""
    reason: str = ""
    before: dict[str, Value] = {}
    """Sealed, but for what names nobody."""
    after: dict[str, Value] = {}
    evidence: int = 0
    """How many blocks proved it; their digests stand in the store alone."""


class Did(msgspec.Struct, frozen=True, tag="admin", omit_defaults=True):
    """A command that changed something; on disk before it was carried out."""

    at_ns: int
    command: str
    said: dict[str, Value] = {}
    """Its arguments; sessions and their names sealed, anything unknown left out."""


class Retired(msgspec.Struct, frozen=True, tag="retired"):
    """Records up to ``through`` may be missing: they were older than the retention."""

    at_ns: int
    through: int
    hash: str
    """Of record ``through``."""


class Detached(msgspec.Struct, frozen=True, tag="detached"):
    """The store does not know records ``first`` to ``last``.

    Their transaction was lost in a crash after they were written, or the store was restored from
    an older backup; then attempts may stand here a second time.
    """

    at_ns: int
    first: int
    last: int


Record = Began | Started | Attempt | Happened | Did | Retired | Detached

_encode: Final = msgspec.json.Encoder().encode
_decode_notes: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Point(NamedTuple):
    """A place in a chain: a record's number and its hash."""

    seq: int
    hash: str


START: Final = Point(0, GENESIS)


class Head(msgspec.Struct, frozen=True):
    """A chain's end as it was at some moment, for somebody else to keep."""

    instance: str
    seq: int
    hash: str
    at: str
    """RFC 3339."""


def seal(salt: bytes, value: str) -> str:
    """A name as the chain shows it: 32 hex digits, equal for equal names of one session."""
    digest = hmac.digest(salt, value.encode("utf-8", "surrogatepass"), "sha256")
    return digest[:SEAL_BYTES].hex()


def chain(after: Point, records: Iterable[Record]) -> tuple[Point, list[bytes]]:
    """The records as lines that follow ``after``, each with its line feed, and the new end."""
    seq, previous = after
    lines: list[bytes] = []
    for record in records:
        seq += 1
        body = b'{"seq":%d,"prev":"%b","record":%b' % (seq, previous.encode(), _encode(record))
        previous = hashlib.sha256(body).hexdigest()
        lines.append(b'%b,"hash":"%b"}\n' % (body, previous.encode()))
    return Point(seq, previous), lines


class Link(NamedTuple):
    """A line that is whole in itself."""

    at: Point
    previous: str
    record: bytes


def read_line(line: bytes) -> Link | str:
    """A line without its line feed; what is wrong with it where it is not whole in itself."""
    if len(line) > MAX_LINE_BYTES:
        return "the line is too long"
    found = _LINE.fullmatch(line)
    if found is None:
        return "the line is not a record"
    expected = found[4].decode()
    if hashlib.sha256(line[:-_TAIL_BYTES]).hexdigest() != expected:
        return "the hash is not that of the line"
    return Link(Point(int(found[1]), expected), found[2].decode(), found[3])


class Fault(msgspec.Struct, frozen=True):
    """The first record at which a chain is broken."""

    file: str
    line: int
    """From 1; 0: the file as a whole."""
    seq: int
    """The number that stands or should stand there."""
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """What a chain's check found."""

    records: int
    first: int
    """Number of the first record; 0: there is none."""
    end: Point
    fault: Fault | None = None
    detached: int = 0
    """Records that the store does not know (`Detached`)."""
    is_torn: bool = False
    """An incomplete line follows the last record that had to be there: a crash leaves one, and the
    next start of the keeper takes it away."""


class File(NamedTuple):
    """One file of a chain: its name, the number its name promises, its bytes by lines."""

    name: str
    first: int
    lines: Iterable[bytes]
    """With their line feeds."""


def verify(
    files: Iterable[File], pins: Sequence[Point] = (), *, durable: Point | None = None
) -> Verdict:
    """Check a chain from its first record to its last.

    ``pins`` are places it must contain: exported heads. ``durable`` is how far the store says that
    the files reach; an incomplete line behind it is no fault.
    """
    checker = _Checker(pins, durable)
    return checker.run(files)


class _Checker:
    """One pass over a chain."""

    def __init__(self, pins: Sequence[Point], durable: Point | None) -> None:
        self._durable = durable
        self._pins = pins
        self._wanted: dict[int, list[tuple[str, str]]] = {}
        for pin in pins:
            self._want(pin, "it is not the record of the head that was kept")
        if durable is not None:
            self._want(durable, "it is not the record that the store knows")
        self._first: Link | None = None
        self._end = START
        self._records = 0
        self._detached = 0
        self._retired: set[Point] = set()
        self._name = ""

    def run(self, files: Iterable[File]) -> Verdict:
        is_torn = False
        for file in files:
            self._name = file.name
            if is_torn:
                return self._broken(0, "the file before it ends inside a line")
            if self._end is not START and file.first != self._end.seq + 1:
                return self._broken(0, f"the file does not begin with record {self._end.seq + 1}")
            number = 0
            for number, line in enumerate(file.lines, 1):
                if not line.endswith(b"\n"):
                    is_torn = True
                    break
                reason = self._take(line[:-1])
                if reason:
                    return self._broken(number, reason)
            if is_torn and not self._reaches_durable():
                return self._broken(number, "the line is incomplete")
        return self._judge_ends(is_torn=is_torn)

    def _take(self, line: bytes) -> str:
        link = read_line(line)
        if isinstance(link, str):
            return link
        if self._first is None:
            self._first = link
            if link.at.seq == 1 and link.previous != GENESIS:
                return "the first record follows another one"
        elif link.at.seq != self._end.seq + 1:
            return f"record {link.at.seq} stands where {self._end.seq + 1} should"
        elif link.previous != self._end.hash:
            return "it does not follow the record before it"
        for wanted, reason in self._wanted.get(link.at.seq, ()):
            if wanted != link.at.hash:
                return reason
        self._note(link.record)
        self._end = link.at
        self._records += 1
        return ""

    def _want(self, at: Point, reason: str) -> None:
        self._wanted.setdefault(at.seq, []).append((at.hash, reason))

    def _note(self, record: bytes) -> None:
        if not record.startswith((b'{"type":"retired"', b'{"type":"detached"')):
            return
        found = _decode_notes(record)
        if found["type"] == "retired":
            self._retired.add(Point(found["through"], found["hash"]))
        else:
            self._detached += found["last"] - found["first"] + 1

    def _reaches_durable(self) -> bool:
        return self._durable is not None and self._end.seq >= self._durable.seq

    def _judge_ends(self, *, is_torn: bool) -> Verdict:
        """What can be missing before the first line or after the last."""
        first = self._first
        before = Point(first.at.seq - 1, first.previous) if first is not None else START
        for reason in self._missing(before):
            return self._broken(0, reason)
        return self._verdict(None, is_torn=is_torn)

    def _missing(self, before: Point) -> Iterator[str]:
        if before.seq and before not in self._retired:
            yield f"records 1 to {before.seq} are missing, and nothing says that they were retired"
        for pin in self._pins:
            if pin.seq > self._end.seq:
                yield f"the chain ends at {self._end.seq}, before the head at {pin.seq}"
            if pin.seq < before.seq:
                yield f"the head at {pin.seq} is older than what is left; keep a newer one"
            if pin.seq == before.seq and pin.hash != before.hash:
                yield "the first record does not follow the head that was kept"
        if self._durable is not None and self._durable.seq > self._end.seq:
            yield f"the chain ends at {self._end.seq}; the store knows {self._durable.seq} on disk"

    def _broken(self, line: int, reason: str) -> Verdict:
        return self._verdict(Fault(self._name, line, self._end.seq + 1, reason))

    def _verdict(self, fault: Fault | None, *, is_torn: bool = False) -> Verdict:
        first = self._first.at.seq if self._first is not None else 0
        return Verdict(self._records, first, self._end, fault, self._detached, is_torn)


PLAIN: Final = frozenset(
    {
        *("source", "worker", "upstream", "epoch", "binding", "reason", "phase"),
        *("by", "principal", "team", "project", "key_id", "successor"),
    }
)
"""Fields that name no session: their texts stand in the chain as they are."""
SESSIONS: Final = frozenset({"session", "into", "parent", "root", "target"})
"""Fields whose value is a session's key: sealed by that session's own salt."""
NAMES: Final = frozenset({"session_id", "value", "alias", "name"})
"""Fields whose value a client chose: sealed by the salt of the session they belong to."""
MAX_TEXT_CHARS: Final = 256


def seal_fields(
    fields: Mapping[str, Any], own: bytes | None, salts: Mapping[str, bytes]
) -> dict[str, Value]:
    """What may stand in the chain of some fields: the three tables above decide.

    ``own`` is the salt of the session the fields belong to. Numbers and truth values stay; what no
    table names is left out.
    """
    found: dict[str, Value] = {}
    for name, value in fields.items():
        if isinstance(value, bool | int):
            found[name] = value
        elif not isinstance(value, str) or not value:
            continue
        elif name in SESSIONS:
            found[name] = seal(salts[value], value) if value in salts else ""
        elif name in NAMES and own is not None:
            found[name] = seal(own, value)
        elif name in PLAIN:
            found[name] = value[:MAX_TEXT_CHARS]
    return found
