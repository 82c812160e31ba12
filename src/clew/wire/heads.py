"""Decides whether a block of bytes is one HTTP/1.1 head, and how long its body is. No I/O.

One strict expression reads every field line; a line it does not match makes the count differ and
the head is refused. Then one look-up in the role table per field finds those that frame the
message or rule the connection; each role's rule is one short function. Nothing is repaired: a
message that two readers could understand differently (RFC 9112 section 11.2) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

from clew.wire.faults import WireError
from clew.wire.limits import Limits, PoolLimits

__all__ = [
    "HOP_BY_HOP",
    "Framing",
    "FramingKind",
    "HeadShape",
    "RequestHead",
    "ResponseHead",
    "ResponseShape",
    "ResponseShapes",
    "WireError",
    "end_to_end",
    "hop_fields",
    "parse_request_head",
    "parse_response_head",
]

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(
    rb"(?:\r\n)?(" + TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])\r\n"
)
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n"
)
_FIELDS: Final = re.compile(rb"(?<=\n)(" + TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n")
_FIELD_LINES: Final = re.compile(rb"(?<=\n)((" + TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n)")
FIELD_LINE: Final = re.compile(TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")
"""One field line without its end, as in a trailer section."""
ILLEGAL_BYTE: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
"""What no head may hold anywhere: seen early, a head that can never end is refused at once."""
_TOKEN: Final = re.compile(TOKEN)
_MAX_DIGITS: Final = 18
"""Of a length: no body has more bytes than that."""
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]{0,5})?"
)
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?@]+)([/?].*)?")
_LONG_LINE: Final = re.compile(rb"(?:\r\n)?" + TOKEN + rb" [\x21-\x7e]*")

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields of one connection only (RFC 9110 section 7.6.1); those Connection lists come on top."""


class FramingKind(IntEnum):
    """How a body's end is known."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    """By the end of the connection: responses only."""


class Framing(msgspec.Struct, frozen=True):
    """How a message's body is delimited; ``length`` in bytes, only with ``LENGTH``."""

    kind: FramingKind
    length: int | None = None

    @property
    def has_body(self) -> bool:
        """Whether at least one byte of body may follow the head."""
        return self.kind is not FramingKind.NONE and self.length != 0


MAX_SHAPES: Final = 256
"""Response shapes remembered, at most 64 KiB of names each: far more than upstreams have."""

NO_BODY: Final = Framing(FramingKind.NONE)
CHUNKED: Final = Framing(FramingKind.CHUNKED)
UNTIL_CLOSE: Final = Framing(FramingKind.CLOSE)


class HeadShape:
    """What equal heads share: the place of their length, and what was concluded from them."""

    __slots__ = ("admitted_by", "decision", "length_index")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        names = [name for name, _ in headers]
        self.length_index = names.index(b"content-length") if b"content-length" in names else -1
        self.decision: object = None
        """The handler's own; the wire never looks at it."""
        self.admitted_by: object = None
        """The handler's own, too."""


class ResponseShape:
    """What responses with the same field names share. An upstream sends few different ones."""

    __slots__ = ("decision", "index", "is_plain", "lowered", "roles")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.lowered = tuple(name.lower() for name in names)
        """The names in lower case, in order."""
        self.index: dict[bytes, int] = {}
        """Where each name stands first."""
        for index, name in enumerate(self.lowered):
            self.index.setdefault(name, index)
        self.roles = tuple(
            (index, name) for index, name in enumerate(self.lowered) if name in _ROLES
        )
        """The places of the fields that frame the message or rule its connection."""
        met = {name for _, name in self.roles}
        self.is_plain = len(met) == len(self.roles) and not met & _TWINS
        """Each of them stands once, and none is a twin: nothing is to be judged by the values."""
        self.decision: object = None
        """The handler's own; the wire never looks at it."""


class ResponseShapes:
    """The shapes met lately: bounded, and emptied when it is full."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, ...], ResponseShape] = {}

    def of(self, names: tuple[bytes, ...]) -> ResponseShape:
        """The shape of these field names."""
        shape = self._known.get(names)
        if shape is None:
            shape = ResponseShape(names)
            if len(self._known) >= MAX_SHAPES:
                self._known.clear()
            self._known[names] = shape
        return shape


class RequestHead(msgspec.Struct, frozen=True):
    """A request's head, checked. An absolute-form target is reduced to its origin form."""

    method: bytes
    target: bytes
    version: int
    """0 or 1: the minor version of HTTP/1."""
    names: list[bytes]
    """Field names as received, in order."""
    headers: list[tuple[bytes, bytes]]
    """(lower-cased name, value without outer white space), parallel to ``names``."""
    framing: Framing
    keep_alive: bool
    expects_continue: bool
    upgrade: bool
    """Asks for a websocket."""
    connection: frozenset[bytes]
    """The lower-cased options Connection lists."""
    shape: HeadShape

    def get(self, name: bytes) -> bytes | None:
        """The first value of a lower-case name."""
        for found, value in self.headers:
            if found == name:
                return value
        return None


class ResponseHead(msgspec.Struct, frozen=True):
    """A response's head, checked. Fields as in `RequestHead`."""

    status: int
    reason: bytes
    version: int
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]
    """Parallel to ``names``, without outer white space."""
    framing: Framing
    keep_alive: bool
    content_length: int | None = None
    """What the head declared, also where no body follows (HEAD, 304)."""
    connection: frozenset[bytes] = frozenset()
    lines: tuple[bytes, ...] = ()
    """The field lines as they came, each with its CRLF, parallel to ``names``."""
    shape: ResponseShape = msgspec.field(default_factory=lambda: ResponseShape(()))

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """(lower-cased name, value), parallel to ``names``."""
        return list(zip(self.shape.lowered, self.values, strict=True))

    def get(self, name: bytes) -> bytes | None:
        """The first value of a lower-case name."""
        index = self.shape.index.get(name)
        return None if index is None else self.values[index]


Fields = list[tuple[bytes, bytes]]
_Roles = dict[bytes, bytes]


class _Role(IntEnum):
    """What the table says of a field that frames a message or rules its connection."""

    SINGLE = 0
    LISTED = 1
    TWIN = 2


_ROLES: Final = {
    b"host": _Role.SINGLE,
    b"content-length": _Role.SINGLE,
    b"transfer-encoding": _Role.SINGLE,
    b"expect": _Role.LISTED,
    b"connection": _Role.LISTED,
    b"upgrade": _Role.LISTED,
    # Servers that map both spellings to one variable would read these as framing.
    b"content_length": _Role.TWIN,
    b"transfer_encoding": _Role.TWIN,
}
_TWINS: Final = {name for name, role in _ROLES.items() if role is _Role.TWIN}
_FRAMING_NAMES: Final = frozenset({b"content-length", b"transfer-encoding"})
_RESPONSE_HOP: Final = HOP_BY_HOP | _FRAMING_NAMES
_KNOWN_OPTIONS: Final = HOP_BY_HOP | {b"close"}
"""Options that name no further field to take out."""
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_NEVER_HOP: Final = frozenset({b"host", b"content-length"})
_USUAL_OPTIONS: Final = {
    b"keep-alive": frozenset({b"keep-alive"}),
    b"Keep-Alive": frozenset({b"keep-alive"}),
    b"close": frozenset({b"close"}),
}


def parse_request_head(block: bytes, limits: Limits) -> RequestHead:
    """Read one complete head, blank line included.

    Raises WireError: bad_request, ambiguous_header, target_too_long, header_too_large.
    """
    line = _REQUEST_LINE.match(block)
    if line is None:
        raise _bad_request_line(block, limits)
    method, target, minor = line.groups()
    if len(target) > limits.max_target_bytes:
        raise WireError("target_too_long", f"the target is over {limits.max_target_bytes} bytes")
    names, headers = _fields(block, line.end(), limits)
    roles = _roles(headers)
    version = 1 if minor == b"1" else 0
    target = _origin_form(method, target, _host(roles, version))
    options = _options(roles.get(b"connection"))
    return RequestHead(
        method,
        target,
        version,
        names,
        headers,
        _request_framing(roles, version),
        _keeps_alive(version, options),
        version == 1 and _expects_continue(roles),
        method == b"GET" and b"upgrade" in options and _is_websocket(roles),
        options,
        HeadShape(headers),
    )


def parse_response_head(
    block: bytes,
    request_method: bytes,
    limits: Limits | PoolLimits,
    shapes: ResponseShapes | None = None,
) -> ResponseHead:
    """Read one complete head, blank line included; every WireError is the upstream's fault."""
    line = _STATUS_LINE.match(block)
    if line is None:
        raise WireError("bad_request", "the status line is malformed")
    minor, code, reason = line.groups()
    found = _FIELD_LINES.findall(block, line.end())
    _check_fields(block, line.end(), len(found), limits)
    lines, names, values = zip(*found, strict=True) if found else ((), (), ())
    if b" \r\n" in block or b"\t\r\n" in block:  # rare: white space at a line's end
        values = tuple(value.rstrip(b" \t") for value in values)
    shape = (shapes or ResponseShapes()).of(names)
    if shape.is_plain:
        roles = {name: values[index] for index, name in shape.roles}
    else:
        roles = _roles((name, values[index]) for index, name in shape.roles)
    status = int(code)
    version = 1 if minor == b"1" else 0
    options = _options(roles.get(b"connection"))
    framing, length = _response_framing(roles, version, status, request_method)
    return ResponseHead(
        status,
        (reason or b"").strip(b" \t"),
        version,
        names,
        values,
        framing,
        framing is not UNTIL_CLOSE and _keeps_alive(version, options),
        length,
        options,
        lines,
        shape,
    )


def hop_fields(head: RequestHead | ResponseHead) -> frozenset[bytes]:
    """The lower-case names of the fields that stay on this connection.

    A response's ``content-length`` is among them: the relay frames the message anew.
    """
    hop = _RESPONSE_HOP if isinstance(head, ResponseHead) else HOP_BY_HOP
    return hop if head.connection <= _KNOWN_OPTIONS else hop | head.connection


def end_to_end(head: RequestHead | ResponseHead) -> list[tuple[bytes, bytes, bytes]]:
    """(name as received, lower-cased name, value) of every field that goes on."""
    hop = hop_fields(head)
    return [
        (name, field[0], field[1])
        for name, field in zip(head.names, head.headers, strict=True)
        if field[0] not in hop
    ]


def check_partial(block: bytes | bytearray, start: int, limits: Limits) -> None:
    """Refuse a head that is not complete yet and never can be; look from ``start`` on.

    Raises WireError: bad_request, target_too_long, header_too_large.
    """
    if ILLEGAL_BYTE.search(block, start):
        raise WireError("bad_request", "the head holds a control character or a bare CR or LF")
    # "METHOD SP target SP HTTP/1.1" and the CRLF around it.
    if len(block) > limits.max_target_bytes + 256 and block.find(b"\r\n", 2) < 0:
        raise _bad_request_line(bytes(block), limits)
    if len(block) > limits.max_head_bytes:
        raise WireError("header_too_large", f"the head is over {limits.max_head_bytes} bytes")


def _bad_request_line(block: bytes, limits: Limits) -> WireError:
    found = _LONG_LINE.match(block)
    if found and found.end() > limits.max_target_bytes:
        return WireError("target_too_long", f"the target is over {limits.max_target_bytes} bytes")
    return WireError("bad_request", "the request line is malformed")


def _fields(block: bytes, start: int, limits: Limits | PoolLimits) -> tuple[list[bytes], Fields]:
    """Every field line from ``start``; each match begins at a line's begin and spans it whole."""
    found = _FIELDS.findall(block, start)
    _check_fields(block, start, len(found), limits)
    names = [name for name, _ in found]
    if b" \r\n" in block or b"\t\r\n" in block:  # rare: white space at a line's end
        return names, [(name.lower(), value.rstrip(b" \t")) for name, value in found]
    return names, [(name.lower(), value) for name, value in found]


def _check_fields(block: bytes, start: int, found: int, limits: Limits | PoolLimits) -> None:
    """Every line from ``start`` on is one of the ``found`` fields, and there are not too many."""
    if len(block) > limits.max_head_bytes:
        raise WireError("header_too_large", f"the head is over {limits.max_head_bytes} bytes")
    lines = block.count(b"\n", start) - 1
    if lines > limits.max_fields:
        raise WireError("header_too_large", f"the head has over {limits.max_fields} fields")
    if found != lines or block[-4:] != b"\r\n\r\n":
        raise WireError("bad_request", "a field line is malformed")


def _roles(headers: Iterable[tuple[bytes, bytes]]) -> _Roles:
    """The fields with a role; a second framing field or a twin of one is refused."""
    found: _Roles = {}
    for name, value in headers:
        role = _ROLES.get(name)
        if role is None:
            continue
        if role is _Role.TWIN:
            raise WireError("ambiguous_header", f"{name.decode()} is a framing header's twin")
        if name not in found:
            found[name] = value
        elif role is _Role.LISTED:
            found[name] += b", " + value
        else:
            code = "ambiguous_header" if name in _FRAMING_NAMES else "bad_request"
            raise WireError(code, f"{name.decode()} came twice")
    return found


def _host(roles: _Roles, version: int) -> bytes | None:
    host = roles.get(b"host")
    if host is None:
        if version == 1:
            raise WireError("bad_request", "HTTP/1.1 needs one Host")
        return None
    if _HOST.fullmatch(host) is None:
        raise WireError("bad_request", "the Host is malformed")
    return host


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    if target[:1] == b"/":
        return target
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise WireError("bad_request", "the request target is malformed")
    authority, rest = absolute.groups()
    if host is not None and authority.lower() != host.lower():
        raise WireError("bad_request", "the target's authority is not the Host")
    if host is None and _HOST.fullmatch(authority) is None:
        raise WireError("bad_request", "the target's authority is malformed")
    if rest is None:
        return b"/"
    return rest if rest[:1] == b"/" else b"/" + rest


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _MAX_DIGITS:  # of bytes: 0 to 9 alone
        raise WireError("bad_request", "Content-Length is not one decimal number")
    return int(value)


def _check_transfer_encoding(coding: bytes, roles: _Roles, version: int) -> None:
    if version == 0:
        raise WireError("bad_request", "Transfer-Encoding does not exist in HTTP/1.0")
    if b"content-length" in roles:
        raise WireError("bad_request", "Content-Length and Transfer-Encoding exclude one another")
    if coding.lower() != b"chunked":
        raise WireError("bad_request", "Transfer-Encoding must be exactly `chunked`")


def _request_framing(roles: _Roles, version: int) -> Framing:
    coding = roles.get(b"transfer-encoding")
    if coding is not None:
        _check_transfer_encoding(coding, roles, version)
        return CHUNKED
    length = roles.get(b"content-length")
    return NO_BODY if length is None else Framing(FramingKind.LENGTH, _length(length))


def _response_framing(
    roles: _Roles, version: int, status: int, request_method: bytes
) -> tuple[Framing, int | None]:
    """RFC 9112 section 6.3, in its order."""
    coding, value = roles.get(b"transfer-encoding"), roles.get(b"content-length")
    if coding is not None:
        _check_transfer_encoding(coding, roles, version)
    length = None if value is None else _length(value)
    if request_method == b"HEAD" or status < 200 or status in (204, 304):
        return NO_BODY, length
    if coding is not None:
        return CHUNKED, None
    if length is not None:
        return Framing(FramingKind.LENGTH, length), length
    return UNTIL_CLOSE, None


def _options(value: bytes | None) -> frozenset[bytes]:
    """The options of Connection, lower-cased."""
    if value is None:
        return _NO_OPTIONS
    usual = _USUAL_OPTIONS.get(value)
    if usual is not None:
        return usual
    options = frozenset(_list_items(value))
    if any(_TOKEN.fullmatch(option) is None for option in options):
        raise WireError("bad_request", "Connection lists something that is no field name")
    if options & _NEVER_HOP:
        raise WireError("bad_request", "Connection lists a field every hop needs")
    return options


def _list_items(value: bytes) -> Iterable[bytes]:
    items = (item.strip(b" \t") for item in value.lower().split(b","))
    return (item for item in items if item)


def _keeps_alive(version: int, options: frozenset[bytes]) -> bool:
    if b"close" in options:
        return False
    return version == 1 or b"keep-alive" in options


def _expects_continue(roles: _Roles) -> bool:
    value = roles.get(b"expect")
    if value is None:
        return False
    if value.lower() != b"100-continue":
        raise WireError("bad_request", "Expect must be `100-continue`")
    return True


def _is_websocket(roles: _Roles) -> bool:
    return b"websocket" in _list_items(roles.get(b"upgrade", b""))
