"""Who calls: gateway keys and the principal that a credential names.

A key is ``ck_`` and 256 random bits. What is kept of it is one keyed SHA-256 (the installation
secret is the key): a value nobody can guess needs no slow hash, which exists to make guessing
passwords dear and would only make every request dear here; and without the secret a stolen table
cannot even be tested against.

Rules:

* A key may stand in ``x-clew-key``, or as ``ck_…`` where a provider's key stands. Equal values
  count once; two different keys are no key at all.
* The states are a table. A replaced key is accepted until its grace ends; revoked is for good.
  Missing, wrong, revoked and expired get one answer, so that nothing can be probed.
* ``credential``: the principal is an HMAC of the client's own key, which its upstream verifies.
  Only long-lived keys count: a login's token changes at each refresh, and would change the
  principal with it. Two different credentials are refused, since only one of them may be verified.
"""

from __future__ import annotations

import hmac
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from clew import headers as h
from clew.core.billing import (
    CLEW_KEY_PREFIX,
    CREDENTIAL_HEADERS,
    is_gateway_key,
    is_subscription,
    secret_of,
)
from clew.core.claim import Headers, Principal
from clew.core.errors import ClewError

SECRET_BYTES: Final = 32
ID_BYTES: Final = 10
KEY_LENGTH: Final = 46
"""``ck_`` and 43 letters of URL-safe base64."""
ID_PREFIX: Final = "key_"
CREDENTIAL_PREFIX: Final = "cr_"
MAX_TAGS: Final = 32
LAST_NS: Final = 2**63 - 1
"""The last moment a store's column can hold, in the year 2262."""

_CLEW_KEY: Final = h.CLEW_KEY.encode()
_KEY_DOMAIN: Final = b"clew-key\0"
_CREDENTIAL_DOMAIN: Final = b"clew-credential\0"
"""Set before what is hashed, so that no hash of one use is ever one of another."""

_SHORT_LIVED: Final = (b"sk-ant-oat", b"ya29.", b"eyJ")
"""How tokens of a login begin: Claude's, Google's, and every JSON Web Token (RFC 7519)."""
_SCHEMES: Final = (b"basic ", b"digest ", b"negotiate ")
"""Authorization schemes that carry no API key (RFC 9110 11.1)."""

# `$` alone would let a last line feed pass.
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:/@+=~-]{1,128}$(?![\s\S])")]
"""A principal, team or project: letters that no log, table or page has to escape."""
OptionalName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:/@+=~-]{0,128}$(?![\s\S])")]
_TagName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:/@+~-]{1,64}$(?![\s\S])")]
_Label = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$(?![\s\S])")]


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request, and on whose account."""

    principal: Principal
    team: str = ""
    project: str = ""
    tags: dict[str, str] = {}
    key_id: str = ""
    """The gateway key that was used; empty where none was."""


LOCAL: Final = Caller(Principal("local"))
"""Everybody, where there is no authentication."""


class Purpose(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key is for."""

    principal: Name
    team: OptionalName = ""
    project: OptionalName = ""
    name: _Label = ""
    tags: Annotated[dict[_TagName, _Label], msgspec.Meta(max_length=MAX_TAGS)] = {}


class Order(Purpose, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made."""

    expires_at_ns: int | None = None


class Key(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one key but its secret. Times are Unix nanoseconds."""

    id: str
    hash: bytes
    principal: Principal
    created_at_ns: int
    team: str = ""
    project: str = ""
    name: str = ""
    tags: dict[str, str] = {}
    expires_at_ns: int | None = None
    grace_until_ns: int | None = None
    """Set once it was replaced: accepted until then."""
    replaced_by: str | None = None
    revoked_at_ns: int | None = None

    @property
    def caller(self) -> Caller:
        """Who calls with it."""
        return Caller(self.principal, self.team, self.project, self.tags, self.id)


class KeyState(StrEnum):
    """Where a key stands."""

    ACTIVE = "active"
    GRACE = "grace"
    """Replaced, still accepted."""
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeyVerb(StrEnum):
    """What can be done to a key."""

    ROTATE = "rotate"
    REVOKE = "revoke"


ACCEPTED: Final = frozenset({KeyState.ACTIVE, KeyState.GRACE})

TRANSITIONS: Final[dict[tuple[KeyState, KeyVerb], KeyState]] = {
    (KeyState.ACTIVE, KeyVerb.ROTATE): KeyState.GRACE,
    (KeyState.ACTIVE, KeyVerb.REVOKE): KeyState.REVOKED,
    (KeyState.GRACE, KeyVerb.REVOKE): KeyState.REVOKED,
    (KeyState.EXPIRED, KeyVerb.REVOKE): KeyState.REVOKED,
    (KeyState.REVOKED, KeyVerb.REVOKE): KeyState.REVOKED,
}
"""What is not here is refused: nothing brings a key back."""


def key_state(key: Key, now_ns: int) -> KeyState:
    """The state of a key at a moment. Its last nanosecond is the one before the limit."""
    if key.revoked_at_ns is not None:
        return KeyState.REVOKED
    limits = (key.expires_at_ns, key.grace_until_ns)
    if any(limit is not None and now_ns >= limit for limit in limits):
        return KeyState.EXPIRED
    return KeyState.ACTIVE if key.grace_until_ns is None else KeyState.GRACE


def format_secret(bits: bytes) -> str:
    """The key of 32 random bytes, as its owner gets it."""
    return CLEW_KEY_PREFIX.decode() + urlsafe_b64encode(bits).decode().rstrip("=")


def format_id(bits: bytes) -> str:
    """The id of 10 random bytes, by which a key is spoken of."""
    return ID_PREFIX + b32encode(bits).decode().lower()


def hash_secret(secret: bytes, key: bytes) -> bytes:
    """What is kept of a key: 32 bytes. ``secret`` is the installation's."""
    return hmac.digest(secret, _KEY_DOMAIN + key, "sha256")


def make_key(order: Order, key_id: str, hashed: bytes, now_ns: int) -> Key:
    """A new key. Raises ClewError ``bad_request`` when it would be expired already."""
    if order.expires_at_ns is not None and order.expires_at_ns <= now_ns:
        raise ClewError("bad_request", "expires must be in the future")
    return Key(
        id=key_id,
        hash=hashed,
        principal=Principal(order.principal),
        created_at_ns=now_ns,
        team=order.team,
        project=order.project,
        name=order.name,
        tags=order.tags,
        expires_at_ns=order.expires_at_ns,
    )


def rotate(key: Key, key_id: str, hashed: bytes, now_ns: int, grace_ns: int) -> tuple[Key, Key]:
    """The replaced key and its successor, which lives as long again as the first was meant to.

    Raises ClewError ``bad_request`` where the table has no way.
    """
    _judge(key, KeyVerb.ROTATE, now_ns)
    lifetime_ns = None if key.expires_at_ns is None else key.expires_at_ns - key.created_at_ns
    successor = msgspec.structs.replace(
        key,
        id=key_id,
        hash=hashed,
        created_at_ns=now_ns,
        expires_at_ns=None if lifetime_ns is None else min(now_ns + lifetime_ns, LAST_NS),
    )
    replaced = msgspec.structs.replace(key, grace_until_ns=now_ns + grace_ns, replaced_by=key_id)
    return replaced, successor


def revoke(key: Key, now_ns: int) -> Key:
    """The key, revoked; of a revoked one the first time stays."""
    _judge(key, KeyVerb.REVOKE, now_ns)
    return msgspec.structs.replace(key, revoked_at_ns=key.revoked_at_ns or now_ns)


def _judge(key: Key, verb: KeyVerb, now_ns: int) -> None:
    state = key_state(key, now_ns)
    if (state, verb) not in TRANSITIONS:
        word = "replaced already" if state is KeyState.GRACE else state.value
        raise ClewError("bad_request", f"this key is {word}; create a new one")


def authenticate(
    headers: Headers,
    known: Mapping[bytes, Key],
    secret: bytes,
    now_ns: int,
    *,
    allow_subscription: bool,
) -> Caller:
    """The caller by gateway key. ``known`` is keyed by hash.

    Raises ClewError ``unauthorized``, ``ambiguous_header``, ``subscription_refused``.
    """
    sent = _only(_gateway_keys(headers))
    if sent is None or len(sent) != KEY_LENGTH:
        raise ClewError("unauthorized")
    hashed = hash_secret(secret, sent)
    key = known.get(hashed)
    # The table's look-up is no comparison of secrets: what it may leak is about a keyed hash.
    if key is None or not hmac.compare_digest(key.hash, hashed):
        raise ClewError("unauthorized")
    if key_state(key, now_ns) not in ACCEPTED:
        raise ClewError("unauthorized")
    if not allow_subscription and is_subscription(headers):
        raise ClewError("subscription_refused")
    return key.caller


def authenticate_by_credential(headers: Headers, secret: bytes) -> Caller:
    """The caller by the client's own API key.

    Raises ClewError ``unauthorized``, ``ambiguous_header``, ``subscription_refused``.
    """
    found = _credentials(headers)
    if is_subscription(headers) or any(one.startswith(_SHORT_LIVED) for _, one in found):
        raise ClewError("subscription_refused")
    sent = _only(found)
    if sent is None:
        raise ClewError(
            "unauthorized", "no API key was sent, or two different ones; send the provider's alone"
        )
    digest = hmac.digest(secret, _CREDENTIAL_DOMAIN + sent, "sha256")
    name = b32encode(digest[:16]).decode().rstrip("=").lower()
    return Caller(Principal(CREDENTIAL_PREFIX + name))


def _gateway_keys(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [
        (name, value.strip() if name == _CLEW_KEY else secret_of(name, value))
        for name, value in headers
        if (name == _CLEW_KEY and value.strip())
        or (name in CREDENTIAL_HEADERS and is_gateway_key(name, value))
    ]


def _credentials(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Provider credentials by header name; without Clew's key and what can be no API key."""
    return [
        (name, secret_of(name, value))
        for name, value in headers
        if name in CREDENTIAL_HEADERS
        and secret_of(name, value)
        and not is_gateway_key(name, value)
        and not value.lower().startswith(_SCHEMES)
    ]


def _only(found: list[tuple[bytes, bytes]]) -> bytes | None:
    """The one secret of all fields; None for none, and for two that differ.

    Raises ClewError ``ambiguous_header`` for a field that came twice.
    """
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise ClewError("ambiguous_header", f"{name.decode()} came twice; send it once")
    secrets = {secret for _, secret in found}
    return secrets.pop() if len(secrets) == 1 else None
