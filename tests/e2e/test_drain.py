"""Signals and starts: draining, stopping at once, reloading, refusing to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.plain import Answer, Received, Upstream, answer_ok, ask, upstream

CONFIGURATION = """
[[upstream]]
name = "own"
url = "{url}"
"""
CHAT = "/v1/chat/completions"
EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"one"}}]}\n\n'
LAST = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Held:
    """An upstream whose streams begin, and end when the test says so."""

    def __init__(self) -> None:
        self.may_end = threading.Event()

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """A stream for a POST."""
        if request.method != "POST":
            await answer_ok(request, writer)
            return
        writer.write(HEAD + chunk(EVENT))
        await asyncio.to_thread(self.may_end.wait)
        writer.write(chunk(EVENT) + chunk(LAST) + b"0\r\n\r\n")


@pytest.fixture
def held() -> Held:
    """What the upstream runs."""
    return Held()


@pytest.fixture
def own(held: Held) -> Iterator[Upstream]:
    """The upstream."""
    with upstream(held) as running:
        yield running
        held.may_end.set()


@pytest.fixture
def installation(own: Upstream, tmp_path: Path) -> Iterator[Installation]:
    """An installation of this test's own: it will not survive."""
    with Installation(tmp_path, CONFIGURATION.format(url=own.url)) as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Clients that wait in the background."""
    with ThreadPoolExecutor(8) as running:
        yield running


def begin_streams(
    installation: Installation, own: Upstream, pool: ThreadPoolExecutor, count: int
) -> list[Future[Answer]]:
    """Streams that are running when this returns."""
    url = installation.gateway.url
    streams = [
        pool.submit(ask, url, "POST", CHAT, [("X-Dynamo-Session-ID", f"s{n}")], b'{"stream":true}')
        for n in range(count)
    ]
    wait_until(lambda: len(own.received) == count, what="the streams begin")
    return streams


def refuses(url: str) -> bool:
    """Whether nobody accepts there any more."""
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return True
    return False


def test_running_streams_finish_and_everything_is_on_record(
    installation: Installation, own: Upstream, held: Held, pool: ThreadPoolExecutor
) -> None:
    """SIGTERM: no new connections, idle ones close, streams end whole, exit 0, nothing open."""
    with httpx.Client(base_url=installation.gateway.url) as idle:
        assert idle.get("/clew/v1/health").status_code == 200
        streams = begin_streams(installation, own, pool, 4)
        installation.supervisor.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(installation.gateway.url), what="the port closes")
        assert installation.supervisor.poll() is None, "it left while streams were running"
        held.may_end.set()
        answers = [stream.result(20) for stream in streams]
        assert installation.supervisor.wait(20) == 0

    for answer in answers:
        assert answer.is_complete
        assert answer.body == EVENT + EVENT + LAST
    records = installation.records()
    assert sorted(record["session_id"] for record in records) == ["s0", "s1", "s2", "s3"]
    assert {(r["state"], r["error"], r["client_disconnected"]) for r in records} == {
        ("settled", "", 0)
    }
    assert installation.left() == []


def test_a_second_signal_stops_at_once_and_the_next_start_has_the_record(
    installation: Installation, own: Upstream, pool: ThreadPoolExecutor
) -> None:
    """Two SIGTERMs: gone within two seconds; the open attempt is not lost."""
    (stream,) = begin_streams(installation, own, pool, 1)
    installation.supervisor.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses(installation.gateway.url), what="the port closes")
    began = time.monotonic()
    installation.supervisor.send_signal(signal.SIGINT)

    assert installation.supervisor.wait(10) != 0
    assert time.monotonic() - began < 2
    assert not stream.result(10).is_complete
    assert installation.left() == []
    installation.start()
    installation.settle()
    (record,) = installation.records()
    assert (record["session_id"], record["state"]) == ("s0", "unsettled")
    assert record["estimated"]


def test_a_hangup_applies_a_good_file_and_leaves_all_as_it_was_for_a_bad_one(
    installation: Installation, own: Upstream, held: Held
) -> None:
    """Bad: a line in the log, the old configuration serves. Good: new upstreams, same process."""
    held.may_end.set()
    url = installation.gateway.url
    gateway = installation.pid("gateway")
    good = installation.file.read_text()
    for bad in (
        "[server]\nlisten_on = 5\n",
        "[[upstream]]\nname =",
        good + "[journal]\nsync='never'",
    ):
        installation.file.write_text(bad)
        before = installation.log.count("configuration kept as it was")
        os.kill(installation.supervisor.pid, signal.SIGHUP)
        wait_until(
            lambda before=before: installation.log.count("configuration kept as it was") > before,
            what="the log says so",
        )
        assert ask(url, "POST", CHAT, [], b"{}").status == 200
        assert ask(url, "GET", "/u/second/v1/models").status == 404

    installation.file.write_text(good + f'[[upstream]]\nname = "second"\nurl = "{own.url}"\n')
    os.kill(installation.supervisor.pid, signal.SIGHUP)
    wait_until(
        lambda: ask(url, "GET", "/u/second/v1/models").status == 200, what="the new upstream"
    )
    assert ask(url, "POST", CHAT, [], b"{}").status == 200
    assert installation.pid("gateway") == gateway


def serve(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "clew.command", "serve", "--data", str(directory / "data")]
    environment = {name: value for name, value in os.environ.items() if "CLEW" not in name}
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=directory,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_beyond_loopback_without_authentication_nothing_starts(
    tmp_path: Path, address: str
) -> None:
    """Exit 2 with one line that names the key."""
    failed = serve(tmp_path, "--listen", address, "--admin", "127.0.0.1:0")

    assert failed.returncode == 2
    assert failed.stdout == ""
    (line,) = failed.stderr.splitlines()
    assert "server.listen" in line, line


def test_a_port_in_use_is_one_clear_line(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """It names the address; there is no traceback and no half-started process."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        starts = []
        for flag in ("--listen", "--admin"):
            ports = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", flag: address}
            arguments = [part for pair in ports.items() for part in pair]
            starts.append(pool.submit(serve, tmp_path / flag, *arguments))
        failures = [start.result() for start in starts]

    for failed in failures:
        assert failed.returncode not in (0, None)
        assert failed.stdout == ""
        (line,) = failed.stderr.splitlines()
        assert address in line, line
        assert "in use" in line, line


def test_a_data_directory_in_use_is_one_clear_line(installation: Installation) -> None:
    """Two installations never share one directory."""
    failed = serve(installation.directory, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")

    assert failed.returncode not in (0, None)
    (line,) = failed.stderr.splitlines()
    assert "in use" in line, line
