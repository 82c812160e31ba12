"""The web process as the supervisor starts it: socket, task line, leaving."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.web.conftest import BEARER, House

from clew.process.launch import encode_launch

LEAVE_S = 20.0


class Child:
    """A running web process."""

    def __init__(self, house: House) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        fd = listener.fileno()
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clew.web"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(fd,),
        )
        launch = msgspec.structs.replace(
            house.launch,
            listen_fds=(fd,),
            keeper_socket=str(Path(house.launch.config.data) / "run" / "keeper.sock"),
        )
        assert self.process.stdin
        self.process.stdin.write(encode_launch(launch))
        self.process.stdin.flush()
        listener.close()
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """End it, however it stands."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def child(house: House) -> Iterator[Child]:
    """A web process without a keeper."""
    house.filling.session("cs_a")
    made = Child(house)
    yield made
    made.close()


def test_it_serves_on_the_socket_it_was_given(child: Child) -> None:
    """Without a keeper it reads what is there, and says so."""
    with httpx.Client(base_url=child.address, headers=BEARER, timeout=LEAVE_S) as client:
        response = client.get("/api/v1/sessions/cs_a")

    assert response.status_code == 200
    assert response.headers["x-clew-stale"] == "1"
    assert "server" not in response.headers


def test_it_leaves_cleanly_on_a_signal(child: Child) -> None:
    """Status 0, so that the supervisor knows it was no accident."""
    httpx.get(f"{child.address}/health", timeout=LEAVE_S)
    child.process.send_signal(signal.SIGTERM)

    assert child.process.wait(LEAVE_S) == 0


def test_it_leaves_when_its_supervisor_is_gone(child: Child) -> None:
    """The pipe's end is the order to leave."""
    httpx.get(f"{child.address}/health", timeout=LEAVE_S)
    assert child.process.stdin
    child.process.stdin.close()

    assert child.process.wait(LEAVE_S) == 0
