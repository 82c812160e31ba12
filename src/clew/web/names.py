"""Session names in paths. External ids hold slashes, so the path is cut before it is decoded."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote

from starlette.types import Scope


def split_name(scope: Scope, prefix: str, tails: Collection[str]) -> tuple[str, str]:
    """(session name, tail) of a path below ``prefix``; the tail is one of ``tails`` or empty.

    ``/api/v1/sessions/a%2Ftree`` names ``a/tree``; ``…/a/tree`` is the tree of ``a``; a slash that
    was not escaped belongs to the name.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.split(b"?", 1)[0].decode("latin-1")
    rest = path[len(prefix) :]
    name, slash, tail = rest.rpartition("/")
    if slash and tail in tails:
        return unquote(name), tail
    return unquote(rest), ""
