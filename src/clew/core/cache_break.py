"""Why a call found less in the upstream's cache than the call before it left there.

A prompt is seen as its blocks in the order in which engines cache them: tools, system, messages.
Each block is a *mark*: one byte of kind and eight bytes of keyed digest, never its text. Comparing
the marks of two calls of one session tells at which block the prefix stopped being the same.

What an upstream holds for a session is what the last call found there and wrote there, by its own
figures. A call that finds clearly less is a break, and the first cause in `CAUSES` that fits is
named. An upstream that reports no cached tokens has no breaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from clew.core.apis.content import MAX_BODY_BYTES
from clew.core.lineage.blocks import Digester

MARK_BYTES: Final = 9
MAX_MARKS: Final = 4_096
"""36 KiB of a session; what a prompt has beyond it is not compared."""
FEWEST_LOST_TOKENS: Final = 32
"""Less is the rounding of a cache's own blocks."""
LOST_SHARE: Final = 10
"""And less than one part in so many."""
LIFETIMES_S: Final[Mapping[str, float]] = {"anthropic": 300.0, "openai": 300.0, "chatgpt": 300.0}
"""How long a vendor keeps a prefix for certain, by its documentation; others are learnt."""
LONG_LIFETIME_S: Final = 3_600.0
"""Where the one-hour rate was paid for."""


class Kind(StrEnum):
    """What a block is, by the byte of its mark."""

    TOOLS = "t"
    SYSTEM = "s"
    REMINDER = "r"
    """A user's text wrapped whole in one tag: what clients inject beside what was typed."""
    USER = "u"
    ASSISTANT = "a"
    RESULT = "o"


_LETTERS: Final = {kind: kind.value.encode() for kind in Kind}


class Cause(StrEnum):
    """Why; in the order in which they are tried."""

    MODEL = "model"
    WORKER = "worker"
    COMPACTION = "compaction"
    PREFIX = "prefix"
    GAP = "gap"
    EVICTED = "evicted"


class Break(msgspec.Struct, frozen=True, array_like=True):
    """A call that found less than was held."""

    cause: Cause
    lost_tokens: int
    idle_s: int
    """Seconds since the call before it was received."""
    kind: str = ""
    """Of a changed prefix: tools | system | reminder | edit."""
    block: int | None = None
    """Of a changed prefix: the first block that differs, from 0, tools first."""


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """One call as far as caches go. Times are Unix nanoseconds."""

    at_ns: int
    upstream: str
    vendor: str
    worker: str
    model: str
    cached_tokens: int
    written_tokens: int
    """Cache writes; ``written_1h_tokens`` of them at the one-hour rate."""
    written_1h_tokens: int
    marks: bytes
    is_compaction: bool = False
    """The call itself makes the summary that replaces the history."""

    @property
    def held_tokens(self) -> int:
        """What the upstream held for the session when the call had ended."""
        return self.cached_tokens + self.written_tokens


# --- marks -------------------------------------------------------------------------------------
#
# A body is cut into its blocks without being turned into objects: a block is the bytes the client
# wrote. Who says the same thing twice writes it in the same way; engines see no more than that.


class _Shape(NamedTuple):
    """Where an API's prompt stands in its body."""

    tools: tuple[str, ...]
    system: tuple[str, ...]
    messages: str


_SHAPES: Final[Mapping[str, _Shape]] = {
    "chat": _Shape(("tools", "functions"), (), "messages"),
    "responses": _Shape(("tools",), ("instructions",), "input"),
    "messages": _Shape(("tools",), ("system",), "messages"),
    "gemini": _Shape(("tools",), ("systemInstruction", "system_instruction"), "contents"),
}
_ROLES: Final[Mapping[Any, Kind]] = {
    "system": Kind.SYSTEM,
    "developer": Kind.SYSTEM,
    "assistant": Kind.ASSISTANT,
    "model": Kind.ASSISTANT,
    "tool": Kind.RESULT,
    "function": Kind.RESULT,
}
_TYPES: Final[Mapping[Any, Kind]] = {
    "function_call_output": Kind.RESULT,
    "custom_tool_call_output": Kind.RESULT,
    "function_call": Kind.ASSISTANT,
    "custom_tool_call": Kind.ASSISTANT,
    "reasoning": Kind.ASSISTANT,
}
_NOTHING: Final = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    """A message, or an item of Responses: who speaks, its parts, and what it says beside them."""

    role: Any = None
    type: Any = None
    content: msgspec.Raw = _NOTHING
    parts: msgspec.Raw = _NOTHING
    tool_calls: msgspec.Raw = _NOTHING
    tool_call_id: msgspec.Raw = _NOTHING
    call_id: msgspec.Raw = _NOTHING
    name: msgspec.Raw = _NOTHING
    arguments: msgspec.Raw = _NOTHING
    output: msgspec.Raw = _NOTHING
    encrypted_content: msgspec.Raw = _NOTHING


class _Holder(msgspec.Struct):
    """A system instruction that has parts (Gemini)."""

    parts: list[msgspec.Raw]


_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_decode_holder: Final = msgspec.json.Decoder(_Holder).decode

_MARKER: Final = b'"cache_control"'
_MARKERS: Final = re.compile(
    rb',\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)|"cache_control"\s*:\s*(?:\{[^{}]*\}|null)\s*,?'
)
_TEXT_HEAD: Final = re.compile(
    rb'\{\s*(?:"type"\s*:\s*"(?:input_|output_)?text"\s*,\s*)?"text"\s*:\s*(?=")'
)
_RESULTS: Final = (b'"tool_result"', b'"functionResponse"')
_HEAD_BYTES: Final = 80
"""Where a part says what it is, if it is a result."""
_WRAPPED: Final = re.compile(rb'"(?:\\n|\s)*<([a-zA-Z][\w-]{0,63})[^<>]{0,200}>')
_VOLATILE: Final = b'"x-anthropic-billing-header:'
"""A line that Claude Code puts first and that changes with every call; no cache counts it."""


def prompt_marks(api: str, body: bytes, digester: Digester) -> bytes:
    """The marks of a request body, one after the other; empty where there are none.

    Never raises: a body may be anything. At most `MAX_MARKS` marks.
    """
    shape = _SHAPES.get(api)
    if shape is None or len(body) > MAX_BODY_BYTES:
        return b""
    try:
        fields = _decode_fields(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""
    found = bytearray()
    key = digester.digest(b"prompt marks", b"")
    for kind, content in islice(_blocks(fields, shape), MAX_MARKS):
        found += _LETTERS[kind]
        found += blake2b(content, digest_size=MARK_BYTES - 1, key=key).digest()
    return bytes(found)


def _blocks(fields: Mapping[str, msgspec.Raw], shape: _Shape) -> Iterator[tuple[Kind, bytes]]:
    for field in shape.tools:
        for tool in _listed(fields.get(field)):
            yield Kind.TOOLS, _content(tool)
    for field in shape.system:
        for part in _listed(fields.get(field)):
            content = _content(part)
            if not content.startswith(_VOLATILE):
                yield Kind.SYSTEM, content
    messages = bytes(fields.get(shape.messages, b""))
    try:
        said = _decode_messages(messages)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        for part in _listed(messages):
            yield Kind.USER, _content(part)
        return
    for message in said:
        yield from _message(message)


def _message(message: _Message) -> Iterator[tuple[Kind, bytes]]:
    """A message's parts, then what it says beside them (calls, ids of what it answers)."""
    kind = _kind_of(message)
    for part in _listed(message.content or message.parts):
        content = _content(part)
        if kind is not Kind.USER:
            if kind is not Kind.SYSTEM or not content.startswith(_VOLATILE):
                yield kind, content
        elif _is_result(content):
            yield Kind.RESULT, content
        else:
            yield Kind.REMINDER if _is_wrapped(content) else Kind.USER, content
    if message.tool_calls or message.call_id or message.tool_call_id or message.encrypted_content:
        rest = (
            *(message.tool_calls, message.tool_call_id, message.call_id, message.name),
            *(message.arguments, message.output, message.encrypted_content),
        )
        yield kind, b"\0".join(rest)


def _is_result(content: bytes) -> bool:
    if content[:1] == b'"':
        return False  # a text
    head = content[:_HEAD_BYTES]
    return any(sign in head for sign in _RESULTS)


def _kind_of(message: _Message) -> Kind:
    try:
        return _TYPES.get(message.type) or _ROLES.get(message.role, Kind.USER)
    except TypeError:  # an object or a list where a word should be
        return Kind.USER


def _listed(raw: bytes | msgspec.Raw | None) -> list[Any]:
    """The values of a list, of an object's ``parts``, or the one value that stands there."""
    data = bytes(raw) if raw else b""
    first = data.lstrip()[:1]
    try:
        if first == b"[":
            return _decode_list(data)
        if first == b"{" and b'"parts"' in data[:_HEAD_BYTES]:
            return _decode_holder(data).parts
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return [] if first in (b"", b"n") else [data]


def _content(part: bytes | msgspec.Raw) -> bytes:
    """A part's bytes without cache markers; a text is the same as a part or alone."""
    data = bytes(part)
    if _MARKER in data:
        data = _MARKERS.sub(b"", data)
    head = _TEXT_HEAD.match(data)
    if head is not None and data.endswith(b'"}'):
        return data[head.end() : -1]
    return data


def _is_wrapped(text: bytes) -> bool:
    """Whether a JSON string is one tag and what it encloses."""
    if text[:1] != b'"' or b"<" not in text[:_HEAD_BYTES]:
        return False
    opened = _WRAPPED.match(text)
    if opened is None:
        return False
    end = text[:-1].rstrip()
    while end.endswith(b"\\n"):
        end = end[:-2].rstrip()
    return end.endswith(b"</" + opened[1] + b">")


# --- causes ------------------------------------------------------------------------------------


class _Case(NamedTuple):
    """What the causes look at."""

    before: Turn
    now: Turn
    same: int
    """Marks that both begin with."""
    idle_s: float
    survived_s: float
    was_compacted: bool

    @property
    def is_changed(self) -> bool:
        """Whether the prompt goes on otherwise than the one before; more of it is no change."""
        return bool(self.before.marks and self.now.marks) and self.same < _size(self.before.marks)


def has_fallen(held_tokens: int, cached_tokens: int) -> bool:
    """Whether a call found clearly less than was held for its session."""
    lost = held_tokens - cached_tokens
    return lost >= FEWEST_LOST_TOKENS and lost * LOST_SHARE >= held_tokens


def attribute(
    before: Turn, now: Turn, *, survived_s: float = 0.0, was_compacted: bool = False
) -> Break | None:
    """The break that ``now`` is against the call before it; None where it is none.

    ``survived_s`` is the longest pause that this upstream's cache is known to have outlived;
    ``was_compacted``: a call between the two made a summary of the session.
    """
    if not has_fallen(before.held_tokens, now.cached_tokens):
        return None
    lost = before.held_tokens - now.cached_tokens
    idle_s = max((now.at_ns - before.at_ns) / 1e9, 0.0)
    same = _common(before.marks, now.marks)
    case = _Case(before, now, same, idle_s, survived_s, was_compacted)
    cause = next(cause for cause, fits in CAUSES if fits(case))
    if cause is not Cause.PREFIX:
        return Break(cause, lost, int(idle_s))
    return Break(cause, lost, int(idle_s), _what_changed(case), same)


def _is_model(case: _Case) -> bool:
    names = (case.before.model, case.now.model)
    return all(names) and names[0] != names[1]


def _is_worker(case: _Case) -> bool:
    before, now = case.before, case.now
    return (before.upstream, before.worker) != (now.upstream, now.worker)


def _is_compaction(case: _Case) -> bool:
    """The history was replaced by something much shorter, or right after a call for that."""
    if not case.is_changed or _kind_at(case.before.marks, case.same) in (Kind.TOOLS, Kind.SYSTEM):
        return case.was_compacted and case.is_changed
    before, now = _said(case.before.marks), _said(case.now.marks)
    return case.was_compacted or (before >= 6 and now * 2 <= before)


def _is_gap(case: _Case) -> bool:
    lifetime_s = LIFETIMES_S.get(case.before.vendor)
    if lifetime_s is None:
        return case.idle_s > case.survived_s
    if case.before.written_1h_tokens:
        lifetime_s = LONG_LIFETIME_S
    return case.idle_s >= lifetime_s


CAUSES: Final[Sequence[tuple[Cause, Callable[[_Case], bool]]]] = (
    (Cause.MODEL, _is_model),
    (Cause.WORKER, _is_worker),
    (Cause.COMPACTION, _is_compaction),
    (Cause.PREFIX, lambda case: case.is_changed),
    (Cause.GAP, _is_gap),
    (Cause.EVICTED, lambda _case: True),
)


def _what_changed(case: _Case) -> str:
    """By the first block that differs: whichever of the two is nearer to the beginning."""
    before, now = case.before.marks, case.now.marks
    kinds = {_kind_at(before, case.same), _kind_at(now, case.same)}
    for kind, name in (
        (Kind.TOOLS, "tools"),
        (Kind.SYSTEM, "system"),
        (Kind.REMINDER, "reminder"),
    ):
        if kind in kinds:
            return name
    return "edit"


def _common(one: bytes, other: bytes) -> int:
    """Marks that both begin with."""
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size // MARK_BYTES
    low, high = 0, size // MARK_BYTES  # equal up to low, not up to high
    while high - low > 1:
        middle = (low + high) // 2
        end = middle * MARK_BYTES
        if one[low * MARK_BYTES : end] == other[low * MARK_BYTES : end]:
            low = middle
        else:
            high = middle
    return low


def _size(marks: bytes) -> int:
    return len(marks) // MARK_BYTES


def _kind_at(marks: bytes, place: int) -> Kind | None:
    at = place * MARK_BYTES
    return Kind(chr(marks[at])) if at < len(marks) else None


def _said(marks: bytes) -> int:
    """Blocks of messages: neither tools nor system."""
    kinds = marks[::MARK_BYTES]
    return len(kinds) - kinds.count(b"t") - kinds.count(b"s")
