"""Settings files as `clew setup` reads, writes and restores them, and its note of what it did.

A file is replaced whole, with its permissions; a link to it stays a link. The note is
``setup/AGENT.json`` in the data directory, written before the first file is changed. It holds no
text of the files but a value that was replaced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from clew.agents.changes import Change

MAX_BYTES: Final = 4 * 1024 * 1024
NEW_FILE_MODE: Final = 0o600


class Note(msgspec.Struct, frozen=True):
    """What was done for one agent."""

    agent: str
    gateway: str
    changes: tuple[Change, ...]
    directories: tuple[str, ...] = ()
    """Made for new files, outermost first."""


def read_text(path: str) -> str | None:
    """A file's text, byte for byte; None where there is none. Raises OSError, ValueError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is too large for a settings file")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None


def write_text(path: str, text: str) -> None:
    """Replace a file, or make it (0600). Raises OSError."""
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o7777 if target.exists() else NEW_FILE_MODE
    draft = target.with_name(f".{target.name}.clew-{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW_FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(mode)
        draft.rename(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def restore(path: str, text: str | None) -> None:
    """Write a file's text, or remove it (None). Raises OSError."""
    if text is None:
        Path(path).unlink(missing_ok=True)
    else:
        write_text(path, text)


def missing_directories(path: str) -> tuple[str, ...]:
    """The directories above a file that are not there, outermost first."""
    above = Path(path).parents
    return tuple(str(one) for one in reversed(above) if not one.exists())


def remove_empty(directories: tuple[str, ...]) -> None:
    """Remove those that are empty by now, innermost first."""
    for name in reversed(directories):
        try:
            Path(name).rmdir()
        except OSError:
            return


def note_path(data: Path, agent: str) -> Path:
    """Where the note of an agent is."""
    return data / "setup" / f"{agent}.json"


def read_note(data: Path, agent: str) -> Note | None:
    """The note of an agent; None where it is not set up. Raises OSError, ValueError."""
    text = read_text(str(note_path(data, agent)))
    if text is None:
        return None
    return msgspec.json.decode(text, type=Note)


def write_note(data: Path, note: Note) -> None:
    """Keep a note. Raises OSError."""
    path = note_path(data, note.agent)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_text(str(path), msgspec.json.format(msgspec.json.encode(note)).decode() + "\n")


def remove_note(data: Path, agent: str) -> None:
    """The agent is not set up any more. Raises OSError."""
    note_path(data, agent).unlink(missing_ok=True)
