"""What counts as an id, and how the containers that hold one are opened.

An id is 1 to 512 bytes of visible text: no blank, no control, format or line-separating character,
so that it may stand in a log line, a header or a terminal. Containers (Codex's turn metadata,
Claude Code's ``user_id``) are parsed, never cut or hashed.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MAX_ID_BYTES: Final = 512

_PLAIN: Final = re.compile(rb"[!-~]{1,512}")
_LEGACY_USER_ID: Final = re.compile(
    r"user_.*_session_([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})",
    re.IGNORECASE,
)

MAX_USER_ID_CHARS: Final = 64 * 1024
"""A longer ``user_id`` is no client's; it is not searched."""


class TurnMetadata(msgspec.Struct, frozen=True):
    """The parts of Codex's turn metadata that say who calls; its paths are not read."""

    request_kind: str = ""
    is_subagent: bool = False
    forked_from: str = ""
    """The thread that was copied; empty when none was, or its id is no id."""


class _MetadataDocument(msgspec.Struct, frozen=True):
    request_kind: str | None = None
    subagent_kind: str | None = None
    forked_from_thread_id: str | None = None


class UserId(msgspec.Struct, frozen=True):
    """What Claude Code's ``user_id`` names."""

    session: str
    is_tree: bool
    """The older text form, in which subagents bear no sign."""


class _UserIdDocument(msgspec.Struct, frozen=True):
    session_id: str


_decode_metadata: Final = msgspec.json.Decoder(_MetadataDocument).decode
_decode_user_id: Final = msgspec.json.Decoder(_UserIdDocument).decode

_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding foreign JSON may raise; deep nesting is the last."""


def native_id(value: bytes) -> str:
    """The id in a header value; empty when it is none."""
    if _PLAIN.fullmatch(value) is not None:
        return value.decode("ascii")
    if len(value) > MAX_ID_BYTES:
        return ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and " " not in text else ""


def body_id(value: object) -> str:
    """The id in a decoded JSON value; empty when it is none."""
    if not isinstance(value, str) or not value.isprintable():
        return ""
    return native_id(value.strip().encode())


def read_turn_metadata(value: bytes | str) -> TurnMetadata | None:
    """Codex's turn metadata, absent fields empty; None when it is not that JSON."""
    try:
        found = _decode_metadata(value)
    except _UNREADABLE:
        return None
    return TurnMetadata(
        found.request_kind or "", bool(found.subagent_kind), body_id(found.forked_from_thread_id)
    )


def read_user_id(value: str) -> UserId | None:
    """The session inside a ``metadata.user_id``: a JSON document, or the older text form.

    In the JSON form the user's own keys may come first and the keys in any order; the text form
    counts only when the session ends it.
    """
    if value.lstrip()[:1] == "{":
        try:
            session = body_id(_decode_user_id(value).session_id)
        except _UNREADABLE:
            return None
        return UserId(session, is_tree=False) if session else None
    legacy = _LEGACY_USER_ID.fullmatch(value)
    return UserId(legacy[1], is_tree=True) if legacy else None
