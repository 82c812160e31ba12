"""A change of one settings file that can be taken back exactly.

As long as the file is as the change left it, taking back restores every byte, or removes the file
that was not there before. Where somebody changed it in between, only Clew's own lines go: what else
is in it stays, and a value that is no longer Clew's is left alone.
"""

from __future__ import annotations

import hashlib

import msgspec

from clew.agents.jsonc import JsoncError, parse, value_at
from clew.agents.jsonc_edit import Edit, drop, put
from clew.agents.lines import (
    LineError,
    add_line,
    drop_line,
    profile_line,
    put_line,
    put_toml_line,
    toml_value,
    value_of,
)
from clew.agents.table import SettingForm
from clew.agents.targets import Target


class ChangeError(Exception):
    """A file cannot be changed; the text says which and why."""


class Change(msgspec.Struct, frozen=True):
    """One edit of one file, with what is needed to take it back."""

    path: str
    form: SettingForm
    key: tuple[str, ...]
    value: str
    before: str
    """Digest of the text before; empty: there was no file."""
    after: str
    edit: Edit
    created: int = 0
    """JSON: members that the edit created, outermost first."""


class Undone(msgspec.Struct, frozen=True):
    """The text after taking a change back; None: no file. ``is_found``: whether it was there."""

    text: str | None
    is_found: bool = True


def digest(text: str) -> str:
    """Of a file's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def present(target: Target, text: str | None) -> str:
    """The value that stands there now; empty for none. Raises ChangeError."""
    if text is None or target.form is SettingForm.PROFILE:
        return ""
    try:
        if target.form is SettingForm.JSON:
            found = value_at(text, target.key)
            return found if isinstance(found, str) else ""
        if target.form is SettingForm.TOML:
            return toml_value(text, target.key[-1])
    except (JsoncError, LineError) as error:
        raise ChangeError(f"{target.paths[0]}: {error}") from None
    return value_of(text, target.key[-1])


def change(target: Target, path: str, text: str | None) -> tuple[Change, str]:
    """The change that writes a target, and the text after it. Raises ChangeError."""
    created = 0
    try:
        if target.form is SettingForm.JSON:
            edit, created = put(text or "", target.key, target.value)
        else:
            edit = _line_edit(target, text or "")
    except (JsoncError, LineError) as error:
        raise ChangeError(f"{path}: {error}") from None
    after = edit.apply(text or "")
    before = "" if text is None else digest(text)
    form, key, value = target.form, target.key, target.value
    return Change(path, form, key, value, before, digest(after), edit, created), after


def undo(change: Change, text: str | None) -> Undone:
    """What to make of the file as it is now. Raises ChangeError."""
    if text is None:
        return Undone(None, is_found=False)
    if digest(text) == change.after:
        return _finished(change, _reversed(change.edit).apply(text))
    try:
        left = _without(change, text)
    except JsoncError as error:
        raise ChangeError(f"{change.path}: {error}; take {'.'.join(change.key)} out") from None
    if left == text:
        return Undone(text, is_found=False)
    return _finished(change, left)


def _line_edit(target: Target, text: str) -> Edit:
    name, value = target.key[-1], target.value
    if target.form is SettingForm.PROFILE:
        return add_line(text, profile_line(target.shell, name, value))
    if target.form is SettingForm.TOML:
        return put_toml_line(text, name, f'{name} = "{value}"')
    return put_line(text, name, f"{name}={value}")


def _reversed(edit: Edit) -> Edit:
    return Edit(edit.start, edit.inserted, edit.removed)


def _without(change: Change, text: str) -> str:
    if change.form is not SettingForm.JSON:
        return drop_line(text, change.edit)
    if value_at(text, change.key) != change.value:
        return text
    if change.created:
        return drop(text, change.key, change.created)
    node = parse(text)
    for key in change.key:
        member = node.member(key)
        assert member is not None  # value_at has found it
        node = member.value
    return text[: node.start] + change.edit.removed + text[node.end :]


def _finished(change: Change, text: str) -> Undone:
    """No file, where there was none and nothing but the shell of ours is left."""
    is_shell = change.form is SettingForm.JSON and _is_empty_table(text)
    if not change.before and (not text.strip() or is_shell):
        return Undone(None)
    return Undone(text)


def _is_empty_table(text: str) -> bool:
    return "".join(text.split()) == "{}"
