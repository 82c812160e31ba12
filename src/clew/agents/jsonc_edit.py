"""One value put into JSON with comments, and taken out again.

`put` says which characters to replace so that a value stands at a path; `drop` takes the member out
in whatever text it stands by then. Everything else, comments and blanks, stays as it is.
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

from clew.agents.jsonc import JsoncError, Member, Node, parse, skip_gap

UNIT: Final = "  "
"""Indentation where the text shows none of its own."""


class Edit(msgspec.Struct, frozen=True):
    """Replace ``removed``, which stands at ``start``, by ``inserted``."""

    start: int
    removed: str
    inserted: str

    def apply(self, text: str) -> str:
        """The text after it."""
        return text[: self.start] + self.inserted + text[self.start + len(self.removed) :]


def put(text: str, path: tuple[str, ...], value: str) -> tuple[Edit, int]:
    """The edit after which ``value`` stands at ``path``, and how many members it creates.

    0 created: an older value is replaced. Raises JsoncError.
    """
    if not text.strip():
        written = _written(path, value, UNIT, UNIT)
        return Edit(0, text, f"{{\n{UNIT}{written}\n}}\n"), len(path)
    node = parse(text)
    for depth, key in enumerate(path):
        if node.members is None:
            raise JsoncError(f"{'.'.join(path[:depth]) or 'the document'} is no table")
        member = node.member(key)
        if member is None:
            return _insertion(text, node, path[depth:], value), len(path) - depth
        node = member.value
    if node.members is not None or isinstance(node.value, list):
        raise JsoncError(f"{'.'.join(path)} is no plain value")
    return Edit(node.start, text[node.start : node.end], json.dumps(value)), 0


def drop(text: str, path: tuple[str, ...], created: int) -> str:
    """The text without the member at ``path``; ``created`` as `put` said. Raises JsoncError.

    Tables that were created with the member go too, where nothing else is in them by now.
    """
    for length in range(len(path), len(path) - max(created, 1), -1):
        node = parse(text)
        for key in path[: length - 1]:
            member = node.member(key)
            if member is None:
                return text
            node = member.value
        last = node.member(path[length - 1])
        if last is None or (length < len(path) and _is_used(text, last.value)):
            return text
        text = _without(text, node.members or (), last)
    return text


def _is_used(text: str, node: Node) -> bool:
    """Whether anything is in a table: a member, or a comment somebody wrote."""
    return node.members is None or bool(text[node.start + 1 : node.end - 1].strip())


def _insertion(text: str, node: Node, path: tuple[str, ...], value: str) -> Edit:
    outer = _indentation(text, node.start)
    if not node.members:
        inside = text[node.start + 1 : node.end - 1]
        member = _written(path, value, outer + UNIT, UNIT)
        if inside.strip():
            return Edit(node.start + 1, "", f"\n{outer}{UNIT}{member}")
        return Edit(node.start + 1, inside, f"\n{outer}{UNIT}{member}\n{outer}")
    first = node.members[0].start
    line = text.rfind("\n", 0, first) + 1
    if line > node.start and not text[line:first].strip():
        own = text[line:first]
        unit = own.removeprefix(outer) or UNIT
        return Edit(line, "", f"{own}{_written(path, value, own, unit)},\n")
    return Edit(first, "", f"{_inline(path, value)}, ")


def _written(path: tuple[str, ...], value: str, indentation: str, unit: str) -> str:
    """A member as lines; the first line's indentation is the caller's."""
    key = json.dumps(path[0])
    if len(path) == 1:
        return f"{key}: {json.dumps(value)}"
    deeper = indentation + unit
    return f"{key}: {{\n{deeper}{_written(path[1:], value, deeper, unit)}\n{indentation}}}"


def _inline(path: tuple[str, ...], value: str) -> str:
    inner = json.dumps(value) if len(path) == 1 else "{" + _inline(path[1:], value) + "}"
    return f"{json.dumps(path[0])}: {inner}"


def _indentation(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _without(text: str, members: tuple[Member, ...], member: Member) -> str:
    number = members.index(member)
    end = skip_gap(text, member.value.end)
    has_comma = text[end : end + 1] == ","
    end = end + 1 if has_comma else member.value.end
    before = text[: member.start]
    rest = text[end:].lstrip(" \t")
    line = before.rstrip(" \t")
    if line.endswith("\n") and rest.startswith(("\n", "\r\n")):
        before, rest = line, rest[rest.index("\n") + 1 :]
    if not has_comma and number:
        # It was the last: the comma before it has nothing to part any more.
        comma = skip_gap(text, members[number - 1].value.end)
        before = before[:comma] + before[comma + 1 :].lstrip(" \t")
    return before + rest
