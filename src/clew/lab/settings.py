"""What the simulator can be told, as one frozen value and as command-line flags.

Every field is a flag of the same name (``latency_ms`` is ``--latency-ms``). A rate of 0 means
without limit, so that the defaults of the tests are instant and only people see pacing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Annotated, Final, Literal, get_args

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, msgspec.Meta(ge=0.0)]
Count = Annotated[int, msgspec.Meta(ge=0)]

Coding = Literal["auto", "identity", "gzip", "br", "zstd", "deflate"]
CODINGS: Final = get_args(Coding)


class SimSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One simulated provider. Times as the names say; tokens are about four bytes each."""

    listen: str = "127.0.0.1:0"
    """HOST:PORT; port 0 takes a free one, which the ready line names."""
    seed: int = 1
    """Equal seeds and equal request orders give equal replies, ids, errors and cuts."""
    latency_ms: Amount = 5.0
    """Before the first byte of every answer."""
    tokens_per_second: Amount = 200.0
    """Of one stream; 0: as fast as the socket takes it."""
    prefill_tokens_per_second: Amount = 20_000.0
    """Prompt tokens that were not cached, before the first token; 0: no time at all."""
    reply_tokens: Count = 0
    """Plain replies are lengthened to this many tokens; 0: one short line."""
    error_rate: Share = 0.0
    """Share of calls answered 429, 500 or 529 (503 where the vendor has no 529), in turn."""
    cut_rate: Share = 0.0
    """Share of streams whose connection is dropped before their end."""
    cache_ttl_s: Amount = 300.0
    """How long an unused block of the prefix cache lives."""
    cache_tokens: Count = 4_000_000
    """How many prompt tokens the prefix cache holds, least recently used first out."""
    encoding: Coding = "auto"
    """``auto``: the best coding the client accepts; a name: that one where accepted."""
    phase: Literal["", "prefill", "decode"] = ""
    """Serve this phase alone, and insist on the hand-over; empty: whole requests."""
    engine: Literal["vllm", "sglang"] = "vllm"
    """How the two phases meet, where there is a ``phase``."""
    journal: str = ""
    """A file that gets one JSON line a call: what was really generated."""
    with_parent: bool = False
    """Leave when standard input closes, so that a child never outlives who started it."""


def parse_arguments(arguments: Sequence[str]) -> SimSettings:
    """Settings from flags; exits 2 with one line on a fault, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="clew sim",
        description="A simulated provider: OpenAI chat and responses, Anthropic messages, Gemini.",
    )
    defaults = SimSettings()
    for field in msgspec.structs.fields(SimSettings):
        default = getattr(defaults, field.name)
        flag = "--" + field.name.replace("_", "-")
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, default=default, help=f"default: {default!r}")
    try:
        return msgspec.convert(vars(parser.parse_args(arguments)), SimSettings, strict=False)
    except msgspec.ValidationError as fault:
        parser.error(str(fault))
