"""Whether an installation has the secret of those it shares the store with.

Session ids derive from the secret and gateway keys are hashed with it: with another one an id would
be two sessions and no key would fit. What is stored proves the secret and does not tell it.
"""

from __future__ import annotations

import hmac
from typing import Final

import sqlalchemy as sa

from clew.store.schema import secret_proof

_DOMAIN: Final = b"clew shared store"


class OtherSecretError(Exception):
    """The store belongs to installations with another secret; its one line says what to do."""


def check_secret(connection: sa.Connection, secret: bytes) -> None:
    """Compare with what the first installation left; be the first where there is none.

    In a writing transaction. Raises OtherSecretError.
    """
    mine = hmac.digest(secret, _DOMAIN, "sha256")
    theirs = connection.scalar(sa.select(secret_proof.c.proof))
    if theirs is None:
        connection.execute(sa.insert(secret_proof), {"id": 1, "proof": mine})
    elif not hmac.compare_digest(theirs, mine):
        raise OtherSecretError(
            "the store belongs to gateways with another secret; "
            "give every host the same one (auth.secret_env)"
        )
