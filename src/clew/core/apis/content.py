"""Canonical forms: what is equal in the bodies and answers of all APIs, however it is written.

Arguments are equal when their JSON is, whatever the order of keys, the spaces, ``1.0`` or ``1``, a
string or an object; what is no JSON counts as it stands. Texts may be strings or parts.

Nothing here raises on what strangers sent. Time is linear in the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from clew.core.apis.sse import events_of

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""Larger requests have no lineage."""
MAX_REPLY_BYTES: Final = 16 * 1024 * 1024
"""Larger answers show nothing; a stream spends some 300 bytes on a token of four."""
_MAX_EXACT: Final = 2**53
"""Beyond it a client that reads numbers as doubles writes other digits."""


def number(literal: str) -> float | int:
    """``1.0``, ``1e0`` and ``1`` are one number: clients write it as their language does."""
    value = float(literal)
    if value.is_integer() and abs(value) <= _MAX_EXACT:
        return int(value)
    return value


_decode: Final = msgspec.json.Decoder(float_hook=number).decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode


def parsed(data: bytes) -> Any:
    """The JSON value in ``data``; None where it is none.

    Half a surrogate pair, which clients leave when they cut a text, is allowed.
    """
    try:
        return _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        if b"\\u" not in data:
            return None
    try:
        return json.loads(data, parse_float=number)
    except (ValueError, RecursionError):
        return None


def request_of(body: bytes) -> dict[str, Any] | None:
    """A request body as an object; None where it is none, or too large to be looked into."""
    found = parsed(body) if len(body) <= MAX_BODY_BYTES else None
    return found if isinstance(found, dict) else None


def objects_of(payload: bytes, *, is_stream: bool) -> Iterator[dict[str, Any]]:
    """The objects of a response: of each event of a stream, or the one document.

    An event without ``type`` in its data gets the one of its event line. What was cut is left out.
    """
    if len(payload) > MAX_REPLY_BYTES:
        return
    if not is_stream or payload.lstrip()[:1] == b"{":
        found = parsed(payload)
        if isinstance(found, dict):
            yield found
        return
    for name, data in events_of(payload):
        event = parsed(data) if data[:1] == b"{" else None
        if isinstance(event, dict):
            if name and event.get("type") is None:
                event["type"] = name.decode("latin-1")
            yield event


def canonical(value: Any) -> bytes:
    """A JSON value as the bytes that all its spellings share."""
    try:
        return _encode(value)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
        pass
    try:
        return json.dumps(value, sort_keys=True).encode()
    except (ValueError, TypeError, RecursionError):
        return b""


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts_of(content: Any) -> list[str]:
    """The texts of a message: a string, or a list of strings and parts with ``text``.

    A refusal is a text too.
    """
    if isinstance(content, str):
        return [content]
    found: list[str] = []
    for part in content if isinstance(content, list) else ():
        text = part
        if isinstance(part, dict):
            text = part.get("text") or part.get("refusal")
        if isinstance(text, str):
            found.append(text)
    return found


def text_in(mapping: dict[str, Any], *names: str) -> str:
    """The first of these fields that is a text and not empty."""
    for name in names:
        value = mapping.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def is_whole(arguments: str) -> bool:
    """Whether arguments that came in pieces are complete: an unfinished call is never answered."""
    return isinstance(parsed(utf8(arguments)), dict)


def utf8(text: str) -> bytes:
    """Bytes of a text; half a surrogate pair stays what it is."""
    return text.encode("utf-8", "surrogatepass")


def arguments_of(value: Any) -> tuple[bytes, Any]:
    """Arguments in canonical form, and as a value."""
    if isinstance(value, str):
        text = value.strip()
        found = parsed(utf8(text)) if text else {}
        if found is None:
            return utf8(text), text
        value = found
    if value is None:
        value = {}
    return canonical(value), value


def result_of(content: Any) -> bytes:
    """A result's texts; without any, all of it."""
    texts = [text.strip() for text in texts_of(content)]
    if texts or not content:
        return utf8("\n".join(texts))
    if isinstance(content, list):
        content = [
            {key: value for key, value in part.items() if key != "cache_control"}
            if isinstance(part, dict)
            else part
            for part in content
        ]
    return canonical(content)


def strings_in(value: Any) -> Iterator[str]:
    """All strings of a value, without recursion: it may be nested as deep as JSON allows."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def sendable(text: str) -> str:
    """Without halves of surrogate pairs, which no other process would take."""
    return text.encode("utf-8", "ignore").decode()


def tool_names(tools: Any, *wrappers: str) -> frozenset[str]:
    """Names of offered tools: a string itself, a ``name``, else the ``type``.

    ``wrappers`` are the fields under which an API puts the tool itself (``function``); lists of
    tools inside a tool (``tools`` of a namespace, ``functionDeclarations``) are names too.
    """
    found: set[str] = set()
    waiting = list(tools) if isinstance(tools, list) else []
    while waiting:
        tool = waiting.pop()
        if isinstance(tool, str):
            found.add(sendable(tool))
        if not isinstance(tool, dict):
            continue
        inner = [tool[wrapper] for wrapper in wrappers if wrapper in tool]
        for one in inner:
            waiting.extend(one if isinstance(one, list) else [one])
        name = text_in(tool, "name") or ("" if inner else text_in(tool, "type"))
        if name:
            found.add(sendable(name))
    return frozenset(found)
