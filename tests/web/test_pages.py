"""The page: what it shows, that filters stay, that nothing in it runs."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.store.reads_rows import NANO, NOW_NS
from tests.web.conftest import House

import clew.web

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "javascript:alert(1)",
    "</title><svg onload=alert(1)>",
    "</textarea><script>alert(1)</script>",
    "<!--<img src=x onerror=alert(1)>-->",
    "{{ 7 * 7 }}{% raw %}",
    "${alert(1)}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<a href=javascript:alert(1)>x</a>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "\u202e<b>\u2028\u0000\x1b[31m",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "data:text/html,<script>alert(1)</script>",
)


class Reader(HTMLParser):
    """What a browser would make of a page: its tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inside_script: list[str] = []
        self.text: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        """Note a tag."""
        self._open = tag
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Note text, apart when it would run."""
        (self.inside_script if self._open in ("script", "style") else self.text).append(data)


def assert_inert(text: str) -> None:
    """Nothing in the page runs, loads or leads elsewhere."""
    page = Reader(text)
    allowed = {"script": "/static/", "link": ("/static/", "data:image/svg"), "a": ("/", "#")}
    assert "".join(page.inside_script).strip() == ""
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "base", "object", "embed", "style", "img", "b"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        target = attributes.get("src") or attributes.get("href") or ""
        assert not target.startswith("//")
        if tag in allowed:
            assert target.startswith(allowed[tag]), (tag, target)
        if tag == "meta":
            assert "url" not in attributes.get("content", "")


def fill_everything(house: House, text: str) -> None:
    """Put ``text`` into every field that comes from outside."""
    short = text[:64]
    house.filling.session(
        "cs_a",
        session_id=text,
        principal=text,
        source=short,
        client=short,
        team=text,
        project=text,
        worker=text,
        closed_at_ns=NOW_NS,
        close_reason=short,
        requests=1,
        forked_from=short,
    )
    house.filling.session("cs_b", session_id=text + "b", parent_id="cs_a", root_id="cs_a")
    house.filling.alias("cs_a", text, source=short)
    house.filling.tally("cs_a", "model", text)
    house.filling.tally("cs_a", "kind", short)
    house.filling.event("cs_a", "resumed", reason=text, before=text, evidence=[text])
    columns = ("kind", "resolution", "upstream", "error", "model", "path", "method", "billing")
    house.filling.attempt(short, "cs_a", **dict.fromkeys(columns, text), flags=[text])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_not_run(house: House, caller: TestClient, text: str) -> None:
    """Through every field of both pages, and through the filters."""
    fill_everything(house, text)

    pages = [
        caller.get("/"),
        caller.get("/sessions/cs_a"),
        caller.get("/", params={"q": text, "source": text, "principal": text, "root": text}),
        caller.get("/", params={text: text}),
        caller.get("/", params={"state": text}),
    ]

    assert [page.status_code for page in pages] == [200, 200, 200, 400, 400]
    for page in pages:
        assert_inert(page.text)


def test_hostile_text_is_shown_as_it_is(house: House, caller: TestClient) -> None:
    """Escaping hides nothing from the reader."""
    fill_everything(house, HOSTILE[0])

    shown = Reader(caller.get("/").text).text

    assert HOSTILE[0] in shown


def test_templates_and_scripts_keep_to_the_policy() -> None:
    """No inline script or style is written in the first place; scripts build no HTML from text."""
    here = Path(clew.web.__file__).parent
    for template in (here / "templates").glob("*.html"):
        text = template.read_text()
        assert "|safe" not in text
        assert "<style" not in text
        assert text.count("<script") == text.count('<script src="/static/')
    for script in (here / "static").glob("*.js"):
        text = script.read_text()
        assert "innerHTML" not in text
        assert "eval" not in text


def test_an_empty_house_tells_how_to_begin(caller: TestClient) -> None:
    """The first request, ready to paste, with this gateway's address."""
    text = caller.get("/").text

    assert "No session yet" in text
    assert "curl http://127.0.0.1:2539/v1/chat/completions" in text


def test_filters_stay_in_the_form_and_in_the_links(house: House, caller: TestClient) -> None:
    """Paging and refreshing keep them: they are in the address."""
    for number in range(3):
        house.filling.session(f"cs_{number}", principal="ann")

    text = caller.get("/?principal=ann&state=open&q=&limit=2&sort=opened").text

    page = Reader(text)
    links = [row["href"] for tag, row in page.tags if tag == "a" and "cursor=" in row["href"]]
    assert len(links) == 1
    for wanted in ("principal=ann", "state=open", "limit=2", "sort=opened"):
        assert wanted in links[0]
    assert caller.get(links[0]).text.count('<th scope="row"') == 1
    selected = [row for tag, row in page.tags if tag == "option" and "selected" in row]
    assert len(selected) == 2


def test_children_stand_below_their_parent(house: House, caller: TestClient) -> None:
    """Also when they were seen later than everything else."""
    house.filling.session("cs_root", last_seen_ns=NOW_NS - 50 * NANO)
    house.filling.session("cs_other", last_seen_ns=NOW_NS - 9 * NANO)
    house.filling.session(
        "cs_child", parent_id="cs_root", root_id="cs_root", last_seen_ns=NOW_NS - NANO
    )

    page = Reader(caller.get("/").text)

    rows = [row["class"] for tag, row in page.tags if tag == "th" and row.get("scope") == "row"]
    names = [row["title"] for tag, row in page.tags if tag == "a" and "title" in row]
    assert names == ["x-cs_other", "x-cs_root", "x-cs_child"]
    assert [row.split("-")[1] for row in rows] == ["0", "0", "1"]


def test_a_session_shows_its_silence(house: House, caller: TestClient) -> None:
    """A gap longer than idle_after divides the requests."""
    house.filling.session("cs_a")
    for number, minutes in enumerate((0, 5, 65)):
        house.filling.attempt(
            f"r{number}", "cs_a", received_at_ns=NOW_NS + minutes * 60 * NANO, total_us=0
        )

    text = caller.get("/sessions/cs_a").text

    assert text.count('class="gap"') == 1
    assert "idle 1 h<" in text


def test_a_session_pages_through_its_requests(house: House, caller: TestClient) -> None:
    """The newest hundred first, then a link to the older ones."""
    house.filling.session("cs_a")
    for number in range(103):
        house.filling.attempt(f"r{number:03}", "cs_a", received_at_ns=NOW_NS + number)

    page = Reader(caller.get("/sessions/cs_a").text)
    (older,) = [row["href"] for tag, row in page.tags if tag == "a" and "cursor=" in row["href"]]
    text = caller.get(older).text

    assert [f"r{number:03}" in text for number in (0, 2, 3)] == [True, True, False]


def test_errors_are_pages_for_readers(caller: TestClient) -> None:
    """A browser gets HTML, the API JSON."""
    for path, status in (
        ("/sessions/nobody", 404),
        ("/?limit=0", 400),
        ("/sessions/x?cursor=y", 400),
    ):
        response = caller.get(path)
        assert response.status_code == status
        assert response.headers["content-type"].startswith("text/html")


def test_pages_work_without_script(house: House, caller: TestClient) -> None:
    """Without it the page reloads itself, address and filters unchanged."""
    house.filling.session("cs_a")

    text = caller.get("/?state=open").text

    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in text


def test_a_deep_chain_of_children_is_shown(house: House, caller: TestClient) -> None:
    """Neither the list nor the tree recurses."""
    for number in range(300):
        parent = f"cs_{number - 1}" if number else None
        house.filling.session(f"cs_{number}", parent_id=parent, root_id="cs_0", depth=number)

    assert caller.get("/?limit=500").status_code == 200
    assert caller.get("/sessions/cs_299").status_code == 200
