"""What is wrong with a configuration: every fault at once, one clear line each.

A line never repeats a value that may be a secret: urls, keys and unknown keys' values stay out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class ConfigFault(msgspec.Struct, frozen=True):
    """One fault: where it was written, which key, what to do."""

    where: str
    """A file, an environment variable, a flag; ``configuration`` for a combination of defaults."""
    key: str
    """The key as ``section.key``; empty when the fault is of the file itself."""
    text: str

    def __str__(self) -> str:
        """The line, its control characters escaped."""
        line = ": ".join(part for part in (self.where, self.key, self.text) if part)
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class ConfigError(Exception):
    """The configuration cannot be used; ``faults`` holds all that was found, in file order."""

    def __init__(self, faults: Iterable[ConfigFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))
