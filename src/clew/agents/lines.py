"""One line in a file of lines: a ``.env`` file, a shell's profile, the head of a TOML file.

`put_line` replaces the line that sets a name or adds one; `drop_line` takes exactly that line out
again, in whatever text it stands by then.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import Final

from clew.agents.jsonc_edit import Edit

_TABLE: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)
_VALUE: Final = r"^[ \t]*(?:export[ \t]+)?{name}[ \t]*=[ \t]*(.*)$"


class LineError(ValueError):
    """The file cannot be read, or sets the name in a way that is more than one line."""


def value_of(text: str, name: str) -> str:
    """What a ``.env`` file sets a variable to, quotes taken off; empty when it does not."""
    found = re.findall(_VALUE.format(name=re.escape(name)), text, re.MULTILINE)
    value = found[-1].strip() if found else ""
    if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1:
        return value[1:-1]
    return value.partition(" #")[0].strip()


def toml_value(text: str, name: str) -> str:
    """What the first table of a TOML file sets a key to; empty when it does not, or to no text.

    Raises LineError.
    """
    try:
        found = tomllib.loads(text).get(name)
    except tomllib.TOMLDecodeError as error:
        raise LineError(f"is no TOML: {error}") from None
    return found if isinstance(found, str) else ""


def put_line(text: str, name: str, line: str) -> Edit:
    """The edit after which ``line`` sets ``name``: for the last line that does, or at the end."""
    found = list(re.finditer(_VALUE.format(name=re.escape(name)), text, re.MULTILINE))
    if found:
        return Edit(found[-1].start(), found[-1][0].rstrip("\r"), line)
    return add_line(text, line)


def add_line(text: str, line: str) -> Edit:
    """The edit that adds ``line`` at the end; at the beginning where the last line has no end.

    An added line end could not be told from the user's own later.
    """
    at = len(text) if not text or text.endswith("\n") else 0
    return Edit(at, "", f"{line}\n")


def put_toml_line(text: str, name: str, line: str) -> Edit:
    """The edit after which ``line`` sets a key of the first table. Raises LineError."""
    try:
        is_set = name in tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LineError(f"is no TOML: {error}") from None
    if not is_set:
        return Edit(0, "", f"{line}\n")
    table = _TABLE.search(text)
    head = text[: table.start()] if table else text
    found = list(re.finditer(_VALUE.format(name=re.escape(name)), head, re.MULTILINE))
    edit = Edit(found[-1].start(), found[-1][0].rstrip("\r"), line) if found else None
    if edit is None or not _sets(edit.apply(text), name, line):
        raise LineError(f"sets {name} in a way that is not one line; change it by hand")
    return edit


def drop_line(text: str, edit: Edit) -> str:
    """The text without the line an edit added, or with the one it replaced."""
    lines = text.splitlines(keepends=True)
    wanted = edit.inserted.strip()
    for number in reversed(range(len(lines))):
        if lines[number].strip() != wanted:
            continue
        ending = lines[number][len(lines[number].rstrip("\r\n")) :]
        lines[number] = edit.removed + ending if edit.removed else ""
        return "".join(lines)
    return text


def profile_line(shell: str, name: str, value: str) -> str:
    """The line by which a shell's profile sets a variable."""
    if shell == "fish":
        return f"set -gx {name} {shlex.quote(value)}  # clew setup"
    return f"export {name}={shlex.quote(value)}  # clew setup"


def _sets(text: str, name: str, line: str) -> bool:
    try:
        return bool(tomllib.loads(text).get(name) == tomllib.loads(line)[name])
    except tomllib.TOMLDecodeError:
        return False
