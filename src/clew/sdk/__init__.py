"""Stamps a program's LLM calls with the session they belong to. Needs the standard library only.

    import clew

    clew.instrument("http://127.0.0.1:2539")  # or CLEW_GATEWAY
    with clew.session("run-42") as run:
        ...  # calls in here are the run's
        with run.child("researcher"):
            ...  # these are its child's

Everything here is also in the package itself (``clew.session`` is ``clew.sdk.session``).
Guide: `docs/sdk.md`.
"""

from clew.sdk.carrying import carry, carrying
from clew.sdk.instrumenting import TRANSPORTS, instrument, uninstrument
from clew.sdk.session import KINDS, Kind, Session, current, headers, kind, session
from clew.sdk.warning import ClewWarning

__all__ = [
    "KINDS",
    "TRANSPORTS",
    "ClewWarning",
    "Kind",
    "Session",
    "carry",
    "carrying",
    "current",
    "headers",
    "instrument",
    "kind",
    "session",
    "uninstrument",
]
