"""Who may use the admin port: the table of credentials and routes, hosts and origins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import BASE, BEARER, TOKEN, House

from clew.web.access import COOKIE_LIFE_S, Access, Fields
from clew.web.guard import CONTENT_POLICY

OPEN = ("/health", "/ready", "/metrics", "/login", "/static/clew.css")
CLOSED = (
    "/",
    "/sessions/cs_a",
    "/api/v1/sessions",
    "/api/v1/sessions/cs_a",
    "/api/v1/sessions/cs_a/tree",
    "/api/v1/sessions/cs_a/requests",
    "/api/v1/sessions/cs_a/events",
    "/api/v1/usage",
    "/api/v1/usage.csv",
    "/api/v1/clients",
    "/api/v1/workers",
    "/api/v1/bindings",
    "/api/v1/openapi.json",
)


@pytest.mark.parametrize("path", OPEN)
def test_open_routes_need_no_token(house: House, path: str) -> None:
    """Probes, scrapes and the login work without a credential."""
    assert house.client().get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Bearer \xe9"},
        {"cookie": f"clew_admin_00000000={TOKEN}"},
    ],
)
def test_closed_routes_refuse_without_the_token(
    house: House, path: str, headers: dict[str, str]
) -> None:
    """Nothing about a session is told without the token."""
    house.filling.session("cs_a", session_id="secret-name")
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}

    response = house.client().get(path, headers=encoded)

    assert response.status_code == 401
    assert "secret-name" not in response.text


@pytest.mark.parametrize("path", CLOSED)
def test_closed_routes_open_to_the_bearer_and_to_the_cookie(
    house: House, cookie: Callable[[], str], path: str
) -> None:
    """Both credentials read everything."""
    house.filling.session("cs_a")

    assert house.client(**BEARER).get(path).status_code == 200
    assert house.client(cookie=cookie()).get(path).status_code == 200


def test_unknown_paths_are_not_told_apart_without_the_token(house: House) -> None:
    """401 comes before 404, so that routes cannot be listed."""
    assert house.client().get("/api/v1/nothing").status_code == 401
    assert house.client(**BEARER).get("/api/v1/nothing").status_code == 404


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(house: House) -> None:
    """HttpOnly, SameSite=Strict, for this host and half a day."""
    response = house.client().post("/login", data={"token": TOKEN})

    attributes = response.headers["set-cookie"].lower()
    assert response.headers["location"] == "/"
    for wanted in ("httponly", "samesite=strict", "path=/", f"max-age={COOKIE_LIFE_S}"):
        assert wanted in attributes
    assert TOKEN not in attributes


def test_a_wrong_token_gives_no_cookie(house: House) -> None:
    """The login page comes again, with 401."""
    response = house.client().post("/login", data={"token": "wrong"})

    assert response.status_code == 401
    assert "set-cookie" not in response.headers


def test_an_oversize_login_is_refused_before_it_is_read(house: House) -> None:
    """A login is a token and nothing else."""
    assert house.client().post("/login", content=b"x" * 5_000).status_code == 413


def test_the_cookie_expires(house: House, cookie: Callable[[], str]) -> None:
    """After its life the same cookie is worth nothing."""
    kept = cookie()
    house.later(COOKIE_LIFE_S + 1)

    assert house.client(cookie=kept).get("/api/v1/sessions").status_code == 401


def test_a_cookie_cannot_be_made_longer(house: House, cookie: Callable[[], str]) -> None:
    """The expiry is signed."""
    name, _, value = cookie().partition("=")
    forged = f"{name}={int(value.split('.')[0]) + 9}.{value.split('.')[1]}"

    assert house.client(cookie=forged).get("/api/v1/sessions").status_code == 401


def test_a_cookie_of_an_older_token_is_refused() -> None:
    """Changing the token ends every login."""
    old = Access("127.0.0.1", "old", b"s", "i")
    new = Access("127.0.0.1", "new", b"s", "i")
    fields = Fields(host=("localhost",), cookie=f"{old.cookie_name}={old.cookie(0)}")

    assert old.is_authorised(fields, "GET", 1)
    assert not new.is_authorised(fields, "GET", 1)


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [((), False), ((BASE,), True), (("http://localhost:1",), False), (("null",), False)],
)
def test_the_cookie_alone_changes_nothing(origin: tuple[str, ...], is_allowed: bool) -> None:
    """With a method that acts, the cookie needs our own Origin beside it."""
    access = Access("127.0.0.1", TOKEN, b"s", "i")
    cookie = f"{access.cookie_name}={access.cookie(0)}"
    fields = Fields(host=("127.0.0.1:2540",), origin=origin, cookie=cookie)

    assert access.is_authorised(fields, "POST", 1) is is_allowed


@pytest.mark.parametrize(
    "host", ["127.0.0.1:2540", "localhost:2540", "LOCALHOST", "[::1]:2540", "127.0.0.1"]
)
def test_loopback_names_are_ours(house: House, host: str) -> None:
    """Whatever the port: it may be forwarded."""
    assert house.client(host=host).get("/health").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:2540",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.5",
        "127.0.0.1@evil.example",
        "127.0.0.1:2540/evil",
        "",
        "[::1",
        "2130706433",
    ],
)
@pytest.mark.parametrize("path", ["/health", "/", "/api/v1/sessions"])
def test_foreign_hosts_are_refused(caller: TestClient, host: str, path: str) -> None:
    """A name rebound to a loopback address reaches nothing, not even with the token."""
    response = caller.get(path, headers={"host": host})

    assert response.status_code == 403
    assert response.json()["error"]["code"] == "origin_refused"


def test_two_hosts_are_refused() -> None:
    """Which one is meant cannot be known."""
    assert Access("127.0.0.1", TOKEN, b"s", "i").is_foreign(
        Fields(host=("127.0.0.1", "127.0.0.1")), "GET"
    )


@pytest.mark.parametrize(
    ("listen", "host", "is_foreign"),
    [
        ("clew.internal", "clew.internal:2540", False),
        ("clew.internal", "other.internal", True),
        ("0.0.0.0", "10.1.2.3:2540", False),
        ("0.0.0.0", "rebound.example", True),
        ("::", "[fd00::7]:2540", False),
        ("fd00::7", "[fd00::7]", False),
    ],
)
def test_the_listen_host_is_ours(listen: str, host: str, is_foreign: bool) -> None:
    """And on every address any address is, but no name."""
    access = Access(listen, TOKEN, b"s", "i")

    assert access.is_foreign(Fields(host=(host,)), "GET") is is_foreign


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (BASE, 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:9999", 403),
        ("https://127.0.0.1.evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("", 403),
    ],
)
def test_only_our_own_page_is_an_origin(caller: TestClient, origin: str, status: int) -> None:
    """Another site's script is refused even with the token."""
    assert caller.get("/api/v1/sessions", headers={"origin": origin}).status_code == status


def test_a_form_without_referrer_may_log_in(house: House) -> None:
    """Its Origin is null; the browser itself says that the form is ours."""
    headers = {"origin": "null", "sec-fetch-site": "same-origin"}

    response = house.client().post("/login", data={"token": TOKEN}, headers=headers)

    assert response.status_code == 303


@pytest.mark.parametrize("path", [*OPEN, *CLOSED, "/nothing"])
def test_every_answer_carries_the_protective_headers(house: House, path: str) -> None:
    """Also errors, also static files."""
    for client in (house.client(), house.client(**BEARER), house.client(host="evil.example")):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == CONTENT_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        if not path.startswith("/static/"):
            assert headers["cache-control"] == "no-store"
