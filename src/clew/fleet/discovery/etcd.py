"""Workers that announce themselves in etcd: one key each below a prefix, mostly on a lease.

The value is the url, or a JSON object ``{url, weight?, drain?}``; the key's name is the worker's
own affair. What cannot be a worker is left out and named; the others are not hurt by it. A watch
that breaks, falls silent or is compacted away begins with a whole reading; while etcd is away the
workers stay as they were.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from clew.core.workers import MAX_WORKERS, Listed
from clew.fleet.discovery.port import Audience, UnusableList, read_worker
from clew.fleet.etcd import SILENCE_S, Address, Changes, Etcd, EtcdError, read_address

FIRST_BACKOFF_S: Final = 0.25
MAX_BACKOFF_S: Final = 5.0
_CLAIMS: Final = "etcd:"


def make_etcd_source(rest: str, claims_store: str) -> EtcdSource:
    """The source of ``etcd:PREFIX`` or ``etcd:http://HOST:2379/PREFIX``.

    A bare prefix is looked for where ``claims.store`` is. Raises ValueError.
    """
    address, prefix = read_place(rest, claims_store)
    return EtcdSource(address, prefix)


def read_place(rest: str, claims_store: str) -> tuple[Address, str]:
    """Etcd's address and the prefix, which ends with a slash. Raises ValueError."""
    if not rest.startswith(("http://", "https://")):
        if not claims_store.startswith(_CLAIMS):
            raise ValueError(
                "etcd discovery needs an address: etcd:http://HOST:2379/PREFIX, or a "
                'claims.store of "etcd:http://…"'
            )
        return read_address(claims_store.removeprefix(_CLAIMS)), _closed(rest)
    *others, last = rest.split(",")
    parts = urlsplit(last)
    if not parts.path.strip("/"):
        raise ValueError("etcd discovery needs a prefix behind the address: …:2379/PREFIX")
    endpoint = urlunsplit((parts.scheme, parts.netloc, "", parts.query, ""))
    return read_address(",".join([*others, endpoint])), _closed(parts.path)


def _closed(prefix: str) -> str:
    """With a slash at its end, so that ``/a`` does not list ``/ab``."""
    return prefix.rstrip("/") + "/"


class EtcdSource:
    """The keys below one prefix of one etcd."""

    initial: tuple[Listed, ...] | None = None

    def __init__(self, address: Address, prefix: str, silence_s: float = SILENCE_S) -> None:
        self.label = f"etcd:{prefix}"
        self._address = address
        self._prefix = prefix.encode()
        self._silence_s = silence_s
        self._values: dict[bytes, bytes] = {}
        self._random = random.Random()  # noqa: S311  spreads retries in time, guards nothing

    async def follow(self, audience: Audience) -> None:
        """Tell the workers, and each change of them, until cancelled."""
        etcd = Etcd(self._address)
        backoff_s = FIRST_BACKOFF_S
        try:
            while True:
                try:
                    async for changes in etcd.follow(self._prefix, silence_s=self._silence_s):
                        backoff_s = FIRST_BACKOFF_S
                        self._apply(changes)
                        audience.heard(*self._listed())
                except EtcdError as fault:
                    audience.troubled(f"{self.label}: {fault}")
                await asyncio.sleep(backoff_s * self._random.uniform(0.8, 1.2))
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
        finally:
            await etcd.close()

    def _apply(self, changes: Changes) -> None:
        if changes.is_reset:
            self._values.clear()
        for change in changes.changes:
            if change.is_deleted:
                self._values.pop(change.row.key, None)
            else:
                self._values[change.row.key] = change.row.value

    def _listed(self) -> tuple[tuple[Listed, ...], str]:
        """The workers, and what of the keys could not be used. Of two equal urls the last rules."""
        found: dict[str, Listed] = {}
        faults: list[str] = []
        for key, value in sorted(self._values.items()):
            try:
                worker = read_worker(value)
            except UnusableList as fault:
                faults.append(f"{key.decode(errors='replace')}: {fault}")
                continue
            if len(found) < MAX_WORKERS or worker.url in found:
                found[worker.url] = worker
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        note = f"left out {faults[0]}{more}" if faults else ""
        return tuple(found.values()), note
