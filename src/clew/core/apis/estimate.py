"""Tokens from sizes, where the upstream named none. Always flagged ``estimated``.

The rule: four characters a token, rounded up. That is the vendors' own rule of thumb for English;
code runs nearer three, CJK nearer one and a half. A request is measured by its bytes, JSON
included, which makes up for the template tokens; the bound keeps images in base64 from counting as
text without end.
"""

from __future__ import annotations

from typing import Final

from clew.core.events import Usage

CHARS_PER_TOKEN: Final = 4
MAX_INPUT_TOKENS: Final = 1_000_000
"""No prompt is longer than the largest context window."""


def tokens_of(chars: int) -> int:
    """Estimated tokens of ``chars`` characters; any text at all is one token at least."""
    return -(-max(0, chars) // CHARS_PER_TOKEN)


def estimated_usage(request_bytes: int, output_chars: int) -> Usage:
    """Usage of an attempt whose upstream reported none; nothing is taken to be cached."""
    return Usage(
        input_tokens=min(tokens_of(request_bytes), MAX_INPUT_TOKENS),
        output_tokens=tokens_of(output_chars),
    )
