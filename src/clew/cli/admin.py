"""Calls a running gateway's admin API (`docs/admin-api.md`).

The token in the data directory belongs to this machine's gateway: it is sent to loopback and to
the configured address, never to another host named on the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from clew.config.addresses import Listen, check_url, read_listen
from clew.config.schema import Config

TIMEOUT_S: Final = 10.0
MAX_CANDIDATES: Final = 10
"""How many sessions of an ambiguous prefix are listed."""


class AdminError(Exception):
    """The admin port did not answer as asked; the text says what to do next."""


class AmbiguousError(AdminError):
    """A prefix that several sessions share."""

    def __init__(self, wanted: str, candidates: list[dict[str, Any]]) -> None:
        self.candidates = candidates
        names = ", ".join(str(c.get("session_id")) for c in candidates[:MAX_CANDIDATES])
        super().__init__(f"{wanted} fits several sessions; give more of one of: {names}")


class Place(msgspec.Struct, frozen=True):
    """Where an admin port is, and its token (empty: none is known)."""

    url: str
    token: str


class AdminPort:
    """A client of the admin port. Every method raises `AdminError` with one clear line."""

    def __init__(self, place: Place, transport: httpx.BaseTransport | None = None) -> None:
        self.place = place
        self.is_stale = False
        """The last answer was read without the keeper: it may lag behind."""
        self.is_truncated = False
        """The last answer left something out that its totals count."""
        headers = {"authorization": f"Bearer {place.token}"} if place.token else {}
        # trust_env=False: a proxy of the environment must not see the token.
        self._client = httpx.Client(
            base_url=place.url,
            headers=headers,
            timeout=TIMEOUT_S,
            trust_env=False,
            transport=transport,
        )

    def __enter__(self) -> AdminPort:
        """Itself; connections close at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Any:
        """The decoded answer of a route."""
        response = self._fetch("GET", path, params)
        self.is_stale = "x-clew-stale" in response.headers
        self.is_truncated = "x-clew-truncated" in response.headers
        return self._decoded(response)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded answer of a verb."""
        return self._decoded(self._fetch("POST", path, None, body))

    def stream(
        self, path: str, headers: Mapping[str, str], silence_s: float
    ) -> AbstractContextManager[httpx.Response]:
        """A route that goes on sending; raises httpx.HTTPError, also after such a silence."""
        timeout = httpx.Timeout(TIMEOUT_S, read=silence_s)
        return self._client.stream("GET", path, headers=dict(headers), timeout=timeout)

    def get_text(self, path: str, params: Mapping[str, str | int] | None = None) -> str:
        """The answer of a route that is not JSON."""
        return self._fetch("GET", path, params).text

    def pages(self, path: str, params: Mapping[str, str | int], limit: int) -> Iterator[Any]:
        """Items of a paged list, at most ``limit``."""
        asked: dict[str, str | int] = dict(params)
        while limit > 0:
            asked["limit"] = min(limit, 500)
            page = self.get(path, asked)
            items = page.get("items", [])
            yield from items[:limit]
            limit -= len(items)
            if not page.get("next") or not items:
                return
            asked["cursor"] = page["next"]

    def resolve(self, wanted: str) -> dict[str, Any]:
        """The session that an id of any kind, or a unique prefix of one, names."""
        try:
            found: dict[str, Any] = self.get(session_path(wanted))
        except AdminError as error:
            candidates = self._candidates(wanted)
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                raise AmbiguousError(wanted, candidates) from None
            raise AdminError(f"no session is called {wanted} or begins so") from error
        return found

    def _candidates(self, wanted: str) -> list[dict[str, Any]]:
        if not wanted:
            return []
        page = self.get("/api/v1/sessions", {"q": wanted, "limit": MAX_CANDIDATES})
        return [item for item in page.get("items", []) if _begins(item, wanted)]

    def _decoded(self, response: httpx.Response) -> Any:
        if response.status_code == 404:
            raise AdminError(_message(response) or "no such session or path")
        try:
            return response.json()
        except ValueError:
            raise AdminError(f"{self.place.url} is not Clew's admin port") from None

    def _fetch(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None,
        body: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        try:
            response = self._client.request(method, path, params=params, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.lost(error) from None
        if response.status_code >= 400 and response.status_code != 404:
            raise self.refused(response)
        return response

    def lost(self, error: Exception) -> AdminError:
        """What to say of a call that was not answered."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return AdminError(
                f"no gateway answers at {self.place.url}; start one with `clew serve`"
            )
        return AdminError(f"{self.place.url} did not answer: {error}")

    def refused(self, response: httpx.Response) -> AdminError:
        """What to say of an answer, read whole, that is an error."""
        if response.status_code == 401:
            return AdminError(_refused_token(self.place))
        said = _message(response) or "no reason given"
        return AdminError(f"{self.place.url} answered {response.status_code}: {said}")


def session_path(name: str, part: str = "") -> str:
    """The route of one session, whatever characters its id has."""
    return f"/api/v1/sessions/{quote(name, safe='')}{part}"


def find_place(config: Config, admin: str, token: str, environ: Mapping[str, str]) -> Place:
    """Where the admin port is and which token opens it. Raises ValueError on a bad address."""
    listen = read_listen(config.admin.listen)
    configured = f"http://{_reachable(listen)}"
    url = _admin_url(admin) if admin else configured
    chosen = token or environ.get("CLEW_TOKEN", "")
    if not chosen and (url == configured or _is_loopback(url)):
        chosen = read_token(config)
    return Place(url, chosen)


def token_file(config: Config) -> Path:
    """Where the admin token is kept."""
    if config.admin.token_file:
        return Path(config.admin.token_file).expanduser()
    return Path(config.data) / "admin.token"


def read_token(config: Config) -> str:
    """The kept token; empty when there is none or it may not be read."""
    try:
        return token_file(config).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _admin_url(text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        check_url(url)
    except ValueError as error:
        raise ValueError(f"--admin: {error}") from None
    return url.rstrip("/")


def _reachable(listen: Listen) -> Listen:
    """Where to call what listens on every address."""
    if not listen.is_any:
        return listen
    return Listen("::1" if ":" in listen.host else "127.0.0.1", listen.port)


def _is_loopback(url: str) -> bool:
    return Listen(urlsplit(url).hostname or "", 0).is_loopback


def _refused_token(place: Place) -> str:
    if place.token:
        return f"{place.url} refused the token; give the right one with --token or CLEW_TOKEN"
    return (
        f"{place.url} wants a token and none was found; give it with --token or CLEW_TOKEN, "
        "or name the gateway's data directory with --data"
    )


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _begins(session: dict[str, Any], wanted: str) -> bool:
    aliases = (alias.get("value") for alias in session.get("aliases", ()))
    names = (session.get("id"), session.get("session_id"), *aliases)
    return any(str(name).startswith(wanted) for name in names if name)
