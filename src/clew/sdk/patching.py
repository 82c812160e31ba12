"""Replaces a method of somebody else's class, and puts the old one back.

A replacement is known by the mark it carries on itself: a wrapper that another tool has put over
it may have copied the mark (`functools.wraps` does), but not what the mark names. Such a one is
left alone; ours then stays below it and does nothing while nothing is instrumented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

_MARK: Final = "__clew_replaces__"


class Hook(NamedTuple):
    """One method to be replaced. ``around`` makes the replacement from the original."""

    owner: Any
    name: str
    around: Callable[[Callable[..., Any]], Callable[..., Any]]

    def install(self) -> None:
        """Replace it, once. Raises AttributeError when the class has no such method."""
        found = getattr(self.owner, self.name)
        if _original(found) is not None:
            return
        replacement = self.around(found)
        replacement.__name__, replacement.__doc__ = self.name, found.__doc__
        setattr(replacement, _MARK, (replacement, found))
        setattr(self.owner, self.name, replacement)

    def remove(self) -> None:
        """Put the original back; nothing happens where it is in place or covered by others."""
        original = _original(getattr(self.owner, self.name, None))
        if original is not None:
            setattr(self.owner, self.name, original)


def _original(found: Any) -> Any:
    replacement, original = getattr(found, _MARK, (None, None))
    return original if replacement is found else None
