"""What to know of a configuration's claims although nothing is wrong with them.

Said at start and by ``/ready``.
"""

from __future__ import annotations

from clew.config.schema import Config


def claims_note(config: Config) -> str:
    """Empty where there is nothing to say."""
    if config.claims.store != "memory":
        return ""
    note = "memory: bindings are known to one process only"
    if any(upstream.discovery.startswith("kubernetes:") for upstream in config.upstream):
        note += "; kubernetes discovery finds workers and does not coordinate gateways"
    return note
