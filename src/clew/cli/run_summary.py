"""Asks the gateway what a run came to, and writes it on one line or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from clew.agents.summary import (
    Row,
    Summary,
    Totals,
    is_of_run,
    main_session,
    of_record,
    of_session,
    summed,
)
from clew.cli.admin import AdminError, AdminPort, session_path
from clew.cli.text import count, safe, share, shortened, usd

MAX_SESSIONS: Final = 2_000
"""Sessions looked at; a run that touched more says so by its sums alone."""
MAX_CALLS: Final = 10_000
"""Calls of one resumed session looked at."""


def collect(port: AdminPort, run: str, since: datetime) -> Summary:
    """The run's sums since its beginning. Raises AdminError."""
    root = _root(port, run)
    begin = since.isoformat()
    touched: list[tuple[Row, Totals]] = []
    for session in port.pages("/api/v1/sessions", {"since": begin}, MAX_SESSIONS):
        is_new = datetime.fromisoformat(session["opened_at"]) >= since
        if is_new and root and session["root_id"] == root:
            totals = of_session(session)
        else:
            totals = summed(map(of_record, _calls(port, session["id"], run, since)))
        if totals.requests:
            touched.append((session, totals))
    ordered = sorted(touched, key=lambda one: str(one[0]["opened_at"]))
    main = main_session(session for session, _ in touched)
    ids = tuple(str(session["id"]) for session, _ in ordered)
    return Summary(run, main, ids, summed(totals for _, totals in touched))


def _root(port: AdminPort, run: str) -> str:
    try:
        return str(port.get(session_path(run))["id"])
    except AdminError:
        return ""  # nothing hangs below the run: only older sessions went on, or nothing called


def _calls(port: AdminPort, session: str, run: str, since: datetime) -> Iterator[Row]:
    """The session's calls that came by the run's base url, the latest first."""
    path = session_path(session, "/requests")
    for record in port.pages(path, {"order": "desc"}, MAX_CALLS):
        if datetime.fromisoformat(record["received_at"]) < since:
            return
        if is_of_run(record, run):
            yield record


def one_line(summary: Summary, admin: str) -> str:
    """``session · turns · tokens · cost · cached · address``."""
    totals = summary.totals
    if summary.session is None:
        return "no calls came through the gateway"
    more = len(summary.sessions) - 1
    parts = [
        f"session {shortened(summary.session['session_id'], 48)}"
        + (f" and {more} more" if more else ""),
        _plural(totals.turns, "turn") + (f" ({_plural(totals.requests, 'call')})"),
        f"{count(totals.input_tokens)} in, {count(totals.output_tokens)} out",
        f"{share(totals.cached_tokens, totals.input_tokens)} cached",
        _cost(totals),
    ]
    if totals.errors:
        parts.append(_plural(totals.errors, "error"))
    return " · ".join((*parts, address(summary.session, admin)))


def shown(summary: Summary, admin: str) -> dict[str, Any]:
    """The summary for programs."""
    totals, session = summary.totals, summary.session
    whole = totals.input_tokens
    return {
        "run": summary.run,
        "session": session["id"] if session else None,
        "session_id": session["session_id"] if session else None,
        "sessions": list(summary.sessions),
        "url": address(session, admin) if session else None,
        "requests": totals.requests,
        "turns": totals.turns,
        "errors": totals.errors,
        "input_tokens": totals.input_tokens,
        "cached_tokens": totals.cached_tokens,
        "output_tokens": totals.output_tokens,
        "cached_share": round(totals.cached_tokens / whole, 4) if whole else None,
        "cost_usd": None if totals.cost_usd is None else f"{totals.cost_usd:.9f}",
        "unpriced": totals.unpriced,
    }


def address(session: Row, admin: str) -> str:
    """The session's page."""
    return f"{admin}/sessions/{quote(str(session['id']), safe='')}"


def _cost(totals: Totals) -> str:
    text = usd(None if totals.cost_usd is None else str(totals.cost_usd))
    return f"{text} ({totals.unpriced} unpriced)" if totals.unpriced else text


def _plural(number: int, what: str) -> str:
    return f"{safe(number)} {what}" + ("" if number == 1 else "s")
