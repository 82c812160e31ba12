"""A provider that dies at any byte of any API's stream: what came, an error event, one record.

Whole streams are recorded from the simulator once; then each is sent again and cut after byte
0, 1, 2 … of it. Run as ``python -m tests.soak.cuts --rounds N`` with N cuts for each API; exits 1
when one violates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.e2e.installation import Installation
from tests.e2e.plain import (
    Answer,
    Received,
    Upstream,
    ask,
    exchange,
    read_answer,
    request_bytes,
    upstream,
)
from tests.e2e.processes import simulator_process

CONFIGURATION: Final = """
[[upstream]]
name = "own"
url = "{url}"
"""
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/sim-model:streamGenerateContent?alt=sse",
}
METERED: Final = ("error", "estimated", "input_tokens", "output_tokens", "flags", "model")
AT_ONCE: Final = 8
BREATH_S: Final = 0.02
"""Long enough for the gateway to read what came before by itself."""
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def body_of(api: str) -> bytes:
    """A streaming request of this API."""
    text = "Tell me of the labyrinth."
    asked = [{"role": "user", "content": text}]
    if api == "gemini":
        return json.dumps({"contents": [{"role": "user", "parts": [{"text": text}]}]}).encode()
    body: dict[str, Any] = {"model": "sim-model", "stream": True, "max_tokens": 99}
    body["input" if api == "responses" else "messages"] = asked
    return json.dumps(body).encode()


@dataclass(slots=True)
class Dying:
    """An upstream that sends a recorded stream as far as ``x-cut`` says and is gone.

    With ``x-rest`` it only takes a breath there, and sends the rest.
    """

    streams: dict[str, bytes] = field(default_factory=dict)

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """One stream, cut."""
        api, _, cut = (request.get("x-cut") or "").partition(":")
        payload = self.streams[api][: int(cut)]
        framed = b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
        writer.write(HEAD + framed)
        await writer.drain()
        if request.get("x-rest"):
            await asyncio.sleep(BREATH_S)
            rest = self.streams[api][int(cut) :]
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
            await writer.drain()
        writer.close()


@dataclass(slots=True)
class Cuts:
    """Recorded streams, and the gateway they are cut behind."""

    installation: Installation
    streams: dict[str, bytes]

    def points(self, api: str, count: int) -> list[int]:
        """At most ``count`` places to cut, from the first byte to the last but one, spread."""
        last = len(self.streams[api]) - 1
        return sorted({last * n // max(count - 1, 1) for n in range(count)})

    def run(self, api: str, points: list[int]) -> list[str]:
        """Cut there; every violation."""
        answers = asyncio.run(self._ask_all(api, points, "cut"))
        records = self._records()
        faults = []
        for cut, answer in zip(points, answers, strict=True):
            found = records.get(f"cut-{api}-{cut}", [])
            faults += [f"{api} cut at {cut}: {it}" for it in self._judge(api, cut, answer, found)]
        return faults

    def run_in_two(self, api: str, points: list[int]) -> list[str]:
        """Send the stream whole, in two pieces; every violation.

        Wherever the pieces meet, also inside the event that carries the usage, the bytes are the
        same and so are the tokens on record.
        """
        answers = asyncio.run(self._ask_all(api, points, "rest"))
        records = self._records()
        faults = []
        metered: set[tuple[Any, ...]] = set()
        for cut, answer in zip(points, answers, strict=True):
            if answer.body != self.streams[api] or not answer.is_complete:
                faults.append(f"{api} in two at {cut}: the bytes differ")
            for record in records.get(f"rest-{api}-{cut}", []):
                metered.add(tuple(record[name] for name in METERED))
        if len(metered) != 1:
            faults.append(f"{api}: metered in {len(metered)} ways: {METERED} {metered}")
        return faults

    def _records(self) -> dict[str, list[dict[str, Any]]]:
        self.installation.settle()
        records: dict[str, list[dict[str, Any]]] = {}
        for record in self.installation.records():
            records.setdefault(record["session_id"] or "", []).append(record)
        return records

    async def _ask_all(self, api: str, points: list[int], mode: str) -> list[Answer]:
        free = asyncio.Semaphore(AT_ONCE)

        async def one(cut: int) -> Answer:
            url = self.installation.gateway.url
            session = f"{mode}-{api}-{cut}"
            headers = [("X-Cut", f"{api}:{cut}"), ("X-Dynamo-Session-ID", session)]
            if mode == "rest":
                headers.append(("X-Rest", "1"))
            host = url.removeprefix("http://")
            async with free:
                sent = request_bytes("POST", PATHS[api], host, headers, body_of(api))
                return read_answer(await exchange(url, sent))

        return await asyncio.gather(*(one(cut) for cut in points))

    def _judge(
        self, api: str, cut: int, answer: Answer, records: list[dict[str, Any]]
    ) -> Iterator[str]:
        whole = self.streams[api]
        if len(records) != 1:
            yield f"{len(records)} records"
            return
        record = records[0]
        if record["state"] != "settled" or record["status"] != 200:
            yield f"its record is {record}"
        if not answer.body.startswith(whole[:cut]):
            yield f"{whole[:cut]!r} became {answer.body!r}"
            return
        added = answer.body[cut:]
        if is_terminated(api, whole[:cut]):
            return
        if record["error"] != "upstream_protocol" or not answer.is_complete:
            yield f"error {record['error']!r}, complete {answer.is_complete}"
        data = [line for line in added.splitlines() if line.startswith(b"data: {")]
        if b'"error"' not in b"".join(data) or b"clew: " not in added:
            yield f"no error event: {added!r}"


def is_terminated(api: str, payload: bytes) -> bool:
    """Whether the stream's own end is in there: then nothing is missing.

    A whole data line is enough, as it is for clients that read line by line; Gemini's streams have
    no terminator but the end of the message.
    """
    *lines, unfinished = payload.split(b"\n")
    if api == "chat":
        return b"data: [DONE]" in (*lines, unfinished)
    marks = {"responses": b'"type":"response.completed"', "messages": b'"type":"message_stop"'}
    return api in marks and any(marks[api] in line for line in lines)


def record_streams(url: str) -> dict[str, bytes]:
    """One whole stream of each API, from the simulator itself."""
    found = {}
    for api, path in PATHS.items():
        answer = ask(url, "POST", path, [("Content-Type", "application/json")], body_of(api))
        assert answer.status == 200, answer
        assert answer.is_complete
        found[api] = answer.body
    return found


@contextmanager
def cuts(directory: Path) -> Iterator[Cuts]:
    """A gateway before a dying upstream with streams to send."""
    with simulator_process() as simulator:
        streams = record_streams(simulator.url)
    dying = Dying(streams)
    own: Upstream
    with upstream(dying) as own:
        configuration = CONFIGURATION.format(url=own.url)
        with Installation(directory, configuration) as installation:
            yield Cuts(installation, streams)


def main() -> int:
    """Cut and print the figures; 1 at a violation."""
    parser = argparse.ArgumentParser(prog="tests.soak.cuts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="cuts for each API")
    options = parser.parse_args()
    faults: list[str] = []
    with TemporaryDirectory() as directory, cuts(Path(directory)) as running:
        total = 0
        for api in PATHS:
            points = running.points(api, options.rounds)
            total += len(points)
            faults += running.run(api, points)
            faults += running.run_in_two(api, points)
    print("\n".join([f"{total} cuts, {total} splits, {len(faults)} violations", *faults[:20]]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
