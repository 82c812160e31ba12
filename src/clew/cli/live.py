"""Follows the admin port's live events: each record once, also over a lost connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx

from clew.cli.admin import AdminError, AdminPort

SILENCE_S: Final = 30.0
"""Longer than the port's comments are apart: then the connection is dead."""
RETRY_S: Final = 1.0


class NoLiveError(AdminError):
    """This admin port has no live events: it is of an older release."""


def follow_live(
    port: AdminPort, last: str = "", wait: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any] | None]:
    """Records as they land, after the event ``last`` where one is named; for ever.

    The first value is None: everything that lands from then on will come. Raises `NoLiveError`,
    and `AdminError` when the first connection fails; later ones are tried again.
    """
    has_begun = False
    while True:
        try:
            for place, record in _events(port, last):
                last = place or last
                if record is not None:
                    yield record
                elif not has_begun:
                    has_begun = True
                    yield None
        except NoLiveError:
            raise
        except AdminError:
            if not has_begun:
                raise
        wait(RETRY_S)


def _events(port: AdminPort, last: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    headers = {"last-event-id": last} if last else {}
    try:
        with port.stream("/api/v1/live", headers, SILENCE_S) as response:
            if response.status_code == 404:
                raise NoLiveError("this admin port has no live events")
            if response.status_code != 200:
                response.read()
                raise port.refused(response)
            yield from _records(response.iter_lines())
    except httpx.HTTPError as error:
        raise port.lost(error) from None


def _records(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(id, record) of each event; an event without record has only its id."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line:
            fields[name] = value.removeprefix(" ")
            continue
        if fields.get("id"):
            is_record = "data" in fields and "event" not in fields
            yield fields["id"], json.loads(fields["data"]) if is_record else None
        fields = {}
