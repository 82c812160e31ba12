"""`clew explain`: which session a request would belong to, and why, rule by rule."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO, Final

import click
import msgspec

from clew.cli.options import CONFIG, JSON, Refusal, read_config
from clew.cli.text import safe, say, say_json, shortened
from clew.core.clients import ClientTable
from clew.core.explanation import Explanation, Named, Onward
from clew.core.explanation import explain as explain_request
from clew.core.playback import Playback, Played
from clew.core.request_file import read_requests
from clew.core.routing import RouteTable
from clew.lab.quoted import reply_document

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
EPILOG: Final = """\b
Examples:
  clew explain request.http
  curl -v http://127.0.0.1:2539/v1/messages -d @body.json 2>&1 | clew explain
  clew explain session.har --json
\b
FILE is a raw HTTP request, the output of curl -v, a HAR, or capture JSON or JSONL;
standard input without FILE. Nothing is sent and nothing is looked up: the requests
are taken in order, as a gateway that has seen nothing else would, by each of
sessions.resume = "proof", "recency" and "off". Without the answers (a HAR and
captures have them) no content can be proved.
"""


@click.command(epilog=EPILOG)
@click.argument("file", required=False, type=click.File("rb"))
@CONFIG
@JSON
def explain(file: BinaryIO | None, config_path: Path | None, as_json: bool) -> None:
    """Explain which session the requests in FILE would belong to, and why."""
    config = read_config(config_path, {}, os.environ)
    if file is None and sys.stdin.isatty():
        click.echo("reading a request from standard input; Ctrl-D ends it", err=True)
    raw = (file or sys.stdin.buffer).read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise Refusal("the file is over 256 MiB; cut it down to the requests in question")
    try:
        table, routes = ClientTable(config.sessions.client), RouteTable(config.upstream)
        requests = read_requests(raw)
    except ValueError as error:
        raise Refusal(str(error)) from None
    playback = Playback(config.sessions.resume_max_age)
    found = [
        explain_request(request, table, routes, playback, reply_document(request))
        for request in requests
    ]
    if as_json:
        say_json(msgspec.to_builtins(found))
        return
    for number, explanation in enumerate(found):
        if number:
            say()
        _print(explanation, config.sessions.resume)


def _print(found: Explanation, resume: str) -> None:
    label = f"  ({safe(found.label)})" if found.label else ""
    say(f"{safe(found.method)} {shortened(found.path, 70)}{label}")
    say(f"client     {safe(found.client) or 'does not say'}")
    for seen in found.seen:
        say(f"seen       {safe(seen.header)}: {shortened(seen.value, 60)}")
    for step in found.steps:
        reads = ", ".join(step.reads)
        if step.fired:
            say(f"rule {step.order:>4}  => {safe(step.source)} reads {reads}")
            say(f"              {shortened(step.verdict, 84)}")
        else:
            say(shortened(f"rule {step.order:>4}     {step.source} ({reads}): {step.verdict}", 100))
    for flag, meaning in found.flags.items():
        say(f"ignored    {safe(flag)}: {meaning}")
    if found.refused:
        say(f"refused    {safe(found.refused)}")
    _print_result(found)
    for played in sorted(found.played, key=lambda played: played.mode != resume):
        _print_played(played, with_rules=played.mode == resume)


def _print_played(played: Played, *, with_rules: bool) -> None:
    """One mode's outcome; of the configured one also the rules it tried, in order."""
    links = (("below", played.parent), ("forked from", played.forked_from))
    where = ", ".join(
        (
            *((f"{played.outcome}: {played.session}",) if played.session else (played.outcome,)),
            *(f"{word} {name}" for word, name in links if name),
            f"kind {played.kind}",
            *((f"{played.evidence} pieces of evidence",) if played.evidence else ()),
        )
    )
    say(f"{played.mode:10} {safe(where)}")
    for tried in played.tried if with_rules else ():
        mark = "=>" if tried.has_fired else "  "
        say(f"           {mark} {tried.rule}: {safe(tried.reason)}")
    if with_rules and played.content:
        say(f"              content says {safe(played.content)}")


def _print_result(found: Explanation) -> None:
    rows = (
        ("session", _named(found.session)),
        ("parent", _named(found.parent)),
        ("root", _named(found.root)),
        ("forked from", _named(found.forked_from)),
        ("also known", ", ".join(safe(alias.value) for alias in found.others)),
        ("attached to", safe(found.attach_to)),
        ("kind", "" if found.refused else safe(found.kind)),
        ("final", "closes the session" if found.final else ""),
        *_onward(found.onward),
        ("so", safe(found.conclusion)),
    )
    for name, value in rows:
        if value:
            say(f"{name:10} {value}" if len(name) <= 10 else f"{name} {value}")


def _onward(onward: Onward | None) -> tuple[tuple[str, str], ...]:
    if onward is None:
        return ()
    return (
        ("goes to", f"{safe(onward.upstream)}: {shortened(onward.target, 80)}"),
        ("without", ", ".join(safe(name) for name in onward.removed)),
        ("with", ", ".join(safe(line) for line in onward.added)),
    )


def _named(named: Named | None) -> str:
    if named is None:
        return ""
    return f"{safe(named.value)} ({safe(named.source)}, {named.scope}, {named.lifetime})"
