"""Heads that came before: an agent sends the same one turn after turn, but for its length.

A head is remembered whole under its bytes without the digits of Content-Length, so that equal
heads are parsed once; what others conclude from a head alone they keep on its `HeadShape`. Only a
head that was accepted is remembered, and only the digits may differ, so a remembered head is
exactly what parsing it again would give. Bounded: two generations of short heads.

A head is remembered when it comes for the second time; of the first time only a number is kept. So
ids that are sent once, however many, fill no memory and push out nobody's head.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from clew.wire.heads import Framing, FramingKind, RequestHead, parse_request_head
from clew.wire.limits import Limits

GENERATION_HEADS: Final = 2048
MAX_HEAD_BYTES: Final = 2048
"""With two generations about 40 MiB at the most, whatever clients send."""
SEEN_ONCE: Final = 8192
"""Numbers of heads that came once; with the set about 1 MiB."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})\r\n", re.IGNORECASE)


class HeadMemo:
    """The heads one process has parsed lately."""

    __slots__ = ("_old", "_once", "_young")

    def __init__(self) -> None:
        self._young: dict[bytes, RequestHead] = {}
        self._old: dict[bytes, RequestHead] = {}
        self._once: set[int] = set()

    def parse(self, block: bytes, limits: Limits) -> RequestHead:
        """As `parse_request_head`, which is asked for whatever is new."""
        if len(block) > MAX_HEAD_BYTES:
            return parse_request_head(block, limits)
        found = _LENGTH.search(block)
        if found is None:
            known = self._find(block)
            return known if known is not None else self._keep(block, block, limits)
        start, end = found.span(1)
        key = block[:start] + block[end:]
        known = self._find(key)
        if known is None:
            return self._keep(key, block, limits)
        return _with_length(known, found[1])

    def _find(self, key: bytes) -> RequestHead | None:
        known = self._young.get(key)
        if known is None:
            known = self._old.get(key)
            if known is not None:
                self._remember(key, known)
        return known

    def _keep(self, key: bytes, block: bytes, limits: Limits) -> RequestHead:
        head = parse_request_head(block, limits)
        # Two heads of one number cost nothing but that the second is remembered at once.
        number = hash(key)
        if number in self._once:
            self._once.discard(number)
            self._remember(key, head)
            return head
        if len(self._once) >= SEEN_ONCE:
            self._once.clear()
        self._once.add(number)
        return head

    def _remember(self, key: bytes, head: RequestHead) -> None:
        if len(self._young) >= GENERATION_HEADS:
            self._old = self._young
            self._young = {}
        self._young[key] = head


def _with_length(head: RequestHead, digits: bytes) -> RequestHead:
    """The same head with another Content-Length."""
    length = int(digits)
    if length == head.framing.length:
        return head
    headers = list(head.headers)
    headers[head.shape.length_index] = (b"content-length", digits)
    return msgspec.structs.replace(
        head, headers=headers, framing=Framing(FramingKind.LENGTH, length)
    )
