"""How vLLM is told of two phases: ``kv_transfer_params``, one worker after the other.

| step | request | answer |
|---|---|---|
| 1 | to prefill: one token, not streamed, ``do_remote_decode`` | ``kv_transfer_params`` |
| 2 | to decode: the client's, with those ``kv_transfer_params`` | the client's |

What the prefill worker answers is the decode worker's alone to understand (the connector of
``--kv-transfer-config`` decides its form), so it is handed on as its bytes. A prefill whose first
token ends the answer keeps nothing and hands nothing over; the decode worker then computes the
prompt itself. Source: vLLM's documentation of disaggregated prefilling with the NIXL connector.
"""

from __future__ import annotations

from typing import Final

import msgspec

from clew.core.phases import Members, write_members

FIELD: Final = "kv_transfer_params"

HandedOver = msgspec.Raw | None
"""What one worker hands to the other, as its bytes; None: nothing."""

_REQUEST: Final = msgspec.Raw(
    b'{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,'
    b'"remote_block_ids":null,"remote_host":null,"remote_port":null}'
)
_ONE: Final = msgspec.Raw(b"1")
_FALSE: Final = msgspec.Raw(b"false")

_LIMITS: Final = {
    "chat": "max_tokens",
    "messages": "max_tokens",
    "responses": "max_output_tokens",
}
"""What bounds an answer, by API: a member that the engine has a default for is set all the same."""
_OTHER_LIMITS: Final = ("max_completion_tokens", "max_tokens")
"""Names of the same bound: where one is present, it says one token too."""
_DROPPED: Final = ("stream_options", "min_tokens", "min_completion_tokens")
"""What no longer fits: the options of a stream there is none of, and a least length above one."""


class _Answer(msgspec.Struct, gc=False):
    kv_transfer_params: msgspec.Raw = msgspec.Raw(b"")


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def prefill_body(members: Members, api: str) -> bytes:
    """What the prefill worker gets. ``api`` names the request's (`core.apis`)."""
    asked = {name: value for name, value in members.items() if name not in _DROPPED}
    for name in _OTHER_LIMITS:
        if name in asked:
            asked[name] = _ONE
    asked[_LIMITS.get(api, "max_tokens")] = _ONE
    asked["stream"] = _FALSE
    asked[FIELD] = _REQUEST
    return write_members(asked)


def read_hand_over(answer: bytes) -> HandedOver:
    """What a prefill worker hands over; None where it kept nothing.

    Raises ValueError where the answer is no JSON object, or what it hands over is none.
    """
    try:
        found = bytes(_decode_answer(answer).kv_transfer_params)
    except (msgspec.MsgspecError, RecursionError) as fault:
        raise ValueError("the prefill worker's answer is not JSON") from fault
    if found in (b"", b"null"):
        return None
    if not found.startswith(b"{"):
        raise ValueError(f"the prefill worker's {FIELD} is no object")
    return msgspec.Raw(found)


def decode_body(members: Members, hand_over: HandedOver) -> bytes:
    """What the decode worker gets; a hand-over of the client's own making is dropped."""
    asked = {name: value for name, value in members.items() if name != FIELD}
    if hand_over is not None:
        asked[FIELD] = hand_over
    return write_members(asked)
