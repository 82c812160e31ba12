"""Feeding a tap, so that a test reads as what went in and what came out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from clew.core.apis.port import Api, Reading, Tap
from clew.core.apis.table import APIS

BY_NAME: dict[str, Api] = {api.name: api for api in APIS}


def pieces_of(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The stream cut at these offsets."""
    at = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(at)]


def feed_all(tap: Tap, pieces: Iterable[bytes]) -> tuple[Reading, int]:
    """The reading, and the absolute offset where the closing span began (-1: never)."""
    closing, offset = -1, 0
    for piece in pieces:
        index = tap.feed(piece)
        if closing < 0 <= index:
            closing = offset + index
        offset += len(piece)
    return tap.finish(), closing


def read_stream(api: str, stream: bytes) -> tuple[Reading, int]:
    """A stream in one piece."""
    return feed_all(BY_NAME[api].stream_tap(), [stream])


def read_document(api: str, document: Any) -> Reading:
    """A document in one piece."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return feed_all(BY_NAME[api].unary_tap(), [data])[0]
