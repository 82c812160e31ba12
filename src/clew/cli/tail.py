"""`clew tail`: calls as they land, one line each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import click

from clew.cli.admin import AdminPort, session_path
from clew.cli.live import NoLiveError, follow_live
from clew.cli.options import View, view_options
from clew.cli.text import count, local_time, safe, say, say_json, share, shortened, usd

POLLED_SESSIONS: Final = 100
"""Sessions looked at per round: the most recently seen."""
POLLED_CALLS: Final = 100
"""Calls read of each changed session per round."""
REMEMBERED: Final = 20_000
"""Calls remembered as printed; older ones cannot come again within the polled window."""
EPILOG: Final = """\b
Examples:
  clew tail
  clew tail --lines 50 --no-follow
  clew tail --json | jq .model
"""


class Follower:
    """Finds calls that were not shown yet, by what changed among the newest sessions."""

    def __init__(self, port: AdminPort) -> None:
        self._port = port
        self._seen: OrderedDict[tuple[Any, ...], None] = OrderedDict()
        self._marks: OrderedDict[str, tuple[Any, ...]] = OrderedDict()

    def poll(self) -> list[dict[str, Any]]:
        """Calls since the last poll, oldest first; the first poll returns the recent past."""
        page = self._port.get("/api/v1/sessions", {"sort": "last_seen", "limit": POLLED_SESSIONS})
        found: list[dict[str, Any]] = []
        for session in page["items"]:
            mark = (session.get("requests"), session.get("last_seen_at"))
            if self._marks.get(session["id"]) == mark:
                continue
            _keep(self._marks, session["id"], mark)
            found += self._new_records(session["id"])
        return sorted(found, key=lambda record: str(record.get("received_at")))

    def is_new(self, record: dict[str, Any]) -> bool:
        """Whether a call was not found yet; it counts as found from now on."""
        key = _key(record)
        if key in self._seen:
            return False
        _keep(self._seen, key, None)
        return True

    def _new_records(self, session: str) -> list[dict[str, Any]]:
        path = session_path(session, "/requests")
        page = self._port.get(path, {"order": "desc", "limit": POLLED_CALLS})
        return [record for record in page["items"] if self.is_new(record)]


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    """An unsettled call that is settled late is worth a second line."""
    return record["request_id"], record["attempt"], record.get("state")


def _keep(memory: OrderedDict[Any, Any], key: object, value: object) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)


@click.command(epilog=EPILOG)
@click.option(
    "--lines", type=click.IntRange(0, 10_000), default=10, show_default=True, help="Past calls."
)
@click.option("--no-follow", is_flag=True, help="Print the past calls and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between looks, where the gateway cannot tell by itself.",
)
@view_options
def tail(view: View, lines: int, no_follow: bool, interval: float) -> None:
    """Print calls as they land; Ctrl-C ends."""
    _, port = view.open()
    with port:
        follower = Follower(port)
        if no_follow:
            _print_past(follower, lines, view.as_json)
            return
        try:
            _follow_live(port, follower, lines, view.as_json)
        except NoLiveError:
            _print_past(follower, lines, view.as_json)
            follow(follower, lambda: time.sleep(interval), as_json=view.as_json)


def _follow_live(port: AdminPort, follower: Follower, lines: int, as_json: bool) -> None:
    """The past once the stream has begun, so that nothing falls between; then what lands."""
    try:
        for record in follow_live(port):
            if record is None:
                _print_past(follower, lines, as_json)
            elif follower.is_new(record):
                _print([record], as_json)
    except KeyboardInterrupt:
        return


def _print_past(follower: Follower, lines: int, as_json: bool) -> None:
    past = follower.poll()
    _print(past[max(len(past) - lines, 0) :], as_json)


def follow(follower: Follower, wait: Callable[[], None], *, as_json: bool) -> None:
    """Print what lands until ``wait`` is interrupted."""
    try:
        while True:
            wait()
            _print(follower.poll(), as_json)
    except KeyboardInterrupt:
        return


def _print(records: list[dict[str, Any]], as_json: bool) -> None:
    for record in records:
        if as_json:
            say_json(record, is_line=True)
        else:
            say(line_of(record))


def line_of(record: dict[str, Any]) -> str:
    """One call in one line of at most a hundred columns."""
    whole, cached = record.get("input_tokens"), record.get("cached_tokens")
    cells = (
        local_time(record.get("received_at"), "%H:%M:%S"),
        f"{shortened(record.get('session_id'), 20):20}",
        f"{shortened(record.get('kind'), 10):10}",
        f"{shortened(record.get('model'), 20):20}",
        f"{safe(record.get('status')):>3}",
        f"{count(whole):>6}",
        f"{share(cached, whole):>4}",
        f"{count(record.get('output_tokens')):>6}",
        f"{usd(record.get('cost_usd')):>9}",
    )
    return " ".join(cells)
