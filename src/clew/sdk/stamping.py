"""Decides what one outgoing call carries; the transports (`over_*`) ask here and obey.

Rules, for every hop anew (a redirect is a call of its own):

* Outside of any session, and towards every origin that is no known gateway: nothing.
* A canonical id that the caller has set is kept, and then nothing is added to it.
* Any other of the headers that the caller has set is kept, the rest is added.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Final

from clew.headers import SESSION_ID
from clew.sdk.process import PROCESS
from clew.sdk.session import current
from clew.sdk.warning import ClewWarning

_NOTHING: Final[Mapping[str, str]] = {}
_TWIN: Final = SESSION_ID.replace("-", "_")
"""Beside it the gateway refuses a canonical id as ambiguous."""

LOST: Final = (
    "a call to the gateway was made in a thread without a session while another thread is inside "
    "one; sessions do not follow into threads by themselves: start them with clew.carry(function) "
    "or clew.carrying(executor)"
)


def stamps(
    scheme: str, host: str, port: int | None, is_set: Callable[[str], bool]
) -> Mapping[str, str]:
    """The headers to add to a call to this origin; ``is_set`` says which names it has already.

    Warns (`clew.ClewWarning`) of a call to a gateway from a thread that lost its session.
    """
    gate = PROCESS.gate
    if gate is None:
        return _NOTHING
    found = current()
    if found is None:
        if PROCESS.has_lost_session() and gate.admits(scheme, host, port):
            warnings.warn(LOST, ClewWarning, stacklevel=4)
        return _NOTHING
    if not gate.admits(scheme, host, port) or is_set(SESSION_ID) or is_set(_TWIN):
        return _NOTHING
    return {name: value for name, value in found.headers().items() if not is_set(name)}
