"""Decides what a session may be called, and how a child's id follows from its parent's.

Ids are the gateway's canonical ones: 1 to 256 of ``A-Z a-z 0-9 . _ : / @ + = ~ -``
(`docs/identity.md`). An id is refused here, at its ``with``, and not by a 400 in the middle of a
run. A child's id is its parent's, a slash and its own name, so that the same program names the
same sessions after a restart.
"""

from __future__ import annotations

import os
import re
from typing import Final

MAX_ID_CHARS: Final = 256
_ID: Final = re.compile(r"[A-Za-z0-9._:/@+=~-]{1,256}")
_MINTED_BYTES: Final = 16
_DIGEST_CHARS: Final = 32


def checked(text: str) -> str:
    """The id itself.

    Raises ValueError when it is not 1 to 256 of the allowed characters.

    >>> checked("run-42")
    'run-42'
    >>> checked("my run")
    Traceback (most recent call last):
    ValueError: 'my run' cannot name a session: 1 to 256 of A-Z a-z 0-9 . _ : / @ + = ~ -
    """
    if not isinstance(text, str) or _ID.fullmatch(text) is None:
        shown = repr(text)[:80]
        raise ValueError(
            f"{shown} cannot name a session: 1 to {MAX_ID_CHARS} of A-Z a-z 0-9 . _ : / @ + = ~ -"
        )
    return text


def minted() -> str:
    """An id that nobody has: 128 random bits.

    >>> len(minted())
    32
    """
    return os.urandom(_MINTED_BYTES).hex()


def below(parent: str, name: str) -> str:
    """The id of a child. One that would be too long begins with its parent's digest instead.

    Raises ValueError when the name holds a character that no id may, or leaves no room.

    >>> below("run-42", "researcher")
    'run-42/researcher'
    >>> len(below("r" * 256, "researcher"))
    44
    """
    joined = f"{parent}/{name}"
    if len(joined) > MAX_ID_CHARS:
        from hashlib import sha256  # noqa: PLC0415  # rare, and slow to import

        joined = f"~{sha256(parent.encode()).hexdigest()[:_DIGEST_CHARS]}/{name}"
    checked(name)
    return checked(joined)
