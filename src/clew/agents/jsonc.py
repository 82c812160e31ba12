"""JSON with comments and trailing commas, read with the position of every value.

Settings files of coding agents are such texts; `jsonc_edit` changes one value in them and leaves
every other character alone.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 100
"""Deeper nesting is no settings file, and would exhaust the stack."""

_GAP: Final = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_ATOM: Final = re.compile(r"true|false|null|-?[0-9][0-9.eE+-]*")


class JsoncError(ValueError):
    """The text is no JSON with comments, or has another shape than asked for."""


class Node(msgspec.Struct, frozen=True):
    """A value and where it stands. ``members`` is None for anything but an object."""

    start: int
    end: int
    value: Any
    members: tuple[Member, ...] | None = None

    def member(self, key: str) -> Member | None:
        """The last member of this name, which is the one that counts."""
        return next((one for one in reversed(self.members or ()) if one.key == key), None)


class Member(msgspec.Struct, frozen=True):
    """A member of an object: where its key begins, and its value."""

    key: str
    start: int
    value: Node


def parse(text: str) -> Node:
    """The document. Raises JsoncError."""
    reader = _Reader(text)
    node = reader.value(0)
    if reader.peek():
        raise JsoncError(f"unexpected text at character {reader.at}")
    return node


def value_at(text: str, path: tuple[str, ...]) -> Any:
    """The value at a path; None where there is none, or no text at all. Raises JsoncError."""
    if not text.strip():
        return None
    found: Any = parse(text).value
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def skip_gap(text: str, at: int) -> int:
    """The position after blanks and comments."""
    found = _GAP.match(text, at)
    return found.end() if found else at


class _Reader:
    """Reads one text from its beginning; ``at`` is where it is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def peek(self) -> str:
        """The next character that is no blank and no comment; empty at the end."""
        self.at = skip_gap(self._text, self.at)
        return self._text[self.at : self.at + 1]

    def value(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise JsoncError("nested too deeply")
        opening = self.peek()
        if opening == "{":
            return self._object(depth)
        return self._array(depth) if opening == "[" else self._plain()

    def _object(self, depth: int) -> Node:
        start = self.at
        self.at += 1
        members: list[Member] = []
        while self.peek() != "}":
            key = self._plain()
            if not isinstance(key.value, str) or self.peek() != ":":
                raise JsoncError(f"no member at character {key.start}")
            self.at += 1
            members.append(Member(key.value, key.start, self.value(depth + 1)))
            self._comma("}")
        self.at += 1
        found = {one.key: one.value.value for one in members}
        return Node(start, self.at, found, tuple(members))

    def _array(self, depth: int) -> Node:
        start = self.at
        self.at += 1
        items: list[Any] = []
        while self.peek() != "]":
            items.append(self.value(depth + 1).value)
            self._comma("]")
        self.at += 1
        return Node(start, self.at, items)

    def _comma(self, closing: str) -> None:
        following = self.peek()
        if following == ",":
            self.at += 1
        elif following != closing:
            raise JsoncError(f"a comma or {closing} is missing at character {self.at}")

    def _plain(self) -> Node:
        opening = self.peek()
        found = (_STRING if opening == '"' else _ATOM).match(self._text, self.at)
        if found is None:
            raise JsoncError(f"no value at character {self.at}")
        try:
            value = json.loads(found[0])
        except ValueError:
            raise JsoncError(f"no value at character {self.at}") from None
        start, self.at = self.at, found.end()
        return Node(start, self.at, value)
