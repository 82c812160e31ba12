"""Reads requests out of what people have at hand: raw HTTP, `curl -v`, HAR, capture JSON or JSONL.

Lenient where `wire` is strict: this explains a request and forwards nothing. Line ends may be LF or
CRLF, names of any case, a body may be missing. What cannot be read as a request raises ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from clew.core.claim import Headers

MAX_REQUESTS: Final = 10_000
"""Bounds what one file can ask for; a day of one agent is a few thousand calls."""

_REQUEST_LINE: Final = re.compile(rb"([A-Za-z]{1,20}) +(\S+)(?: +HTTP/[0-9.]+)?\s*", re.ASCII)
_FIELD: Final = re.compile(rb"([^\s:]+)\s*:\s*(.*?)\s*", re.DOTALL)
_ORIGIN: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_HINT: Final = "give a raw HTTP request, the output of curl -v, a HAR or capture JSON"
_NO_REQUEST: Final = f"the JSON describes no request with a path; {_HINT}"


class RequestFile(msgspec.Struct, frozen=True):
    """One request as read: names lower-cased, values stripped, path with its query."""

    method: str
    path: bytes
    headers: Headers
    body: bytes = b""
    label: str = ""
    """What the file calls it, where it does."""
    reply: Any = None
    """The answer, where the file has it: a HAR's text, or a capture's text or tool call."""


def read_requests(text: bytes) -> list[RequestFile]:
    """Every request of a file, in order. Raises ValueError when there is none."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    if text.lstrip()[:1] in (b"{", b"["):
        found = list(_from_json(text))
    elif re.search(rb"^> *[A-Za-z]+ +\S+ +HTTP/", text, re.MULTILINE):
        found = list(_from_curl(text))
    else:
        found = [_from_raw(text)]
    if not found:
        raise ValueError(f"no request in it; {_HINT}")
    return found[:MAX_REQUESTS]


def _from_raw(text: bytes) -> RequestFile:
    head, _, body = _cut_head(text.lstrip(b"\r\n"))
    lines = head.splitlines()
    match = _REQUEST_LINE.fullmatch(lines[0]) if lines else None
    if match is None:
        raise ValueError(f"does not begin with a request line; {_HINT}")
    return _request(match[1], match[2], _fields(lines[1:]), body)


def _cut_head(text: bytes) -> tuple[bytes, bytes, bytes]:
    """Head, blank line, body: by whichever kind of line end comes first."""
    match = re.search(rb"\r?\n\r?\n", text)
    if match is None:
        return text, b"", b""
    return text[: match.start()], match[0], text[match.end() :]


def _from_curl(text: bytes) -> Iterator[RequestFile]:
    """Lines that curl marks as sent; it shows no body, so ids of the body stay unseen."""
    sent: list[bytes] = []
    for line in (*text.splitlines(), b""):
        if not line.startswith(b">"):
            continue
        content = line[1:].strip()
        match = _REQUEST_LINE.fullmatch(content)
        if match and b" HTTP/" in content:
            sent = [content]
        elif content and sent:
            sent.append(content)
        elif sent:
            yield _from_raw(b"\n".join(sent))
            sent = []
    if sent:
        yield _from_raw(b"\n".join(sent))


def _from_json(text: bytes) -> Iterator[RequestFile]:
    for document in _documents(text):
        for item in document if isinstance(document, list) else [document]:
            yield from _from_document(item)


def _documents(text: bytes) -> Iterator[Any]:
    try:
        yield msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        yield from _lines_of_json(text)


def _lines_of_json(text: bytes) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            raise ValueError(f"line {number} is not JSON; {_HINT}") from None


def _from_document(item: Any) -> Iterator[RequestFile]:
    if not isinstance(item, Mapping):
        raise ValueError(_NO_REQUEST)  # noqa: TRY004  bad content, not a bad call
    log = item.get("log")
    if isinstance(log, Mapping) and isinstance(log.get("entries"), list):
        for entry in log["entries"]:
            if isinstance(entry, Mapping) and isinstance(entry.get("request"), Mapping):
                yield _from_mapping(entry["request"], _har_reply(entry))
        return
    inner = item.get("request")
    yield _from_mapping(inner if isinstance(inner, Mapping) else item)


def _har_reply(entry: Mapping[str, Any]) -> Any:
    response = entry.get("response")
    content = response.get("content") if isinstance(response, Mapping) else None
    return content.get("text") if isinstance(content, Mapping) else None


def _from_mapping(item: Mapping[str, Any], reply: Any = None) -> RequestFile:
    target = item.get("path") or item.get("url")
    if not isinstance(target, str):
        raise ValueError(_NO_REQUEST)  # noqa: TRY004  bad content, not a bad call
    method = item.get("method")
    posted = item.get("postData")
    body = posted.get("text") if isinstance(posted, Mapping) else item.get("body")
    number = item.get("n")
    label = f"{item.get('label') or ''}{f' #{number}' if number is not None else ''}".strip()
    return _request(
        _bytes_of(method if isinstance(method, str) else "POST"),
        _bytes_of(target),
        _fields_of(item.get("headers")),
        _body_of(body),
        label,
        reply=item.get("reply") if reply is None else reply,
    )


def _request(
    method: bytes,
    target: bytes,
    headers: Headers,
    body: bytes,
    label: str = "",
    *,
    reply: Any = None,
) -> RequestFile:
    origin = _ORIGIN.match(target)
    path = target[origin.end() :] if origin else target
    if not path.startswith(b"/"):
        path = b"/" + path
    return RequestFile(method.decode("latin-1").upper(), path, headers, body, label, reply)


def _fields(lines: list[bytes]) -> Headers:
    found: Headers = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        # HTTP/2's pseudo-fields (":path") repeat the request line.
        if match and not line.startswith(b":"):
            found.append((match[1].lower(), match[2]))
    return found


def _fields_of(value: Any) -> Headers:
    """A mapping, a list of pairs, or HAR's list of names and values."""
    if isinstance(value, Mapping):
        pairs: list[Any] = list(value.items())
    else:
        pairs = list(value) if isinstance(value, list) else []
    found: Headers = []
    for pair in pairs:
        if isinstance(pair, Mapping):
            name, text = pair.get("name"), pair.get("value")
        elif isinstance(pair, list | tuple) and len(pair) == 2:
            name, text = pair
        else:
            continue
        if isinstance(name, str) and isinstance(text, str) and not name.startswith(":"):
            found.append((_bytes_of(name).lower(), _bytes_of(text).strip()))
    return found


def _body_of(value: Any) -> bytes:
    if value is None:
        return b""
    return _bytes_of(value) if isinstance(value, str) else msgspec.json.encode(value)


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "replace")
