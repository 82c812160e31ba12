"""Which run a path names: ``/r/RUN/…``, as the base urls that `clew run` hands out begin.

Some clients can be told a base url and nothing else: no header, no id. The run in its path tells
all of their calls apart from other people's, whatever the client, and hangs their sessions below
the run (`core.identity.below_run`). The prefix is dropped before anything else reads the path; it
may be followed by ``/u/NAME``. A value that is no run's leaves the path as it is.
"""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = b"/r/"
RUN_ID: Final = re.compile(r"[A-Za-z0-9._:@+=~-]{1,128}")
"""A canonical id that is one segment of a path."""

_PATH: Final = re.compile(rb"/r/(%b)(/(?!/).*)?" % RUN_ID.pattern.encode(), re.DOTALL)


def split_run(path: bytes) -> tuple[str, bytes]:
    """The run a path names (empty: none) and the path without it.

    >>> split_run(b"/r/run-1/u/fast/v1/messages")
    ('run-1', b'/u/fast/v1/messages')
    """
    found = _PATH.fullmatch(path) if path.startswith(PREFIX) else None
    if found is None or found[1] in (b".", b".."):
        return "", path
    return found[1].decode("ascii"), found[2] or b"/"
