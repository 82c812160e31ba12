"""Small HTTP servers on loopback that write down what they were sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

REDIRECT = "/redirect?to="


class Server:
    """One origin. ``/redirect?to=URL`` sends its caller there, everything else is answered."""

    def __init__(self, server: ThreadingHTTPServer, host: str) -> None:
        self.port = server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self.seen: list[dict[str, str]] = []
        """Headers of every request, oldest first, names lower-cased."""


class _Listening(ThreadingHTTPServer):
    request_queue_size = 256
    """A hundred callers connect at once."""


def _handler(seen: list[dict[str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            _, found, target = self.path.partition(REDIRECT)
            self.send_response(307 if found else 200)
            if found:
                self.send_header("location", unquote(target))
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

    return Handler


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Server]:
    """A running server, called by ``host``."""
    seen: list[dict[str, str]] = []
    listening = _Listening(("127.0.0.1", 0), _handler(seen))
    server = Server(listening, host)
    server.seen = seen
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
