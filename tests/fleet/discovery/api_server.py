"""A Kubernetes API server as far as EndpointSlices go: scripted, over TLS, on loopback.

It lists in parts, watches with bookmarks, forgets its history (410), refuses, and cuts. Objects and
events are those of ``discovery.k8s.io/v1``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.e2e.plain import Received, read_request

from clew.fleet.discovery.kubernetes import Cluster

PATH = "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices"
Json = dict[str, Any]


def endpoint(address: str, **conditions: bool | None) -> Json:
    """One endpoint; ready unless its conditions say otherwise."""
    return {"addresses": [address], "conditions": conditions or {"ready": True}}


def endpoint_slice(name: str, *endpoints: Json, port: int = 8000, **more: Any) -> Json:
    """One slice of the service ``engine``."""
    return {
        "metadata": {"name": name, "namespace": "models"},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        **more,
    }


class ApiServer:
    """The server; what it holds is changed by the test."""

    def __init__(self, directory: Path) -> None:
        self.token_file = directory / "token"
        self.token_file.write_text("first-token")
        self.certificate = make_certificate(directory)
        self.requests: list[Received] = []
        self.list_part = 0
        """Items of one part of a list; 0: as many as asked for."""
        self.refuses = 0
        """A status that every call is answered with; 0: none."""
        self._objects: dict[str, Json] = {}
        self._version = 10
        self._ended = 0
        self._oldest = 10
        self._history: list[tuple[int, str, Json]] = []
        self._changed = asyncio.Condition()
        self._watchers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.url = ""

    @property
    def cluster(self) -> Cluster:
        """What a pod would be told."""
        return Cluster(self.url, self.token_file, self.certificate)

    async def start(self, port: int = 0) -> None:
        """Listen; again on the same port after `stop`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Listen no more and cut every connection."""
        self._server.close()
        for writer in tuple(self._connections):
            writer.transport.abort()

    async def put(self, *slices: Json) -> None:
        """Exactly these slices are there now."""
        names = {one["metadata"]["name"] for one in slices}
        for name in [name for name in self._objects if name not in names]:
            await self._note("DELETED", self._objects.pop(name))
        for one in slices:
            if one in self._objects.values():
                continue
            name = one["metadata"]["name"]
            await self._note("MODIFIED" if name in self._objects else "ADDED", one)
            self._objects[name] = one

    async def bookmark(self) -> int:
        """Tell every watch how far it is; the version said."""
        await self._note("BOOKMARK", {"metadata": {}})
        return self._version

    async def forget_history(self) -> None:
        """What happened so far cannot be watched from any more."""
        self._oldest = self._version + 1
        self._version += 1

    async def say_expired(self) -> None:
        """Tell every watch that its version is gone, as an event."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        async with self._changed:
            self._history.append((self._version, "ERROR", status))
            self._changed.notify_all()

    def cut_watches(self) -> None:
        """End every watch's connection without a word."""
        for writer in tuple(self._watchers):
            writer.transport.abort()

    async def end_watches(self) -> None:
        """End every watch as a server does whose time-out is over; connections stay."""
        async with self._changed:
            self._ended += 1
            self._changed.notify_all()

    def watches(self) -> list[dict[str, str]]:
        """The parameters of every watch so far."""
        every = [parameters(one) for one in self.requests]
        return [one for one in every if "watch" in one]

    def lists(self) -> list[dict[str, str]]:
        """The parameters of every list so far."""
        every = [parameters(one) for one in self.requests]
        return [one for one in every if "watch" not in one]

    async def _note(self, kind: str, one: Json) -> None:
        async with self._changed:
            self._version += 1
            one["metadata"]["resourceVersion"] = str(self._version)
            self._history.append((self._version, kind, json.loads(json.dumps(one))))
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                await self._answer(request, writer)
                await writer.drain()
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self._watchers.discard(writer)
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, request: Received, writer: asyncio.StreamWriter) -> None:
        asked = parameters(request)
        token = f"Bearer {self.token_file.read_text()}"
        if self.refuses or request.get("authorization") != token:
            code = self.refuses or 401
            respond(writer, {"kind": "Status", "code": code, "message": "no"}, code)
        elif urlsplit(request.target).path != PATH:
            respond(writer, {"kind": "Status", "code": 404, "message": "no"}, 404)
        elif "watch" in asked:
            await self._watch(asked, writer)
        else:
            self._list(asked, writer)

    def _list(self, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
        start = int(asked.get("continue") or 0)
        size = self.list_part or int(asked["limit"])
        items = list(self._objects.values())
        metadata = {"resourceVersion": str(self._version)}
        if start + size < len(items):
            metadata["continue"] = str(start + size)
        respond(writer, {"metadata": metadata, "items": items[start : start + size] or None})

    async def _watch(self, asked: dict[str, str], writer: asyncio.StreamWriter) -> None:
        seen = int(asked["resourceVersion"])
        if seen < self._oldest:
            respond(writer, {"kind": "Status", "code": 410, "message": "too old"}, 410)
            return
        self._watchers.add(writer)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        told = sum(version <= seen for version, kind, _ in self._history if kind != "ERROR")
        begun = self._ended

        def is_news() -> bool:
            return len(self._history) != told or self._ended != begun

        while not writer.is_closing():
            for _, kind, one in self._history[told:]:
                line = json.dumps({"type": kind, "object": one}).encode() + b"\n"
                writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            told = len(self._history)
            await writer.drain()
            if self._ended != begun:
                break
            async with self._changed:
                await self._changed.wait_for(is_news)
        self._watchers.discard(writer)
        writer.write(b"0\r\n\r\n")


def parameters(request: Received) -> dict[str, str]:
    """A request's query."""
    return {name: values[-1] for name, values in parse_qs(urlsplit(request.target).query).items()}


def respond(writer: asyncio.StreamWriter, body: Json, status: int = 200) -> None:
    """One JSON answer."""
    content = json.dumps(body).encode()
    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content))


def make_certificate(directory: Path) -> Path:
    """A certificate for loopback and its key, in one file that is its own authority."""
    file, key = directory / "ca.crt", directory / "key.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    name = ["-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", *options.split(), "-keyout", str(key), "-out", str(file), *name]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file


@asynccontextmanager
async def api_server(directory: Path) -> AsyncIterator[ApiServer]:
    """A running server."""
    server = ApiServer(directory)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
