"""What a source of workers must do, and how one worker is written where people list them.

A source says whole lists, never differences: what follows it cannot drift. It keeps trying by
itself and says what is wrong; the list that was good last stays in force meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from clew.config.addresses import check_url, masked_url
from clew.core.workers import MAX_WEIGHT, MAX_WORKERS, Listed


class Audience(Protocol):
    """Who follows a source."""

    def heard(self, listed: Sequence[Listed], note: str = "") -> None:
        """These are the workers now, all of them. ``note`` says what of it could not be used."""
        ...

    def troubled(self, reason: str) -> None:
        """The list cannot be read now: what was heard last stays in force."""
        ...


class Source(Protocol):
    """Where the workers of one upstream are listed."""

    @property
    def label(self) -> str:
        """As configured, safe to show."""
        ...

    @property
    def initial(self) -> tuple[Listed, ...] | None:
        """The list where it is known without asking anybody; else None."""
        ...

    async def follow(self, audience: Audience) -> None:
        """Tell the list and each change of it until cancelled; returns where none can come."""
        ...


class UnusableList(ValueError):  # noqa: N818  says what the list is
    """A list of workers that cannot be meant; the text is for its author."""


def check_listed(listed: Iterable[Listed]) -> tuple[Listed, ...]:
    """The workers, each possible and none twice. Raises UnusableList."""
    found: dict[str, Listed] = {}
    for worker in listed:
        check_one(worker)
        if worker.url in found:
            raise UnusableList(f"{worker.url} is listed twice")
        found[worker.url] = worker
    if len(found) > MAX_WORKERS:
        raise UnusableList(f"lists {len(found)} workers; at most {MAX_WORKERS} are followed")
    return tuple(found.values())


def check_one(worker: Listed) -> None:
    """Raise UnusableList unless this can be a worker."""
    try:
        check_url(worker.url)
    except ValueError as fault:
        raise UnusableList(f"{masked_url(worker.url)!r:.80}: {fault}") from None
    if not 1 <= worker.weight <= MAX_WEIGHT:
        raise UnusableList(f"{worker.url}: weight must be from 1 to {MAX_WEIGHT}")


def read_worker(value: bytes) -> Listed:
    """One worker as a JSON object ``{url, weight?, drain?}`` or as its bare url.

    Raises UnusableList.
    """
    text = value.strip()
    try:
        if text.startswith(b"{"):
            worker = msgspec.json.decode(text, type=Listed)
        else:
            worker = Listed(text.decode())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise UnusableList(f"is no worker: {fault}") from None
    check_one(worker)
    return worker
