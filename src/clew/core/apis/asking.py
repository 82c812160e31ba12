"""Asking a chat stream for its usage, where the client did not: which bytes go into the body.

Chat Completions names no tokens in a stream unless ``stream_options.include_usage`` is true. It is
inserted into the bytes as they are; nothing is serialised anew. The rules:

| the body's top level | what happens |
|---|---|
| not one JSON object, or ``stream`` twice, or neither true nor false | nothing, flagged |
| ``stream`` false, null or absent | nothing: a whole answer names its usage |
| no ``stream_options`` | the member is inserted behind the opening brace |
| ``stream_options: null`` | the object takes its place |
| an object without ``include_usage`` | the member is inserted behind its opening brace |
| ``include_usage`` true | nothing: the client has asked |
| ``include_usage`` anything else, ``stream_options`` twice or no object | nothing, flagged |

A key counts in every spelling JSON has for it (``"str\\u0065am"``). What the decoder refuses
(trailing bytes, NaN, a compressed body) is in doubt, and in doubt nothing is inserted.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Final

import msgspec

from clew.core.apis.figures import NO_JSON, decoded

MEMBER: Final = b'"stream_options":{"include_usage":true}'
_INNER: Final = b'"include_usage":true'
_OBJECT: Final = b'{"include_usage":true}'

MAX_SEARCH_BYTES: Final = 32 * 1024 * 1024
"""Bytes decoded to tell a key from its namesakes further down; beyond it the body is in doubt."""

_OPENING: Final = re.compile(rb"[ \t\r\n]*\{")
_TO_VALUE: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_EMPTY: Final = re.compile(rb"\{[ \t\r\n]*\}")


class Asked(StrEnum):
    """What became of a body; the flags of the attempt's record, but for ``nothing``."""

    NOTHING = ""
    """The answer names its usage anyway."""
    ASKED = "usage_asked"
    NOT_ASKED = "usage_not_asked"
    """The stream may end without naming usage: it is estimated then."""


class _Top(msgspec.Struct, gc=False):
    stream: msgspec.Raw = NO_JSON
    stream_options: msgspec.Raw = NO_JSON


class _Options(msgspec.Struct, gc=False):
    include_usage: msgspec.Raw = NO_JSON


_decode_top: Final = msgspec.json.Decoder(_Top).decode
_decode_options: Final = msgspec.json.Decoder(_Options).decode


def _spelled(name: str) -> re.Pattern[bytes]:
    """Matches a key in every spelling: each letter as itself or as its escape."""
    letters = "".join(rf"(?:{re.escape(letter)}|\\u00(?i:{ord(letter):02x}))" for letter in name)
    return re.compile(f'"{letters}"'.encode())


_STREAM: Final = _spelled("stream")
_STREAM_OPTIONS: Final = _spelled("stream_options")


def ask_for_usage(body: bytes) -> tuple[bytes, Asked]:
    """The body that asks for usage, or the same body, and what was done. Never raises."""
    top = decoded(_decode_top, body)
    if top is None:
        return body, Asked.NOT_ASKED
    stream = bytes(top.stream)
    if stream != b"true":
        is_plain = stream in (b"", b"false", b"null")
        return body, Asked.NOTHING if is_plain else Asked.NOT_ASKED
    options = bytes(top.stream_options)
    included = _included(options)
    if included == b"true":
        return body, Asked.NOTHING
    if included or _sole_key(body, _STREAM, "stream") is None:
        return body, Asked.NOT_ASKED
    splice = _splice(body, options)
    if splice is None:
        return body, Asked.NOT_ASKED
    start, end, text = splice
    return b"%b%b%b" % (body[:start], text, body[end:]), Asked.ASKED


def _included(options: bytes) -> bytes:
    """The value of ``include_usage`` as it stands; empty where there is none."""
    if not options or options == b"null":
        return b""
    found = decoded(_decode_options, options)
    return bytes(found.include_usage) if found is not None else b"?"


def _splice(body: bytes, options: bytes) -> tuple[int, int, bytes] | None:
    """Which bytes of the body give way to which; None in doubt."""
    if not options:
        opening = _OPENING.match(body)
        # The object holds `stream` at least, so that a comma is right.
        return None if opening is None else (opening.end(), opening.end(), MEMBER + b",")
    key = _sole_key(body, _STREAM_OPTIONS, "stream_options")
    value = None if key is None else _TO_VALUE.match(body, key.end())
    if value is None:
        return None
    start = value.end()
    if options == b"null":
        return start, start + len(options), _OBJECT
    inner = _INNER if _EMPTY.match(body, start) else _INNER + b","
    return start + 1, start + 1, inner


def _sole_key(body: bytes, spelled: re.Pattern[bytes], name: str) -> re.Match[bytes] | None:
    """Where the top level's only key of this name stands, which the decoder found; None in doubt.

    A namesake may stand in a nested object or be a text. The one without which the decoder finds
    nothing at the top is the key; where there is no such one, the key is there twice.
    """
    found = list(spelled.finditer(body))
    if len(found) == 1:
        return found[0]
    if len(found) * len(body) > MAX_SEARCH_BYTES:
        return None
    for one in found:
        blank: Any = b'"' + b"~" * (one.end() - one.start() - 2) + b'"'
        without = decoded(_decode_top, body[: one.start()] + blank + body[one.end() :])
        if without is not None and not bytes(getattr(without, name)):
            return one
    return None
