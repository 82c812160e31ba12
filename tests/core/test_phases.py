"""What is common to engines of two phases: their parts, their bodies, their words."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.config.schema import Upstream
from clew.core import phases
from clew.core import phases_sglang as sglang
from clew.core import phases_vllm as vllm
from clew.core.events import Usage

PREFILL = ("http://p1:8000", "http://p2:8000")
DECODE = ("http://d1:8000",)
FLEET = Upstream(name="fleet", kind="engine", prefill=PREFILL, decode=DECODE)

finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | finite | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
names = st.sampled_from(
    (
        "model",
        "messages",
        "n",
        "ä",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "min_tokens",
        "kv_transfer_params",
        "bootstrap_host",
        "bootstrap_room",
    )
)
bodies = st.dictionaries(names, values)


def members(body: dict[str, Any]) -> phases.Members:
    """A body's top level."""
    found = phases.read_members(json.dumps(body).encode())
    assert found is not None
    return found


def test_an_upstream_of_two_phases_has_two_parts() -> None:
    """Each with its workers alone, under a name that no upstream can have."""
    parts = dict(phases.parts_of(FLEET))

    assert [(part.name, part.workers) for part in parts.values()] == [
        ("fleet/prefill", PREFILL),
        ("fleet/decode", DECODE),
    ]
    assert not any(phases.is_two_phase(part) for part in parts.values())


def test_any_other_upstream_is_its_own_part() -> None:
    """Nothing changes for it."""
    plain = Upstream(name="fleet", kind="engine", workers=PREFILL)

    assert list(phases.parts_of(plain)) == [("", plain)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/v1/chat/completions", True),
        (b"/v1/chat/completions?beta=true", True),
        (b"/v1/messages", True),
        (b"/v1/responses", True),
        (b"/v1/messages/count_tokens", False),
        (b"/v1/responses/resp_1/cancel", False),
        (b"/v1/models", False),
    ],
)
def test_what_generates_has_two_phases(path: bytes, expected: bool) -> None:
    """Token counts and lists are one worker's."""
    assert phases.has_two_phases(path) is expected


@given(bodies)
def test_a_body_that_is_read_and_written_says_the_same(body: dict[str, Any]) -> None:
    """Values keep their bytes, members their order."""
    assert list(json.loads(phases.write_members(members(body))).items()) == list(body.items())


def test_values_keep_their_bytes() -> None:
    """A number is not written anew."""
    found = phases.read_members(b'{"a": 1.50e3, "b": "\\u0041", "c": [ 1 ]}')

    assert found is not None
    assert phases.write_members(found) == b'{"a":1.50e3,"b":"\\u0041","c":[ 1 ]}'


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b"\xff", b'{"a": NaN}', b'{"a": 1} x', b"\xef\xbb\xbf{}", b"{" * 9999],
)
def test_what_is_not_one_json_object_has_no_members(body: bytes) -> None:
    """What only some readers take is taken by none."""
    assert phases.read_members(body) is None


@given(bodies, st.sampled_from(["chat", "messages", "responses"]))
def test_vllms_prefill_generates_one_token_and_no_stream(body: dict[str, Any], api: str) -> None:
    """Whatever the client asked for; what else it asked stays."""
    asked = json.loads(vllm.prefill_body(members(body), api))

    assert asked["stream"] is False
    limit = "max_output_tokens" if api == "responses" else "max_tokens"
    assert asked[limit] == 1
    assert asked.get("max_completion_tokens", 1) == 1
    assert not {"stream_options", "min_tokens"} & set(asked)
    assert asked["kv_transfer_params"]["do_remote_decode"] is True
    assert asked["kv_transfer_params"]["remote_host"] is None
    for name in {"model", "messages", "n", "ä"} & set(body):
        assert asked[name] == body[name]


@given(bodies)
def test_vllms_decode_gets_the_hand_over_and_no_other(body: dict[str, Any]) -> None:
    """The client's own is replaced; without one there is none."""
    handed = msgspec.Raw(b'{"remote_block_ids": [1,2]}')

    with_it = json.loads(vllm.decode_body(members(body), handed))
    without = json.loads(vllm.decode_body(members(body), None))

    assert with_it.pop("kv_transfer_params") == {"remote_block_ids": [1, 2]}
    body.pop("kv_transfer_params", None)
    assert with_it == without == body


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"kv_transfer_params": {"a": [1, 2]}, "choices": []}', b'{"a": [1, 2]}'),
        (b'{"kv_transfer_params": null}', None),
        (b"{}", None),
    ],
)
def test_what_vllm_hands_over_is_taken_as_it_is(answer: bytes, expected: bytes | None) -> None:
    """Its form is the decode worker's to know."""
    found = vllm.read_hand_over(answer)

    assert (None if found is None else bytes(found)) == expected


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"kv_transfer_params": "x"}'])
def test_an_answer_that_cannot_be_a_prefills_is_refused(answer: bytes) -> None:
    """A decode that guesses would answer for another prompt."""
    with pytest.raises(ValueError, match="prefill worker"):
        vllm.read_hand_over(answer)


@given(bodies, st.integers(min_value=0, max_value=2**64 - 1))
def test_sglangs_workers_get_one_room(body: dict[str, Any], room: int) -> None:
    """The same body for both; a room is a non-negative 64-bit signed number."""
    asked = json.loads(sglang.shared_body(members(body), "10.0.0.1", 8998, room))

    assert (asked.pop("bootstrap_host"), asked.pop("bootstrap_port")) == ("10.0.0.1", 8998)
    assert 0 <= asked.pop("bootstrap_room") < 2**63
    body.pop("bootstrap_host", None)
    body.pop("bootstrap_room", None)
    assert asked == body


def test_an_ipv6_bootstrap_host_is_in_brackets() -> None:
    """So that a port can stand behind it."""
    asked = json.loads(sglang.shared_body({}, "fd00::1", 8998, 1))

    assert asked["bootstrap_host"] == "[fd00::1]"


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ((), {}),
        ((9000,), {PREFILL[0]: 9000, PREFILL[1]: 9000}),
        ((9000, 9001), {PREFILL[0]: 9000, PREFILL[1]: 9001}),
    ],
)
def test_bootstrap_ports_are_one_for_all_or_one_for_each(
    ports: tuple[int, ...], expected: dict[str, int]
) -> None:
    """In the order of the prefill workers."""
    upstream = msgspec.structs.replace(FLEET, hand_over="sglang", bootstrap_ports=ports)

    assert phases.hand_over_of(upstream).bootstrap_ports == expected


@pytest.mark.parametrize(
    ("prefill", "decode", "expected"),
    [
        ("new", "held", "new"),
        ("held", "rebound", "rebound"),
        ("unbound", "rebound", "unbound"),
        ("held", "held", "held"),
        ("", "", ""),
    ],
)
def test_two_bindings_are_called_by_the_weaker_word(
    prefill: str, decode: str, expected: str
) -> None:
    """What happened to either happened to the session."""
    assert phases.joint_word(prefill, decode) == expected


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**9))
def test_the_joint_epoch_grows_with_each_move(prefill: int, decode: int, more: int) -> None:
    """Of either; there is none where one is unbound."""
    before = phases.joint_epoch(prefill, decode)

    assert phases.joint_epoch(prefill + more, decode) > before
    assert phases.joint_epoch(prefill, decode + more) > before
    assert phases.joint_epoch(0, decode) == phases.joint_epoch(prefill, 0) == 0


def test_cached_tokens_are_what_the_prefill_found() -> None:
    """And never more than the prompt has."""
    usage = Usage(input_tokens=100, cached_tokens=100, output_tokens=5)

    assert phases.with_cached(usage, None) == usage
    assert phases.with_cached(usage, Usage(cached_tokens=64)).cached_tokens == 64
    assert phases.with_cached(usage, Usage(cached_tokens=640)).cached_tokens == 100
