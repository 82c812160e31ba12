"""The page: sessions, one session, the login. Server-rendered; it works without script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import jinja2
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from clew.store.reads import Reads, UnknownSessionError
from clew.store.reads_query import Page, SessionQuery, Sort, State, UsageBy, request_cursor
from clew.store.reads_shapes import NANO
from clew.store.reads_tree import flatten
from clew.web import parameters, words
from clew.web.access import COOKIE_LIFE_S, Access
from clew.web.answers import STALE_HEADER, Refusal, refusal_of
from clew.web.desk import desk_of
from clew.web.names import split_name
from clew.web.timeline import BAR, entries, indented
from clew.web.verbs import unknown_text

HOME_ROWS: Final = 100
TREE_ROWS: Final = 200
REQUEST_ROWS: Final = 100
CHOICES: Final = 100
"""Principals and sources offered as filters."""
MAX_LOGIN_BYTES: Final = 4096
DAY_NS: Final = 86_400 * NANO
SESSION_PREFIX: Final = "/sessions/"

_HERE: Final = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Templates that escape everything and fail on a name they do not know."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": words.count,
        "money": words.money,
        "span": words.span,
        "milliseconds": words.milliseconds,
        "ago": words.ago,
        "clock": words.clock,
    }
    made.globals |= {"share": words.share, "bar_length": BAR}
    return made


class Pages:
    """The pages of one installation."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._templates = environment()
        self.routes = (
            Route("/", self.home),
            Route("/sessions/{name:path}", self.session),
            Route("/login", self.login_form),
            Route("/login", self.log_in, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        )

    async def home(self, request: Request) -> Response:
        """The table of sessions under the filters of the URL."""
        desk = desk_of(request)
        now_ns = desk.now_ns()
        given = [(name, text) for name, text in request.query_params.multi_items() if text]
        query = _session_query(given, now_ns)
        found, is_fresh = await desk.read(lambda: _home(desk.reads, query, now_ns))
        filters = {name: text for name, text in given if name != "cursor"}
        onward = urlencode(filters | {"cursor": found["page"].next or ""})
        return self._render(
            "home.html",
            is_fresh=is_fresh,
            now_ns=now_ns,
            filters=dict.fromkeys(parameters.SESSIONS, "") | filters,
            is_filtered=bool(filters),
            onward=f"/?{onward}" if found["page"].next else "",
            lines=indented(found["page"].items),
            states=[one.value for one in State],
            sorts=[one.value for one in Sort],
            gateway_url=desk.launch.gateway_url,
            **found,
        )

    async def session(self, request: Request) -> Response:
        """One session: facts, tree, requests."""
        desk = desk_of(request)
        now_ns = desk.now_ns()
        name, _ = split_name(request.scope, SESSION_PREFIX, ())
        cursor = request.query_params.get("cursor", "")
        try:
            page = Page(
                limit=REQUEST_ROWS,
                cursor=request_cursor(cursor) if cursor else None,
                newest_first=True,
            )
        except ValueError as error:
            raise Refusal(400, "bad_parameter", f"parameter 'cursor' {error}") from None
        try:
            found, is_fresh = await desk.read(lambda: _session(desk.reads, name, page, now_ns))
        except UnknownSessionError as unknown:
            raise refusal_of("not_found", unknown_text(unknown)) from None
        idle_after_s = desk.launch.config.sessions.idle_after
        records = found["records"]
        return self._render(
            "session.html",
            is_fresh=is_fresh,
            now_ns=now_ns,
            is_first_page=not cursor,
            entries=list(reversed(entries(records.items[::-1], idle_after_s))),
            older=records.next,
            **found,
        )

    async def login_form(self, _request: Request) -> Response:
        """Where the address printed at start leads."""
        return self.login_page(200)

    async def log_in(self, request: Request) -> Response:
        """Take the token of the form, give the cookie, go to the table."""
        token = await _posted_token(request)
        if not self._access.is_token(token):
            return self.login_page(401, is_wrong=True)
        now_s = desk_of(request).now_ns() / NANO
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self._access.cookie_name,
            self._access.cookie(now_s),
            max_age=COOKIE_LIFE_S,
            path="/",
            httponly=True,
            samesite="strict",
        )
        return response

    def login_page(self, status: int, *, is_wrong: bool = False) -> Response:
        """The login form; 401 where a page was asked for, or the token was wrong."""
        return self._render("login.html", status=status, is_wrong=is_wrong)

    def error_page(self, refusal: Refusal) -> Response:
        """A refusal for a reader."""
        return self._render("error.html", status=refusal.status, refusal=refusal)

    def _render(
        self, name: str, *, status: int = 200, is_fresh: bool = True, **values: Any
    ) -> Response:
        values["is_fresh"] = is_fresh
        body = self._templates.get_template(name).render(values)
        headers = {} if is_fresh else {STALE_HEADER: "1"}
        return HTMLResponse(body, status, headers)


def _session_query(given: list[tuple[str, str]], now_ns: int) -> SessionQuery:
    # A form sends its empty fields too; here, unlike in the API, those filter nothing.
    asked = parameters.read_parameters(QueryParams(given), parameters.SESSIONS, now_ns)
    asked["since_ns"] = asked.pop("since", None)
    return SessionQuery(**{"limit": HOME_ROWS} | asked)


def _home(reads: Reads, query: SessionQuery, now_ns: int) -> Mapping[str, Any]:
    return {
        "page": reads.sessions(query, now_ns),
        "counts": reads.counts(now_ns),
        "today": reads.usage(UsageBy.DAY, now_ns - DAY_NS, None, 1).totals,
        "principals": reads.principals(CHOICES),
        "sources": reads.sources(CHOICES),
    }


def _session(reads: Reads, name: str, page: Page, now_ns: int) -> Mapping[str, Any]:
    session = reads.session(name, now_ns)
    tree = reads.tree(session.id, now_ns)
    return {
        "session": session,
        "tree": tree,
        "nodes": flatten(tree)[:TREE_ROWS],
        "events": reads.events(session.id, REQUEST_ROWS),
        "records": reads.requests(session.id, page),
    }


async def _posted_token(request: Request) -> str:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_LOGIN_BYTES:
            raise refusal_of("request_too_large", "a login is a token and nothing else")
    fields = parse_qs(body.decode("latin-1"), max_num_fields=None)
    return fields.get("token", [""])[0]


def is_for_reader(request: Request) -> bool:
    """Whether an error should be a page: a browser asked for one."""
    path = request.url.path
    return path == "/" or path.startswith(SESSION_PREFIX)


def store_refusal(_error: SQLAlchemyError) -> Refusal:
    """What a store that cannot be read answers; its own text may quote addresses."""
    return Refusal(503, "store_unavailable", "the store cannot be read now; try again")
