"""The gate of each mode, and what a gateway knows of keys while the keeper comes and goes."""

from __future__ import annotations

import asyncio

import pytest

from clew.config.schema import Auth, Config
from clew.core.claim import Principal
from clew.core.errors import ClewError
from clew.core.keys import LOCAL, Key, format_secret, hash_secret, revoke
from clew.gateway.gate import NOBODY, Gate
from clew.gateway.keyring import Keyring
from clew.keeper.protocol import KeyDelta, KeySnapshot
from clew.wire.heads import RequestHead, parse_request_head
from clew.wire.limits import Limits

SECRET = b"s" * 32
NOW = 1_800_000_000_000_000_000
MINE = format_secret(b"m" * 32)
ALICE = Key("key_a", hash_secret(SECRET, MINE.encode()), Principal("alice"), NOW, "red", "web")
ROUTES = ("GET /clew/v1/session", "POST /v1/messages", "GET /v1/models", "GET /clew/v1/other")
OPEN = (
    "GET /clew/v1/health",
    "HEAD /clew/v1/ready",
    "GET /clew/v1/ready?x=1",
    "HEAD /",
    "HEAD /api/hello",
)


class Clock:
    """The present."""

    def __init__(self) -> None:
        self.now_ns = NOW

    def __call__(self) -> int:
        """Unix nanoseconds."""
        return self.now_ns


def gate_of(mode: str, keyring: Keyring, clock: Clock | None = None) -> Gate:
    """The gate of a mode."""
    return Gate(Config(auth=Auth(mode=mode)), keyring, SECRET, clock or Clock())


def ring(*keys: Key) -> Keyring:
    """What a gateway knows after its snapshot."""
    found = Keyring()
    found.learn(KeySnapshot(0, keys, is_first=True, is_last=True))
    return found


def head(line: str, *fields: str) -> RequestHead:
    """A request's head."""
    lines = (f"{line} HTTP/1.1", "Host: anywhere.example", *fields)
    return parse_request_head("\r\n".join((*lines, "", "")).encode(), Limits())


def code(gate: Gate, request: RequestHead) -> str:
    """The refusal's code."""
    with pytest.raises(ClewError) as caught:
        gate.admit(request)
    return caught.value.fault.code


@pytest.mark.parametrize("line", OPEN)
@pytest.mark.parametrize("mode", ["keys", "credential"])
def test_open_routes_belong_to_nobody(mode: str, line: str) -> None:
    """No credential, no principal, from any host, heard keys or not."""
    assert gate_of(mode, Keyring()).admit(head(line)) is NOBODY


@pytest.mark.parametrize("line", ROUTES)
@pytest.mark.parametrize("mode", ["keys", "credential"])
def test_every_other_route_asks_who_calls(mode: str, line: str) -> None:
    """Also those that do not exist: what is there is told to nobody."""
    assert code(gate_of(mode, ring(ALICE)), head(line)) == "unauthorized"


@pytest.mark.parametrize("line", [*ROUTES, *OPEN])
def test_without_authentication_the_host_is_checked(line: str) -> None:
    """A name that was rebound to this machine reaches nothing."""
    assert code(gate_of("none", Keyring()), head(line)) == "origin_refused"


def test_without_authentication_everybody_is_local() -> None:
    """Whatever key is sent."""
    request = parse_request_head(
        f"GET / HTTP/1.1\r\nHost: localhost\r\nx-clew-key: {MINE}\r\n\r\n".encode(), Limits()
    )

    assert gate_of("none", ring(ALICE)).admit(request) is LOCAL


def test_a_key_brings_team_and_project() -> None:
    """From any host."""
    caller = gate_of("keys", ring(ALICE)).admit(head(ROUTES[1], f"x-clew-key: {MINE}"))

    assert (caller.principal, caller.team, caller.project) == ("alice", "red", "web")


def test_until_the_keys_are_heard_nobody_can_be_told_apart() -> None:
    """A valid key is asked to come again, not refused."""
    keyring = Keyring()
    gate = gate_of("keys", keyring)
    request = head(ROUTES[1], f"x-clew-key: {MINE}")

    assert code(gate, request) == "store_unavailable"
    keyring.learn(KeySnapshot(0, (ALICE,), is_first=True, is_last=False))
    assert code(gate, request) == "store_unavailable"
    keyring.learn(KeySnapshot(0, (), is_first=False, is_last=True))
    assert gate.admit(request).principal == "alice"


def test_a_known_key_expires_without_the_keeper() -> None:
    """The gateway's own clock ends it."""
    key = Key("key_a", ALICE.hash, ALICE.principal, NOW, expires_at_ns=NOW + 5)
    clock = Clock()
    gate = gate_of("keys", ring(key), clock)
    request = head(ROUTES[1], f"x-clew-key: {MINE}")

    assert gate.admit(request).principal == "alice"
    clock.now_ns += 5
    assert code(gate, request) == "unauthorized"


def test_a_revocation_holds_from_the_delta_on() -> None:
    """The next request with the same head is refused."""
    keyring = ring(ALICE)
    gate = gate_of("keys", keyring)
    request = head(ROUTES[1], f"x-clew-key: {MINE}")
    gate.admit(request)

    keyring.learn(KeyDelta(1, (revoke(ALICE, NOW),)))

    assert code(gate, request) == "unauthorized"


def test_a_whole_snapshot_replaces_what_was_known() -> None:
    """What was revoked while the keeper could not be heard is gone; a torn one changes nothing."""
    keyring = ring(ALICE)
    keyring.learn(KeySnapshot(5, (), is_first=True, is_last=False))
    assert ALICE.hash in keyring.by_hash

    keyring.learn(KeySnapshot(6, (), is_first=True, is_last=True))

    assert ALICE.hash not in keyring.by_hash


def test_use_is_noted_once_a_key() -> None:
    """Refused keys are not in use."""
    keyring = ring(ALICE)
    gate = gate_of("keys", keyring)
    for _ in range(3):
        gate.admit(head(ROUTES[1], f"x-clew-key: {MINE}"))
    code(gate, head(ROUTES[1], f"x-clew-key: {format_secret(bytes(32))}"))

    assert keyring.take_used() == ("key_a",)
    assert keyring.take_used() == ()


def test_waiting_for_the_keys_ends() -> None:
    """With them, or without them when they do not come."""

    async def work() -> None:
        keyring = Keyring()
        assert not await keyring.wait_heard(0.001)
        keyring.learn(KeySnapshot(0, (), is_first=True, is_last=True))
        assert await keyring.wait_heard(5)

    asyncio.run(work())
