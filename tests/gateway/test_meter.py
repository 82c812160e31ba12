"""What a meter holds of a response, and for how long."""

from __future__ import annotations

import gc
import weakref

from clew.core.apis.chat import CHAT
from clew.gateway.meter import Meter
from clew.wire.heads import ResponseHead, parse_response_head
from clew.wire.limits import PoolLimits


def response() -> ResponseHead:
    """The head of a unary answer."""
    block = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    return parse_response_head(block, b"POST", PoolLimits())


def test_what_was_read_goes_with_its_meter() -> None:
    """Nothing waits for the collector: many answers at once would be held until it comes by."""
    gc.disable()
    try:
        meter = Meter(CHAT, response(), keeps=True)
        assert meter.feed is not None
        meter.feed(b"{}")
        meter.finish()
        kept = weakref.ref(meter._kept)
        assert meter.payload == b"{}"
        del meter

        assert kept() is None
    finally:
        gc.enable()


def test_a_response_of_no_api_is_not_read() -> None:
    """There is nothing to feed."""
    meter = Meter(None, response())

    assert meter.feed is None
    assert not meter.is_read
