"""Engines that serve in two phases: which worker reads the prompt, and which one generates.

A two-phase upstream (``prefill`` and ``decode`` in the configuration) is two sets of workers. Each
is a part of its own everywhere workers are followed, chosen and bound: `parts_of` says which parts
an upstream has, `part_name` what one is called. How the two engines are told of each other is the
dialect's (`phases_vllm`, `phases_sglang`); what is common to both is here:

- A request body is changed member by member: the values that are not ours keep their bytes and
  their order. A member that a client sends in the hand-over's name is replaced, never passed: who
  names the worker that a decode fetches from is the gateway alone.
- A body that is not one JSON object is refused: what another reader might find in it, nobody knows.
- Usage is the decode worker's, counted once. Its cached tokens are the prefill worker's: a decode
  calls everything cached that was handed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from clew.config.schema import Upstream
from clew.core.affinity import Word
from clew.core.apis.table import api_for
from clew.core.events import Usage
from clew.core.routing import is_count_tokens

PREFILL: Final = "prefill"
DECODE: Final = "decode"

Members = dict[str, msgspec.Raw]
"""A body's top level: each value as its bytes. Of equal keys the last, as parsers take them."""

_GENERATING: Final = (b"/chat/completions", b"/messages", b"/responses")
"""What a path ends with whose request has both phases. Below them nothing is generated anew."""

_decode_members: Final = msgspec.json.Decoder(Members).decode


def is_two_phase(upstream: Upstream) -> bool:
    """Whether its workers serve one phase each."""
    return bool(upstream.prefill or upstream.decode)


def part_name(upstream: str, phase: str) -> str:
    """What an upstream's part is called where its workers are followed and bound.

    A slash is in no upstream's name, so no part is taken for another upstream.
    """
    return f"{upstream}/{phase}" if phase else upstream


def parts_of(upstream: Upstream) -> Iterator[tuple[str, Upstream]]:
    """Each phase (empty where there is one) with an upstream that has its workers alone."""
    if not is_two_phase(upstream):
        yield "", upstream
        return
    for phase, workers in ((PREFILL, upstream.prefill), (DECODE, upstream.decode)):
        part = msgspec.structs.replace(
            upstream,
            name=part_name(upstream.name, phase),
            workers=workers,
            prefill=(),
            decode=(),
        )
        yield phase, part


class HandOver(msgspec.Struct, frozen=True):
    """How one upstream's workers are told of each other."""

    dialect: str
    """``upstream.hand_over``."""
    bootstrap_ports: dict[str, int]
    """Of SGLang's prefill workers, by url; who is not in it has SGLang's own default."""


def hand_over_of(upstream: Upstream) -> HandOver:
    """As configured. One port serves all prefill workers, several each its own."""
    ports = upstream.bootstrap_ports
    if len(ports) == 1:
        ports *= len(upstream.prefill)
    # No ports, or (refused at start) another number of them: the default serves the rest.
    return HandOver(upstream.hand_over, dict(zip(upstream.prefill, ports, strict=False)))


_WORDS: Final = (Word.UNBOUND, Word.REBOUND, Word.NEW, Word.HELD)
"""What two bindings are called together: the first that one of them is."""


def joint_word(prefill: str, decode: str) -> str:
    """``x-clew-binding`` of a request of two phases; empty without affinity."""
    return next((word.value for word in _WORDS if word in (prefill, decode)), "")


def joint_epoch(prefill: int, decode: int) -> int:
    """``x-clew-epoch`` of a request of two phases: 0 unless both are bound.

    The sum, because it grows with each move of either, in every claim store.
    """
    return prefill + decode if prefill and decode else 0


def has_two_phases(path: bytes) -> bool:
    """Whether a request to this path (query allowed) generates: else the decode worker serves."""
    path = path.partition(b"?")[0]
    is_inference = api_for(b"POST", path) is not None and not is_count_tokens(path)
    return is_inference and path.endswith(_GENERATING)


def read_members(body: bytes) -> Members | None:
    """A body's top level; None where it is not one JSON object."""
    try:
        return _decode_members(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def write_members(members: Members) -> bytes:
    """The body again: members in order, every value as it was."""
    return msgspec.json.encode(members)


def with_cached(usage: Usage, prefilled: Usage | None) -> Usage:
    """The usage of both phases as one: the decode's, with what the prefill found cached.

    ``prefilled`` is None where the prefill worker named no usage: the decode's stands.
    """
    if prefilled is None:
        return usage
    cached = min(prefilled.cached_tokens, usage.input_tokens)
    return msgspec.structs.replace(usage, cached_tokens=cached)
