"""Several installations, each with its own data, on workers and claims that they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from tests.e2e.engines import Engine, engines
from tests.e2e.installation import Installation, wait_until
from tests.fleet.etcd_process import EtcdProcess, etcd_process

LEASE_S: Final = 2
STORES: Final = ("file", "etcd")
"""Those that several installations share."""
PATH: Final = "/v1/chat/completions"
BODY: Final = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
HEAD: Final = """
[server]
workers = {processes}
[claims]
store = "{store}"
lease_s = {lease_s}
on_outage = "{on_outage}"
{more}
[[upstream]]
name = "fleet"
kind = "engine"
workers = [{workers}]
[upstream.health]
interval_s = 1
[upstream.affinity]
ttl = "{ttl}"
binding = "{binding}"
place = "{place}"
subagents = "{subagents}"
"""
USUAL: Final[dict[str, object]] = {
    "processes": 1,
    "lease_s": LEASE_S,
    "on_outage": "refuse",
    "more": "",
    "ttl": "1h",
    "binding": "immutable",
    "place": "least_loaded",
    "subagents": "own",
}


def configuration(store: str, workers: Sequence[Engine], **changes: object) -> str:
    """One upstream of these workers, with affinity."""
    listed = ", ".join(f'"{one.url}"' for one in workers)
    return HEAD.format(store=store, workers=listed, **{**USUAL, **changes})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered."""

    status: int
    error: str
    worker: str
    binding: str
    epoch: int
    text: str


def call(host: Installation, session: str = "", **headers: str) -> Answer:
    """One call of a session; without one where it is empty."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if session:
        sent["x-dynamo-session-id"] = session
    return read(httpx.post(host.gateway.url + PATH, headers=sent, json=BODY, timeout=20))


def read(found: httpx.Response) -> Answer:
    """The answer's own words."""
    fields = found.headers
    return Answer(
        found.status_code,
        fields.get("x-clew-error", ""),
        fields.get("x-clew-worker", ""),
        fields.get("x-clew-binding", ""),
        int(fields.get("x-clew-epoch", 0)),
        found.text,
    )


def final(host: Installation, session: str, **headers: str) -> Answer:
    """A call that is its session's last."""
    return call(host, session, x_dynamo_session_final="true", **headers)


@dataclass(frozen=True, slots=True)
class Place:
    """What several installations share."""

    store: str
    """``claims.store``."""
    etcd: EtcdProcess | None
    workers: list[Engine]
    hosts: list[Installation]

    def worker(self, url: str) -> Engine:
        """The engine with this address."""
        return next(one for one in self.workers if one.url == url)


@contextmanager
def place_of(
    directory: Path,
    kind: str,
    *,
    hosts: int = 3,
    workers: int = 3,
    environment: Mapping[str, str] | None = None,
    **changes: Any,
) -> Iterator[Place]:
    """Engines, a claim store and installations on them; all have found all workers up."""
    with ExitStack() as stack:
        every = stack.enter_context(engines(directory, workers))
        etcd = stack.enter_context(etcd_process(directory)) if kind == "etcd" else None
        store = f"etcd:{etcd.url}" if etcd else kind
        if kind == "file":
            store = f"file:{directory / 'claims'}"
        text = configuration(store, every, **changes)
        made = []
        for index in range(hosts):
            place = directory / f"host-{index}"
            place.mkdir()
            made.append(Installation(place, text, environment))
        for host in made:
            stack.callback(host.end)
        in_parallel(made, Installation.start)
        for host in made:
            wait_ready(host)
        yield Place(store, etcd, every, made)


def wait_ready(host: Installation) -> None:
    """Return when every part is ready and every worker that lives is known to."""

    def is_ready() -> bool:
        answer = httpx.get(f"{host.gateway.admin_url}/ready", timeout=10)
        if answer.status_code != 200:
            return False
        rows = host.gateway.admin("/api/v1/workers")["items"]
        return bool(rows) and all(row["state"] in ("up", "down") for row in rows)

    wait_until(is_ready, 20, "an installation that is ready")


def in_parallel(items: Sequence[Any], work: Any) -> list[Any]:
    """What the work gives for each, done at once; raises what the first raised."""
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        return list(pool.map(work, items))
