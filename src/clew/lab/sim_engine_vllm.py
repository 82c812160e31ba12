"""vLLM's two phases as simulated: ``kv_transfer_params``, the prefill first.

The prefill worker insists on what the protocol asks of it: one token, no stream, and a request to
keep the blocks for a remote decode. The decode worker fetches from the engine that is named.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from clew.lab.sim_cache import BLOCK_TOKENS, tokens_of
from clew.lab.sim_dialect import Ask
from clew.lab.sim_engine import (
    MAX_KEPT,
    HandOverError,
    Turn,
    ask_other,
    digest_of,
    need,
    one_token,
)

FIELD: Final = "kv_transfer_params"
FETCH_PATH: Final = "/sim/kv"
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class VllmPrefill:
    """Keeps each prompt's blocks until one decode worker has fetched them."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._engine = f"engine-{port}"
        self._kept: OrderedDict[str, tuple[list[int], str]] = OrderedDict()
        self._next_block = itertools.count(1)
        self._next_request = itertools.count(1)

    async def begin(self, document: Mapping[str, Any], ask: Ask, prompt: bytes) -> Turn:
        """Refuses what is no prefill request."""
        asked = document.get(FIELD)
        need(isinstance(asked, dict), f"{FIELD} is missing")
        assert isinstance(asked, dict)
        need(asked.get("do_remote_decode") is True, "do_remote_decode is not true")
        need(asked.get("do_remote_prefill") is False, "do_remote_prefill is not false")
        need(asked.get("remote_host") is None, "a prefill names no other engine")
        need(document.get("stream") is False, "a prefill is not streamed")
        need("stream_options" not in document, "stream_options without a stream")
        limits = [document[name] for name in _LIMITS if name in document]
        need(limits and set(limits) == {1}, "a prefill generates one token")
        need("min_tokens" not in document, "min_tokens is over the limit")
        blocks = [next(self._next_block) for _ in range(-(-tokens_of(prompt) // BLOCK_TOKENS))]
        request = f"chatcmpl-{self._port}-{next(self._next_request)}"

        async def keep() -> None:
            self._kept[request] = (blocks, digest_of(ask.model, prompt))
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

        extra = {
            FIELD: {
                "do_remote_prefill": True,
                "do_remote_decode": False,
                "remote_block_ids": blocks,
                "remote_engine_id": self._engine,
                "remote_request_id": request,
                "remote_host": self._host,
                "remote_port": self._port,
            }
        }
        return Turn(ask=one_token(ask), extra=extra, computed=keep)

    async def meet(self, path: str, document: Mapping[str, Any]) -> None:
        """Hand the blocks over, once, to who has the same prompt."""
        need(path == FETCH_PATH, "no such path")
        need(document.get("engine") == self._engine, "another engine's hand-over")
        found = self._kept.pop(str(document.get("request")), None)
        if found is None:
            raise HandOverError("nothing is kept under this hand-over")
        blocks, digest = found
        need(document.get("blocks") == blocks, "other blocks than were handed over")
        need(document.get("prompt") == digest, "the hand-over of another prompt")


class VllmDecode:
    """Generates from blocks that a prefill worker has kept."""

    async def begin(self, document: Mapping[str, Any], ask: Ask, prompt: bytes) -> Turn:
        """Refuses to compute a prompt itself."""
        given = document.get(FIELD)
        need(isinstance(given, dict), f"{FIELD} is missing: nothing was handed over")
        assert isinstance(given, dict)
        need(given.get("do_remote_prefill") is True, "do_remote_prefill is not true")
        need(given.get("do_remote_decode") is False, "do_remote_decode is not false")
        need(isinstance(given.get("remote_host"), str), "remote_host is missing")
        need(isinstance(given.get("remote_port"), int), "remote_port is missing")
        asked = {
            "engine": given.get("remote_engine_id"),
            "request": given.get("remote_request_id"),
            "blocks": given.get("remote_block_ids"),
            "prompt": digest_of(ask.model, prompt),
        }
        await ask_other(given["remote_host"], given["remote_port"], FETCH_PATH, asked)
        return Turn(ask=ask, is_fetched=True)

    async def meet(self, path: str, document: Mapping[str, Any]) -> None:  # noqa: ARG002  the port's
        """Nobody asks a decode worker."""
        raise HandOverError("this is a decode worker")
