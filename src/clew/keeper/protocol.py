"""The keeper's socket: length-prefixed MessagePack messages over one unix stream a peer.

A frame is four bytes of big-endian length, then one message. A gateway says `Hello` and gets the
snapshot (recent sessions, newest first, the last part marked), then numbered deltas which it
acknowledges. `Ask` is answered by `Answer` of the same number; answers may overtake one another.
A `Command` (`keeper.commands`) changes something and is answered by its `Result`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from clew.core.cache_break import Turn
from clew.core.claim import Claim, Principal, SessionKey
from clew.core.keys import Key
from clew.core.limits import Left, Who
from clew.core.lineage.blocks import Conversation, Reply

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""Bounds what a peer can make the other hold; a snapshot is sent in parts below it."""


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What a gateway must know of a session to serve it without asking."""

    key: SessionKey
    principal: Principal
    session_id: str
    parent: SessionKey | None
    parent_id: str
    """The parent's external id as first claimed; empty without parent."""
    root: SessionKey
    is_closed: bool
    aliases: tuple[tuple[str, str], ...]
    """(family, value) of every alias that names it."""
    is_placeholder: bool = False
    """Named as a parent, never seen itself: its first own request opens it."""
    families: tuple[str, ...] = ()
    """Families of which it has a durable thread id."""
    bindings: tuple[tuple[str, str, str, int], ...] = ()
    """(upstream, phase, worker, epoch) of what it was bound to when this was read."""
    gone: tuple[tuple[str, str], ...] = ()
    """(family, value) of ids that named it and name nothing now; what a delta takes away."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """First message of every peer; ``role`` is ``gateway`` or ``web``."""

    role: str
    name: str


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """Which session is this? For aliases the gateway does not know."""

    number: int
    principal: Principal
    claim: Claim
    at_ns: int
    api: str = ""
    conversation: Conversation | None = None
    """The request's content as digests, where content may say whose it is."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The session of an `Ask`. ``known`` is None when the claim names none."""

    number: int
    known: Known | None
    resolution: str
    """exact | migrated | resumed | new | unattributed"""
    source: str = ""
    flags: tuple[str, ...] = ()
    node: int = 0
    """The lineage node the request took; 0: none, or a side call."""
    is_side: bool = False
    """A call about the session, not a turn of it."""
    is_unnamed: bool = False
    """The request's own id does not name this session: it must not be remembered for it."""
    is_child: bool = False
    """A subagent by its content alone."""
    forked_from: SessionKey | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()


class Told(msgspec.Struct, frozen=True, array_like=True, tag="told"):
    """What became of a request that content was weighed for; answered by `Passed` once kept."""

    number: int
    principal: Principal
    claim: Claim
    api: str
    session: SessionKey
    node: int
    reply: Reply | None
    """The relayed answer; None: the attempt failed and its node may be taken again."""


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """A part of the sessions known at ``sequence``."""

    sequence: int
    known: tuple[Known, ...]
    is_last: bool


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    """One session changed; ``sequence`` counts up by one."""

    sequence: int
    known: Known


class Acknowledge(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """The gateway has applied every delta up to ``sequence``."""

    sequence: int


class Barrier(msgspec.Struct, frozen=True, array_like=True, tag="barrier"):
    """Project everything that is in the journals now, then answer `Passed`."""

    number: int


class Passed(msgspec.Struct, frozen=True, array_like=True, tag="passed"):
    """Answers `Barrier`."""

    number: int


class Command(msgspec.Struct, frozen=True, array_like=True, tag="do"):
    """Change something: ``name`` is a row of `keeper.commands.COMMANDS`."""

    number: int
    name: str
    arguments: dict[str, Any]
    """Plain MessagePack values, as the command's function reads them."""


class Result(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """Answers `Command`. ``error`` is a code of `core.errors`, empty when it was carried out."""

    number: int
    ok: bool
    value: Any = None
    error: str = ""
    detail: str = ""
    """What the error's sentence should say instead of the table's; may be empty."""


class KeySnapshot(msgspec.Struct, frozen=True, array_like=True, tag="keys"):
    """A part of every gateway key that is not revoked, at ``sequence``.

    The parts come one after the other, no delta between them; together they replace what a
    gateway knew.
    """

    sequence: int
    keys: tuple[Key, ...]
    is_first: bool
    is_last: bool


class KeyDelta(msgspec.Struct, frozen=True, array_like=True, tag="key"):
    """Gateway keys changed, together; ``sequence`` is counted and acknowledged as a `Delta`'s."""

    sequence: int
    keys: tuple[Key, ...]


class KeysUsed(msgspec.Struct, frozen=True, array_like=True, tag="used"):
    """Gateway keys (ids) that were used since the gateway last said so."""

    ids: tuple[str, ...]
    at_ns: int


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A call that a limit or budget covers, before its dispatch. ``id`` is the request's."""

    number: int
    id: str
    who: Who
    vendor: str
    model: str
    prompt_bytes: int
    max_output_tokens: int | None


class Admit(msgspec.Struct, frozen=True, array_like=True, tag="admit"):
    """May these calls be dispatched? All that one gateway asks in one turn of its loop."""

    journal: str
    """The incarnation of the journal that will hold their intents."""
    requests: tuple[Request, ...]


class Admission(msgspec.Struct, frozen=True, array_like=True):
    """The word about one `Request`."""

    number: int
    is_held: bool = False
    """Not decided yet: it waits for calls in flight, and another word follows."""
    error: str = ""
    """A code of `core.errors` where it was refused."""
    detail: str = ""
    retry_after_s: int = 0
    grant: str = ""
    """What its intent must carry; empty where nothing has to be settled."""
    flags: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()


class Admitted(msgspec.Struct, frozen=True, array_like=True, tag="admitted"):
    """Answers to `Admit`; each request's comes when it is decided."""

    admissions: tuple[Admission, ...]


class Release(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """Grants whose calls are not dispatched."""

    grants: tuple[str, ...]


class Prompted(msgspec.Struct, frozen=True, array_like=True, tag="prompt"):
    """What the prompt of a call was like, and what the upstream's cache did; nobody answers."""

    request_id: str
    attempt: int
    principal: Principal
    session: SessionKey
    turn: Turn
    survived_s: float = 0.0
    """The longest pause that the gateway saw this upstream's cache outlive for this model."""


class Lost(msgspec.Struct, frozen=True, array_like=True, tag="lost"):
    """A session was refused, because its worker or its claim is gone; nobody answers."""

    session: SessionKey
    upstream: str
    reason: str
    """The error's code."""
    at_ns: int


ToKeeper = (
    Hello
    | Ask
    | Told
    | Acknowledge
    | Barrier
    | Command
    | KeysUsed
    | Admit
    | Release
    | Prompted
    | Lost
)
FromKeeper = Answer | Snapshot | Delta | Passed | Result | KeySnapshot | KeyDelta | Admitted

encode: Final = msgspec.msgpack.Encoder().encode
decode_to_keeper: Final = msgspec.msgpack.Decoder(ToKeeper).decode
decode_from_keeper: Final = msgspec.msgpack.Decoder(FromKeeper).decode


def frame(message: ToKeeper | FromKeeper) -> bytes:
    """One message as it goes on the socket."""
    body = encode(message)
    return len(body).to_bytes(4, "big") + body


class Frames:
    """Cuts a byte stream into message bodies. Raises ValueError on an oversize frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Bodies completed by ``data``, in order."""
        self._buffer += data
        found: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= 4:
            size = int.from_bytes(self._buffer[start : start + 4], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {size} bytes is over the bound")
            if len(self._buffer) - start - 4 < size:
                break
            found.append(bytes(self._buffer[start + 4 : start + 4 + size]))
            start += 4 + size
        del self._buffer[:start]
        return found
