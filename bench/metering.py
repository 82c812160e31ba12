"""What metering costs on the way of a stream: the same stream where it is read, and where not.

Clew reads the stream of an inference path for its usage and its end; a stream of any other path is
relayed unread. Both are sent through the same gateway, and its processor time per chunk is compared
inside one run. The unread stream is not looked up in a session either, which is once a stream: the
ratio is the most that metering can cost.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bench.load import Plan

SCENARIO: Final = "unread"
"""The stream scenario again, on a path that no API has."""
PROXY: Final = "clew"
_UNREAD_PATH: Final = "/v1/streams"


def unread(plan: Plan) -> Plan:
    """The plan of a stream, on a path where nothing is read."""
    return msgspec.structs.replace(plan, path=_UNREAD_PATH)


def metering_line(rows: list[dict[str, Any]]) -> str:
    """The ratio as a sentence; empty where one of the two was not measured or went wrong."""
    found = {row["scenario"]: row for row in rows if row["proxy"] == PROXY and not row["errors"]}
    read, relayed = found.get("stream"), found.get(SCENARIO)
    if read is None or relayed is None or not relayed["worker_us"]:
        return ""
    ratio = read["worker_us"] / relayed["worker_us"]
    return (
        f"Metering of a stream: {read['worker_us']:.1f} µs a chunk with it, "
        f"{relayed['worker_us']:.1f} µs without: × {ratio:.2f}"
    )
