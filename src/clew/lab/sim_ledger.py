"""What the simulator remembers for tests: requests as received, and what was really generated.

Both are bounded rings; the journal file, where one is set, keeps every call.
"""

from __future__ import annotations

import base64
from collections import deque
from io import BufferedWriter
from pathlib import Path
from typing import Any, Final

import msgspec

from clew.lab.sim_dialect import Spent, ToolCall
from clew.lab.sim_http import Request

RECENT_REQUESTS: Final = 1_000
RECENT_BYTES: Final = 64 * 1024 * 1024
"""Bodies of coding agents reach 100 KB; long runs must not grow."""
RECENT_CALLS: Final = 20_000


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One generating call, as the journal has it. Tokens are those really sent."""

    number: int
    api: str
    path: str
    model: str
    status: int
    stream: bool
    response_id: str
    """The hexadecimal part of the answer's id."""
    reply: str
    """The text planned for the answer."""
    planned: Spent
    """What the usage of a whole answer says."""
    generated_tokens: int
    """Tokens that left before the end, a cut or the client's departure."""
    is_complete: bool
    is_cut: bool
    client_disconnected: bool
    encoding: str
    ttft_ms: float
    total_ms: float
    request_bytes: int
    response_bytes: int
    tag: str = ""
    """What the request called itself (``x-sim-tag``)."""
    calls: tuple[ToolCall, ...] = ()
    """The tool calls planned for the answer."""


class Ledger:
    """The two rings and the file. Raises OSError when the journal cannot be opened or written."""

    def __init__(self, journal: str) -> None:
        self._requests: deque[Request] = deque()
        self._request_bytes = 0
        self._calls: deque[Call] = deque(maxlen=RECENT_CALLS)
        self._file: BufferedWriter | None = Path(journal).open("ab") if journal else None  # noqa: SIM115  closed in close

    def received(self, request: Request) -> None:
        """Keep a request as it came."""
        self._requests.append(request)
        self._request_bytes += len(request.body)
        while len(self._requests) > RECENT_REQUESTS or self._request_bytes > RECENT_BYTES:
            self._request_bytes -= len(self._requests.popleft().body)

    def called(self, call: Call) -> None:
        """Keep one call; in the file at once, so that a kill loses none."""
        self._calls.append(call)
        if self._file is not None:
            self._file.write(msgspec.json.encode(call) + b"\n")
            self._file.flush()

    def requests(self, limit: int) -> list[dict[str, Any]]:
        """The newest requests, oldest first; bodies in base64."""
        newest = list(self._requests)[-limit:] if limit > 0 else []
        return [
            {
                "method": request.method,
                "target": request.target,
                "headers": request.headers,
                "body": base64.b64encode(request.body).decode(),
            }
            for request in newest
        ]

    def calls(self) -> list[Call]:
        """The newest calls, oldest first."""
        return list(self._calls)

    def clear(self) -> None:
        """Forget both rings; the file stays."""
        self._requests.clear()
        self._calls.clear()
        self._request_bytes = 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
