"""What to know of a configuration's claims and bindings although nothing is wrong with them.

Said at start; of claims also by ``/ready``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from clew.config.schema import Config
from clew.core.affinity import Mode


def claims_note(config: Config) -> str:
    """Empty where there is nothing to say."""
    if config.claims.store != "memory":
        return ""
    note = "memory: bindings are known to one process only"
    if any(upstream.discovery.startswith("kubernetes:") for upstream in config.upstream):
        note += "; kubernetes discovery finds workers and does not coordinate gateways"
    return note


LOSS: Final = {
    Mode.IMMUTABLE: "a session whose worker or claim is lost ends: 409, until its client starts a"
    " new session with a new id",
    Mode.REBIND: "a session whose worker or claim is lost is bound again, with a higher epoch",
    Mode.PREFER: "a session whose worker or claim is lost, or whose worker drains, is bound again,"
    " with a higher epoch",
}


def affinity_notes(config: Config) -> Iterator[str]:
    """For each upstream with affinity, what a lost worker means to its sessions."""
    for upstream in config.upstream:
        mode = upstream.affinity.binding
        if upstream.affinity.ttl > 0:
            yield f"upstream {upstream.name}: bindings are {mode}: {LOSS[Mode(mode)]}"
