"""Somebody else on the same gateway: one request a second, each checked, none left out."""

from __future__ import annotations

import http.client
import json
import threading
import time
from array import array
from urllib.parse import urlsplit

BODY = json.dumps({"model": "bench-1", "messages": [{"role": "user", "content": "hi"}]})
TIMEOUT_S = 10.0


class Neighbour:
    """A principal of its own key, with one session. Used as a context: it calls while inside."""

    def __init__(self, url: str, key: str, every_s: float = 1.0) -> None:
        self._address = urlsplit(url)
        self._headers = {
            "content-type": "application/json",
            "x-clew-key": key,
            "x-dynamo-session-id": "neighbour",
        }
        self._every_s = every_s
        self._leaves = threading.Event()
        self._thread = threading.Thread(target=self._run, name="neighbour")
        self._connection: http.client.HTTPConnection | None = None
        self.errors = 0
        """Answers that were not 200, and calls that had none."""
        self.total_ms = array("d")

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_fault: object) -> None:
        self._leaves.set()
        self._thread.join()
        self._hang_up()

    def call(self) -> bool:
        """One request; whether it was answered with 200 and the right session."""
        began = time.perf_counter()
        try:
            if self._connection is None:
                host, port = self._address.hostname or "", self._address.port
                self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
            self._connection.request("POST", "/v1/chat/completions", BODY, self._headers)
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return False
        self.total_ms.append((time.perf_counter() - began) * 1000)
        return response.status == 200 and response.headers["x-clew-session-id"] == "neighbour"

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self) -> None:
        while True:
            if not self.call():
                self.errors += 1
            if self._leaves.wait(self._every_s):
                return
