"""`clew demo`: everything Clew does in one run, without key or network.

A simulated provider and a gateway start as child processes in a temporary directory, scripted
agents talk through them, and the admin API's answers are checked and drawn. The children end with
the demo, by their process ids.
"""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import Progress

from clew.lab.children import ANY_PORT, ChildError, GatewayPorts, gateway, simulator
from clew.lab.demo_agents import CALLS, SCRIPT, Turn
from clew.lab.demo_summary import find_differences, print_summary

LISTEN: Final = "127.0.0.1:2539"
ADMIN: Final = "127.0.0.1:2540"
SIM_FLAGS: Final = (
    *("--latency-ms", "20"),
    *("--tokens-per-second", "300"),
    *("--prefill-tokens-per-second", "50000"),
    *("--reply-tokens", "24"),
)
"""Slow enough to see a cached prompt answer sooner, fast enough to end within seconds."""
CONFIGURATION: Final = """\
[[upstream]]
name = "anthropic-simulated"
url = "{url}"
paths = ["/v1/messages*"]

[[upstream]]
name = "openai-simulated"
url = "{url}"
paths = ["/v1/*"]

[[upstream]]
name = "google-simulated"
url = "{url}"
"""


def run(once: bool) -> int:
    """Run the demo; 0 when everything was as it must be, 1 otherwise.

    Without ``once`` the gateway and its page stay until SIGINT or SIGTERM.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="clew-demo-") as directory:
            return _run(Path(directory), once=once)
    except KeyboardInterrupt:
        return 0 if not once else 130
    except (ChildError, RuntimeError, httpx.HTTPError) as fault:
        print(f"clew demo: {fault}", file=sys.stderr)
        return 1


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _run(directory: Path, *, once: bool) -> int:
    console = Console()
    log = directory / "simulator.log"
    with ExitStack() as children:
        provider = children.enter_context(simulator(log, SIM_FLAGS))
        configuration = CONFIGURATION.format(url=provider)
        ports = children.enter_context(
            gateway(directory, configuration, listen=_free(LISTEN), admin=_free(ADMIN))
        )
        print(ports.ready_line, flush=True)
        _play(ports.url, console)
        sessions = _sessions(ports)
        calls = httpx.get(f"{provider}/sim/calls", trust_env=False).json()["calls"]
        print()
        print_summary(sessions, console)
        differences = find_differences(sessions, calls)
        for line in differences:
            print(f"clew demo: {line}", file=sys.stderr)
        print(f"\nThe page: {ports.admin_url}/login#{ports.token}")
        if not once:
            print("Ctrl-C ends the demo.", flush=True)
            signal.pause()
    return 1 if differences else 0


def _play(url: str, console: Console) -> None:
    if not console.is_terminal:
        for turn in _turns(url):
            print(_line(turn), flush=True)
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("agents", total=CALLS)
        for turn in _turns(url):
            progress.console.print(_line(turn), markup=False, highlight=False)
            progress.advance(task)


def _turns(url: str) -> Iterator[Turn]:
    for agent in SCRIPT:
        yield from agent(url)


def _line(turn: Turn) -> str:
    return f"{turn.agent:15} {turn.resolution:9} {turn.session[:36]:36}  {turn.said}"


def _sessions(ports: GatewayPorts) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {ports.token}"}
    url = f"{ports.admin_url}/api/v1/sessions?limit=100"
    answer = httpx.get(url, headers=headers, trust_env=False).raise_for_status()
    return list(answer.json()["items"])


def _free(address: str) -> str:
    """The address itself where nobody listens on it, else any port."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        # As the gateway does: connections that linger from an earlier run are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return ANY_PORT
    return address
