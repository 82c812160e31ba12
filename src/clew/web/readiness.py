"""Whether the installation can serve, part by part, each with its reason.

Ready means that every part is; the parts are the keeper, the store, the gateways, the journal, the
claims and the workers. A part's note is said even when it is ready.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from clew.config.schema import Config
from clew.fleet.notes import claims_note
from clew.web.fleets import Reports, Troubles, fleet_troubles
from clew.web.gateways import Gateway

JOURNAL_ROOM_BYTES: Final = 64 * 1024 * 1024
"""Below this the next journal segment may not fit."""


class Part(msgspec.Struct, frozen=True):
    """One part: ``reason`` says why it is not ready, or what to know although it is."""

    ready: bool
    reason: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """All parts."""

    ready: bool
    parts: dict[str, Part]


def judge(parts: dict[str, Part]) -> Readiness:
    """Ready when every part is."""
    return Readiness(all(part.ready for part in parts.values()), parts)


def gateways_part(gateways: Sequence[Gateway]) -> Part:
    """Every gateway must be up and ready; the reason names each that is not."""
    missing = [f"gateway {one.index}: {one.reason}" for one in gateways if not one.is_ready]
    return Part(not missing, "; ".join(missing))


def journal_part(directory: Path) -> Part:
    """The directory must be there, writable, and have room for another segment."""
    if not directory.is_dir():
        return Part(False, "the journal directory is missing")
    if not os.access(directory, os.W_OK | os.X_OK):
        return Part(False, "the journal directory cannot be written")
    free = shutil.disk_usage(directory).free
    if free < JOURNAL_ROOM_BYTES:
        return Part(False, f"only {free} bytes are free for the journal")
    return Part(True)


def claims_part(config: Config, troubles: Troubles) -> Part:
    """Claims in memory are ready, and say what they cannot do; others say why they cannot be asked.

    One gateway that reaches them is enough, and none where new sessions are served unbound.
    """
    said = {index: text for index, text in troubles.items() if text}
    if not said:
        return Part(True, claims_note(config))
    texts = "; ".join(f"gateway {index}: {text}" for index, text in said.items())
    return Part(config.claims.on_outage == "unbound" or len(said) < len(troubles), texts)


def workers_part(reports: Reports) -> Part:
    """Says which upstreams have no worker that could serve, and which lists cannot be read.

    It is ready nevertheless, as with a vendor that is down: another gateway would not help.
    """
    return Part(True, "; ".join(fleet_troubles(reports)))
