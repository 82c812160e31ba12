"""How SGLang is told of two phases: the bootstrap fields, to both workers at the same time.

Both get the client's request with ``bootstrap_host``, ``bootstrap_port`` and ``bootstrap_room``.
The decode worker asks the prefill worker's bootstrap server (``--disaggregation-bootstrap-port``)
for that room, so neither can end without the other: the requests run side by side, the decode
worker's answer is the client's. Source: SGLang's documentation of PD disaggregation.
"""

from __future__ import annotations

from typing import Final

import msgspec

from clew.core.phases import Members, write_members

DEFAULT_BOOTSTRAP_PORT: Final = 8998
"""SGLang's own default."""
ROOM_BITS: Final = 63
"""A room is a non-negative 64-bit signed integer."""


def shared_body(members: Members, host: str, port: int, room: int) -> bytes:
    """What both workers get. ``host`` is the prefill worker's; ``room`` is for this request alone.

    A bootstrap of the client's own making is replaced. An IPv6 address is put in brackets.
    """
    named = {
        "bootstrap_host": f"[{host}]" if ":" in host else host,
        "bootstrap_port": port,
        "bootstrap_room": room & ((1 << ROOM_BITS) - 1),
    }
    asked = {name: value for name, value in members.items() if name not in named}
    for name, value in named.items():
        asked[name] = msgspec.Raw(msgspec.json.encode(value))
    return write_members(asked)
