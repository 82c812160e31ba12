"""The proxies under test, one row each: whether it is here, how it starts, whose time counts.

Every one gets one worker, the same upstream and its documented way to be fast. A new competitor
is one row and one function. Processes are started in the directory of the run and ended by pid.
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.processor_time import command_line, descendants

READY_S = 60.0


class Running(msgspec.Struct, frozen=True):
    """A started proxy. ``worker`` is what the comparison counts, ``group`` everything it runs."""

    port: int
    root: subprocess.Popen[bytes]
    worker: list[int]
    group: list[int]


class Proxy(NamedTuple):
    """One row of the table."""

    name: str
    is_installed: Callable[[], bool]
    version: Callable[[], str]
    start: Callable[[Path, int], Running]


class StartError(Exception):
    """A proxy that is here but did not come up; the message is the last line it wrote."""


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def launch(argv: list[str], port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start and wait until the port accepts. Raises StartError."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
            continue
        return process
    stop(process)
    raise StartError(_last_line(log))


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it and whatever it started, by pid; kill what stays longer than ten seconds."""
    family = descendants(process.pid)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    left = family[1:]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if command_line(pid)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


_NGINX = """
user {user};
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log warn;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def _start_nginx(directory: Path, upstream: int) -> Running:
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _NGINX.format(user=getpass.getuser(), directory=directory, upstream=upstream, port=port)
    )
    argv = [_nginx(), "-p", str(directory), "-c", str(configuration)]
    root = launch(argv, port, directory / "nginx.log")
    group = descendants(root.pid)
    return Running(port, root, group[1:], group)


def _nginx() -> str:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or ""


def _nginx_version() -> str:
    told = subprocess.run([_nginx(), "-v"], capture_output=True, text=True, check=False).stderr
    return told.strip().rpartition("/")[2]


_CLEW = """
[journal]
sync = "always"

[[upstream]]
name = "bench"
url = "http://127.0.0.1:{upstream}"
identity_out = "dynamo"
"""


def _start_clew(directory: Path, upstream: int) -> Running:
    port, admin = free_port(), free_port()
    configuration = directory / "clew.toml"
    configuration.write_text(_CLEW.format(upstream=upstream))
    argv = [
        *(sys.executable, "-m", "clew.command", "serve", "-c", str(configuration)),
        *("--data", str(directory / "data"), "--workers", "1"),
        *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
    ]
    root = launch(argv, port, directory / "clew.log")
    _wait_for_line(directory / "clew.log", b"clew ready")
    group = descendants(root.pid)
    worker = [pid for pid in group if "clew.gateway" in command_line(pid)]
    return Running(port, root, worker or [root.pid], group)


def _wait_for_line(log: Path, start: bytes) -> None:
    deadline = time.monotonic() + READY_S
    while start not in log.read_bytes():
        if time.monotonic() > deadline:
            raise StartError(_last_line(log))
        time.sleep(0.05)


def _has_clew() -> bool:
    return importlib.util.find_spec("clew.command") is not None


def _start_router(argv: list[str]) -> Callable[[Path, int], Running]:
    """A router that takes these options; all its processes count."""

    def start(directory: Path, upstream: int) -> Running:
        port = free_port()
        options = (
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
            *("--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
        )
        log = directory / f"{argv[0]}.log"
        root = launch([*argv, *options], port, log)
        _wait_for_answer(port, log)
        group = descendants(root.pid)
        return Running(port, root, group, group)

    return start


def _wait_for_answer(port: int, log: Path) -> None:
    """Routers probe their workers before they serve: wait for the first good answer."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            body = '{"model":"bench-1","messages":[{"role":"user","content":"hi"}]}'
            fields = {"content-type": "application/json"}
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST", "/v1/chat/completions", body, fields)
                if connection.getresponse().status == 200:
                    return
        time.sleep(0.2)
    raise StartError(_last_line(log))


def _is_on_path(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _version_on_path(name: str) -> Callable[[], str]:
    """The version of an installed command, asked of the interpreter its first line names."""

    def version() -> str:
        interpreter = Path(shutil.which(name) or "").read_text().splitlines()[0].lstrip("#!")
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        argv = [interpreter, "-c", code]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()

    return version


PROXIES = (
    Proxy("nginx", lambda: bool(_nginx()), _nginx_version, _start_nginx),
    Proxy("clew", _has_clew, lambda: importlib.metadata.version("clew"), _start_clew),
    Proxy(
        "sglang-router",
        _is_on_path("sglang-router"),
        _version_on_path("sglang-router"),
        _start_router(["sglang-router", "launch"]),
    ),
    Proxy(
        "vllm-router",
        _is_on_path("vllm-router"),
        _version_on_path("vllm-router"),
        _start_router(["vllm-router"]),
    ),
)
"""Competitors are found on the PATH, so that each can live in an environment of its own."""
