"""What the error forms of all APIs share: the sentence, and the frame of a stream's error event."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from clew.core.errors import ClewError

encode: Final = msgspec.json.Encoder().encode


def message_of(error: ClewError) -> str:
    """The sentence a person reads: begins ``clew:`` and ends with the next step."""
    detail = error.detail
    return detail if detail.startswith("clew:") else f"clew: {detail}"


def openai_error(error: ClewError) -> dict[str, Any]:
    """OpenAI's error object, which chat and responses answer alike."""
    return {
        "message": message_of(error),
        "type": error.fault.openai_type,
        "param": None,
        "code": error.fault.code,
    }


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encode(data) + b"\n\n"
