"""Commands on gateway keys: create, rotate, revoke.

The key itself is made here, goes once to whoever asked and is nowhere kept. A change is committed,
then told to every gateway, then confirmed: what is returned says which gateways may still act on
the state before (``unconfirmed``; they hear of it as soon as they listen again).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa

from clew.core.errors import ClewError
from clew.core.keys import (
    ID_BYTES,
    SECRET_BYTES,
    Key,
    Order,
    format_id,
    format_secret,
    hash_secret,
    make_key,
    revoke,
    rotate,
)
from clew.keeper.protocol import KeysUsed
from clew.keeper.reach import Reach
from clew.store.keys import find_key, insert_key, note_use, update_key

MAX_KEYS: Final = 50_000
"""Keys that are not revoked: each is some 400 bytes in every gateway."""
LONGEST_GRACE_NS: Final = 3_650 * 86_400 * 1_000_000_000

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `rotate_key`."""

    id: str
    grace_ns: int


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `revoke_key`."""

    id: str


async def create_key(reach: Reach, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``Order`` → ``{id, key, unconfirmed}``."""
    order = _read(arguments, Order)
    _make_room(reach)
    secret, key_id, hashed = _mint(reach)
    made = make_key(order, key_id, hashed, reach.now_ns())

    def write(connection: sa.Connection) -> None:
        insert_key(connection, made)
        reach.log.note_keys(connection, [made.id])

    await reach.write(write, key_id=made.id)
    _log.info("gateway key %s created for principal %s", made.id, made.principal)
    return {"id": made.id, "key": secret, "unconfirmed": await _tell(reach, made)}


async def rotate_key(reach: Reach, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``Rotation`` → ``{id, key, unconfirmed}`` of the successor."""
    asked = _read(arguments, Rotation)
    if not 0 <= asked.grace_ns <= LONGEST_GRACE_NS:
        raise ClewError("bad_request", "grace must be from 0s to 3650d")
    _make_room(reach)
    secret, key_id, hashed = _mint(reach)
    now_ns = reach.now_ns()

    def change(connection: sa.Connection) -> tuple[Key, Key]:
        found = _find(connection, asked.id)
        replaced, successor = rotate(found, key_id, hashed, now_ns, asked.grace_ns)
        update_key(connection, replaced)
        insert_key(connection, successor)
        reach.log.note_keys(connection, [replaced.id, successor.id])
        return replaced, successor

    changed = await reach.write(change, key_id=asked.id, successor=key_id)
    _log.info("gateway key %s replaced by %s", asked.id, key_id)
    return {"id": key_id, "key": secret, "unconfirmed": await _tell(reach, *changed)}


async def revoke_key(reach: Reach, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``Named`` → ``{id, unconfirmed}``. A key that is revoked already stays so."""
    asked = _read(arguments, Named)
    now_ns = reach.now_ns()

    def change(connection: sa.Connection) -> Key:
        revoked = revoke(_find(connection, asked.id), now_ns)
        update_key(connection, revoked)
        reach.log.note_keys(connection, [revoked.id])
        return revoked

    revoked = await reach.write(change, key_id=asked.id)
    _log.info("gateway key %s revoked", asked.id)
    return {"id": asked.id, "unconfirmed": await _tell(reach, revoked)}


async def keep_use(reach: Reach, used: KeysUsed) -> None:
    """Note when keys were used last; a store that cannot be written loses only that."""
    try:
        await reach.write(lambda connection: note_use(connection, used.ids, used.at_ns))
    except ClewError:
        _log.warning("the last use of %d keys was not noted", len(used.ids))


async def _tell(reach: Reach, *changed: Key) -> list[str]:
    reach.server.tell_keys(changed)
    missing = await reach.server.confirm()
    if missing:
        _log.warning("a change of keys is not confirmed by %s", ", ".join(missing))
    return missing


def _mint(reach: Reach) -> tuple[str, str, bytes]:
    """The key, its id, and what is kept of it."""
    secret = format_secret(reach.random(SECRET_BYTES))
    hashed = hash_secret(reach.secret, secret.encode())
    return secret, format_id(reach.random(ID_BYTES)), hashed


def _make_room(reach: Reach) -> None:
    if reach.server.key_count >= MAX_KEYS:
        raise ClewError("bad_request", f"there are {MAX_KEYS} keys; revoke those out of use")


def _find(connection: sa.Connection, key_id: str) -> Key:
    found = find_key(connection, key_id)
    if found is None:
        raise ClewError("not_found", "no key has this id; list them with `clew keys list`")
    return found


def _read(arguments: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(arguments, kind)
    except msgspec.ValidationError as error:
        raise ClewError("bad_request", str(error)) from None
