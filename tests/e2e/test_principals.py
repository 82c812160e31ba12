"""Who may call, as whom, and that nothing crosses from one principal to another."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.plain import Answer, Fields, Received, Upstream, ask, upstream

CONFIGURATION = """
[server]
workers = {workers}
[auth]
mode = "{mode}"
{more}
[[upstream]]
name = "first"
url = "{url}"
"""
REVOKED_WITHIN_S = 1.0
IDS = itertools.count(1)
CHAT = "/v1/chat/completions"
PLACES = ("x-clew-key", "authorization", "x-api-key", "x-goog-api-key")
PROXIED = [
    ("POST", CHAT),
    ("POST", "/v1/messages"),
    ("POST", "/v1/responses"),
    ("POST", "/v1beta/models/m:generateContent"),
    ("POST", f"/u/first{CHAT}"),
    ("GET", "/v1/models"),
]
OPEN = [
    ("GET", "/clew/v1/health"),
    ("GET", "/clew/v1/ready"),
    ("HEAD", "/"),
    ("HEAD", "/api/hello"),
]
UNKNOWN = [
    ("GET", "/clew/v1/nothing"),
    ("POST", "/clew/v1/nothing"),
    # Without an id that names one of the caller's sessions.
    ("GET", "/clew/v1/session"),
    ("POST", "/clew/v1/session/close"),
]


async def reply(received: Received, writer: asyncio.StreamWriter) -> None:
    """A response with an id of its own, where the API has one."""
    body = {
        "id": f"resp_{next(IDS)}",
        "object": "response",
        "status": "completed",
        "model": "m",
        "output": [],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }
    sent = json.dumps(body if received.target.endswith("/responses") else {}).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (len(sent), sent)
    )


@dataclass(frozen=True, slots=True)
class World:
    """An installation before one upstream."""

    running: Installation
    upstream: Upstream

    def verb(self, path: str, **body: Any) -> dict[str, Any]:
        """A POST of the admin API; it must succeed."""
        gateway = self.running.gateway
        headers = {"authorization": f"Bearer {gateway.token}"}
        answer = httpx.post(f"{gateway.admin_url}{path}", headers=headers, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def key(self, principal: str, **body: Any) -> dict[str, Any]:
        """A new key."""
        return self.verb("/api/v1/keys", principal=principal, **body)

    def ask(
        self, method: str, target: str, *headers: tuple[str, str], body: object = None
    ) -> Answer:
        """One request on a connection of its own."""
        sent = json.dumps({"model": "m"} if body is None else body).encode()
        fields: Fields = [*headers, ("Content-Type", "application/json")]
        url = self.running.gateway.url
        return ask(url, method, target, fields, sent if method == "POST" else None)

    def status(self, key: str) -> int:
        """What a small call by this key is answered."""
        return self.ask("POST", CHAT, ("x-clew-key", key)).status

    def sessions(self, principal: str) -> list[dict[str, Any]]:
        """The principal's sessions."""
        path = f"/api/v1/sessions?principal={principal}&limit=500"
        found: list[dict[str, Any]] = self.running.gateway.admin(path)["items"]
        return found

    def forwarded(self) -> str:
        """All that the upstream received, heads and bodies."""
        return "\n".join(
            f"{one.method} {one.target} {one.headers} {one.body!r}"
            for one in self.upstream.received
        )


@contextmanager
def world(directory: Path, mode: str, more: str = "", workers: int = 1) -> Iterator[World]:
    """A running installation in a mode."""
    with ExitStack() as stack:
        provider = stack.enter_context(upstream(reply))
        text = CONFIGURATION.format(workers=workers, mode=mode, more=more, url=provider.url)
        yield World(stack.enter_context(Installation(directory, text)), provider)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two workers that ask for keys."""
    with world(tmp_path_factory.mktemp("keyed"), "keys", workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def credentialed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The client's own key says who calls."""
    with world(tmp_path_factory.mktemp("credential"), "credential") as found:
        yield found


@pytest.fixture(scope="module")
def callers(keyed: World) -> dict[str, str]:
    """A key of each kind by name; ``none`` has no key."""
    revoked, expired = keyed.key("owner"), keyed.key("owner", expires="1s")
    keyed.verb(f"/api/v1/keys/{revoked['id']}/revoke")
    wait_until(lambda: keyed.status(expired["key"]) == 401, what="the key's end")
    return {
        "owner": keyed.key("owner")["key"],
        "other": keyed.key("other")["key"],
        "none": "",
        "wrong": "ck_" + "A" * 43,
        "revoked": revoked["key"],
        "expired": expired["key"],
    }


CALLERS = ("owner", "other", "none", "wrong", "revoked", "expired")


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "target"), PROXIED + OPEN + UNKNOWN)
def test_every_route_has_its_answer_for_everybody(
    keyed: World, callers: dict[str, str], caller: str, method: str, target: str
) -> None:
    """Open routes: the same for all. Others: by key alone, and nothing is forwarded without."""
    held = callers[caller]
    before = len(keyed.upstream.received)

    answer = keyed.ask(method, target, *([("x-clew-key", held)] if held else []), body={})

    is_in = caller in ("owner", "other")
    expected = 401
    if (method, target) in OPEN or (is_in and (method, target) in PROXIED):
        expected = 200
    elif is_in:
        expected = 404
    assert answer.status == expected
    if expected == 401:
        assert answer.get("x-clew-error") == "unauthorized"
        assert answer.get("x-should-retry") == "false"
        assert answer.get("x-clew-session") is None
    is_proxied = expected == 200 and (method, target) in PROXIED
    assert len(keyed.upstream.received) - before == is_proxied


@pytest.mark.parametrize("caller", ["none", "wrong", "revoked", "expired"])
@pytest.mark.parametrize("target", [CHAT, "/v1/messages", "/v1beta/models/m:generateContent"])
def test_a_refusal_tells_nobody_why(
    keyed: World, callers: dict[str, str], caller: str, target: str
) -> None:
    """In the API's own form, word by word the same."""
    held = callers[caller]

    answer = keyed.ask("POST", target, *([("x-clew-key", held)] if held else []))
    plain = keyed.ask("POST", target)

    def body(one: Answer) -> bytes:
        return re.sub(rb"req_[a-z0-9]+", b"ID", one.body)

    assert body(answer) == body(plain)


def test_equal_ids_of_two_principals_are_two_sessions(keyed: World) -> None:
    """Session, parent and root: nothing is joined, and both see their own id."""
    keys = {name: keyed.key(name, team=f"team-{name}")["key"] for name in ("ann", "ben")}
    sent = [("x-dynamo-session-id", "shared"), ("x-dynamo-parent-session-id", "shared-root")]

    found = {
        name: keyed.ask("POST", CHAT, ("x-clew-key", key), *sent) for name, key in keys.items()
    }

    assert {one.get("x-clew-session-id") for one in found.values()} == {"shared"}
    assert {one.get("x-clew-resolution") for one in found.values()} == {"new"}
    ids = {name: one.get("x-clew-session") for name, one in found.items()}
    assert ids["ann"] != ids["ben"]
    rows = {name: {row["id"]: row for row in keyed.sessions(name)} for name in keys}
    assert not rows["ann"].keys() & rows["ben"].keys()
    for name in keys:
        mine = rows[name][ids[name]]
        assert mine["parent_id"] in rows[name]
        assert mine["root_id"] in rows[name]
        assert mine["team"] == f"team-{name}"
        assert mine["requests"] == 1


def test_a_final_closes_ones_own_session_only(keyed: World) -> None:
    """The other's session of the same id stays open."""
    keys = {name: keyed.key(name)["key"] for name in ("cid", "dot")}
    sent = ("x-dynamo-session-id", "final")
    for key in keys.values():
        keyed.ask("POST", CHAT, ("x-clew-key", key), sent)

    keyed.ask("POST", CHAT, ("x-clew-key", keys["dot"]), sent, ("x-dynamo-session-final", "1"))

    assert {row["state"] for row in keyed.sessions("cid")} == {"open"}
    assert {row["state"] for row in keyed.sessions("dot")} == {"closed"}


@pytest.mark.parametrize(
    ("method", "target"), [("GET", "/clew/v1/session"), ("POST", "/clew/v1/session/close")]
)
def test_nobody_sees_or_closes_another_ones_session(
    keyed: World, callers: dict[str, str], method: str, target: str
) -> None:
    """The answer is that of a session nobody has, and the owner's goes on."""
    name = f"own-{method}"
    owner = ("x-clew-key", callers["owner"])
    keyed.ask("POST", CHAT, owner, ("x-dynamo-session-id", name))

    answers = {
        caller: keyed.ask(
            method,
            target,
            ("x-dynamo-session-id", name),
            *([("x-clew-key", held)] if held else []),
            body={},
        )
        for caller, held in callers.items()
        if caller != "owner"
    }
    unknown = keyed.ask(method, target, owner, ("x-dynamo-session-id", "nobodys"), body={})
    mine = keyed.ask("GET", "/clew/v1/session", owner, ("x-dynamo-session-id", name))

    assert answers.pop("other").body == unknown.body
    assert unknown.status == 404
    assert {one.status for one in answers.values()} == {401}
    assert (mine.status, json.loads(mine.body)["state"]) == (200, "open")


def told(answer: Answer) -> tuple[int, dict[str, str | None], bytes]:
    """What an answer tells of sessions, ids masked."""
    names = ("resolution", "source", "session", "session-id")
    fields = {name: answer.get(f"x-clew-{name}") for name in names}
    masked = {
        name: value and re.sub(r"cs_[a-z2-7]+", "cs_", value) for name, value in fields.items()
    }
    return answer.status, masked, re.sub(rb"resp_\d+", b"resp_", answer.body)


def test_not_yours_is_not_there(keyed: World) -> None:
    """A chain or a parent of somebody else has the answer and the record of one nobody has."""
    mine, other = keyed.key("eve")["key"], keyed.key("fay")["key"]
    first = keyed.ask("POST", "/v1/responses", ("x-clew-key", mine), ("x-dynamo-session-id", "e"))
    response_id = json.loads(first.body)["id"]
    own = keyed.ask(
        "POST", "/v1/responses", ("x-clew-key", mine), body={"previous_response_id": response_id}
    )
    assert own.get("x-clew-session") == first.get("x-clew-session")

    chains = [
        keyed.ask(
            "POST", "/v1/responses", ("x-clew-key", other), body={"previous_response_id": one}
        )
        for one in (response_id, "resp_none")
    ]
    parents = [
        keyed.ask(
            "POST",
            CHAT,
            ("x-clew-key", other),
            ("x-opencode-session", f"child-{number}"),
            ("x-clew-parent", one),
        )
        for number, one in enumerate((str(first.get("x-clew-session")), "e", "cs_" + "a" * 26))
    ]

    assert told(chains[0]) == told(chains[1])
    assert chains[0].get("x-clew-session") != first.get("x-clew-session")
    for number, answer in enumerate(parents):
        status, fields, body = told(answer)
        fields["session-id"] = str(fields["session-id"]).replace(f"-{number}", "")
        assert (status, fields, body) == (
            200,
            {
                "resolution": "new",
                "source": "opencode",
                "session": "cs_",
                "session-id": "child",
            },
            b"{}",
        )
    rows = keyed.sessions("fay")
    assert {row["parent_id"] for row in rows} == {None}
    assert {row["requests"] for row in keyed.sessions("eve")} == {2}


def test_usage_is_by_principal_and_team(keyed: World) -> None:
    """What a key says of its holder is on every record."""
    key = keyed.key("gus", team="blue", project="web")["key"]
    keyed.ask("POST", CHAT, ("x-clew-key", key), ("x-dynamo-session-id", "u"))
    keyed.sessions("gus")

    for by, name in (("principal", "gus"), ("team", "blue"), ("project", "web")):
        rows = keyed.running.gateway.admin(f"/api/v1/usage?by={by}")["items"]
        assert [row["requests"] for row in rows if row["key"] == name] == [1]


def test_a_revocation_holds_everywhere_at_once(keyed: World) -> None:
    """On kept connections to both workers, from the moment the verb returns."""
    made = keyed.key("hal")
    headers = {"x-clew-key": made["key"]}
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client()) for _ in range(16)]
        url = f"{keyed.running.gateway.url}{CHAT}"
        assert {one.post(url, headers=headers, json={}).status_code for one in clients} == {200}

        began = time.monotonic()
        done = keyed.verb(f"/api/v1/keys/{made['id']}/revoke")
        statuses = {one.post(url, headers=headers, json={}).status_code for one in clients}

        assert statuses == {401}
        assert done["unconfirmed"] == []
        assert time.monotonic() - began < REVOKED_WITHIN_S + 2.0
    stats = keyed.running.directory / "data" / "run"
    wait_until(
        lambda: all(
            json.loads(path.read_bytes())["requests_total"] > 0
            for path in stats.glob("gateway-*.stats.json")
        ),
        what="both workers served",
    )


def test_both_keys_work_until_the_grace_ends(keyed: World) -> None:
    """Then the new one alone; the session goes on under either."""
    old = keyed.key("ida")
    sent = ("x-dynamo-session-id", "turning")
    before = keyed.ask("POST", CHAT, ("x-clew-key", old["key"]), sent)

    new = keyed.verb(f"/api/v1/keys/{old['id']}/rotate", grace="2s")
    during = [keyed.status(one["key"]) for one in (old, new)]
    after = keyed.ask("POST", CHAT, ("x-clew-key", new["key"]), sent)

    assert during == [200, 200]
    assert after.get("x-clew-session") == before.get("x-clew-session")
    assert after.get("x-clew-resolution") == "exact"
    wait_until(lambda: keyed.status(old["key"]) == 401, what="the grace's end")
    assert keyed.status(new["key"]) == 200


@pytest.mark.parametrize("place", PLACES)
def test_the_key_never_reaches_the_upstream(keyed: World, place: str) -> None:
    """From none of its four places; a provider's key beside it does."""
    key = keyed.key("jon")["key"]
    value = f"Bearer {key}" if place == "authorization" else key
    beside = [("x-clew-key", key)] if place != "x-clew-key" else [("authorization", "Bearer own")]

    for target in (CHAT, "/v1/messages"):
        assert keyed.ask("POST", target, (place, value), *beside).status == 200

    assert key not in keyed.forwarded()
    assert "ck_" not in keyed.forwarded()
    if place == "x-clew-key":
        assert keyed.upstream.received[-1].get("authorization") == "Bearer own"


@pytest.mark.parametrize(
    "login", [("authorization", "Bearer sk-ant-oat01-x"), ("chatgpt-account-id", "a")]
)
def test_a_subscription_is_refused(keyed: World, login: tuple[str, str]) -> None:
    """Nothing is forwarded."""
    key = keyed.key("kim")["key"]
    before = len(keyed.upstream.received)

    answer = keyed.ask("POST", "/v1/messages", ("x-clew-key", key), login)

    assert (answer.status, answer.get("x-clew-error")) == (403, "subscription_refused")
    assert len(keyed.upstream.received) == before


def test_the_command_prints_the_key_alone(keyed: World) -> None:
    """What a script takes is the key and nothing else; the rest is on standard error."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        gateway = keyed.running.gateway
        command = [sys.executable, "-m", "clew.command", "keys", *words]
        command += ["--admin", gateway.admin_url]
        environment = {**os.environ, "CLEW_TOKEN": gateway.token}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    made = run("create", "--principal", "lea", "--team", "red", "--tag", "a=b", "--expires", "90d")
    key = made.stdout.removesuffix("\n")
    listed = json.loads(run("list", "--principal", "lea", "--json").stdout)
    turned = run("rotate", listed[0]["id"], "--grace", "1h")
    ended = run("revoke", listed[0]["id"])

    assert re.fullmatch(r"ck_[A-Za-z0-9_-]{43}\n", made.stdout)
    assert key not in made.stderr
    assert (listed[0]["principal"], listed[0]["tags"]) == ("lea", {"a": "b"})
    assert re.fullmatch(r"ck_[A-Za-z0-9_-]{43}\n", turned.stdout)
    assert ended.stdout == f"{listed[0]['id']} of lea is revoked\n"
    assert (keyed.status(key), keyed.status(turned.stdout.strip())) == (401, 200)


def test_a_key_outlives_its_processes(tmp_path: Path) -> None:
    """Through a restart and without the keeper; it is stored hashed and in no log."""
    with world(tmp_path, "keys", "allow_subscription = true") as found:
        kept, short = found.key("mia"), found.key("mia", expires="4s")
        assert (found.status(kept["key"]), found.status(short["key"])) == (200, 200)
        sent = ("authorization", "Bearer sk-ant-oat01-mine")
        found.ask("POST", "/v1/messages", ("x-clew-key", kept["key"]), sent)
        assert found.upstream.received[-1].get("authorization") == sent[1]

        assert found.running.stop() == 0
        found.running.end()
        found.running.start()
        assert found.status(kept["key"]) == 200

        keeper = found.running.pid("keeper")
        os.kill(keeper, signal.SIGSTOP)
        try:
            assert found.status(kept["key"]) == 200
            wait_until(lambda: found.status(short["key"]) == 401, what="the key's end")
        finally:
            os.kill(keeper, signal.SIGCONT)
        found.running.settle()
        everything = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(everything) > 5
        for key in (kept["key"], short["key"]):
            assert key not in found.forwarded()
            for path in everything:
                content = path.read_bytes()
                assert key.encode() not in content, path
                assert key[3:].encode() not in content, path


def test_a_key_of_ones_own_is_the_principal(credentialed: World) -> None:
    """The same key in another field is the same caller; another key is somebody else."""
    sent = ("x-dynamo-session-id", "shared")
    mine = credentialed.ask("POST", CHAT, ("x-api-key", "sk-mine"), sent)
    again = credentialed.ask("POST", CHAT, ("authorization", "Bearer sk-mine"), sent)
    other = credentialed.ask("POST", CHAT, ("x-api-key", "sk-other"), sent)

    assert mine.get("x-clew-session") == again.get("x-clew-session")
    assert (again.get("x-clew-resolution"), other.get("x-clew-resolution")) == ("exact", "new")
    assert mine.get("x-clew-session") != other.get("x-clew-session")
    rows = credentialed.running.gateway.admin("/api/v1/sessions")["items"]
    assert all(re.fullmatch(r"cr_[a-z2-7]{26}", row["principal"]) for row in rows)
    assert len({row["principal"] for row in rows}) == 2
    assert credentialed.upstream.received[-1].get("x-api-key") == "sk-other"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "unauthorized"),
        ([("x-clew-key", "ck_" + "A" * 43)], "unauthorized"),
        ([("x-api-key", "sk-a"), ("authorization", "Bearer sk-b")], "unauthorized"),
        ([("authorization", "Bearer sk-ant-oat01-x")], "subscription_refused"),
        ([("x-api-key", "sk-a"), ("chatgpt-account-id", "a")], "subscription_refused"),
        ([("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")], "subscription_refused"),
        ([("x-api-key", "sk-a"), ("x-api-key", "sk-a")], "ambiguous_header"),
    ],
)
def test_what_is_no_key_of_ones_own_is_refused(
    credentialed: World, headers: Fields, code: str
) -> None:
    """Nothing is forwarded."""
    before = len(credentialed.upstream.received)

    answer = credentialed.ask("POST", CHAT, *headers)

    assert answer.get("x-clew-error") == code
    assert len(credentialed.upstream.received) == before


def test_without_authentication_a_key_is_removed_too(tmp_path: Path) -> None:
    """Who sends one by mistake does not give it away."""
    key = "ck_" + "B" * 43
    with world(tmp_path, "none") as found:
        for place in PLACES:
            value = f"Bearer {key}" if place == "authorization" else key
            assert found.ask("POST", CHAT, (place, value)).status == 200
        assert len(found.upstream.received) == len(PLACES)
        assert "ck_" not in found.forwarded()
        assert {row["principal"] for row in found.sessions("local")} <= {"local"}
