"""Sessions over three installations while gateways, workers and the claims are killed and stopped.

Every session begins by every gateway at the same instant and then takes some turns, each by a
gateway drawn at random. Meanwhile one fault after the other happens: a gateway's process or all of
an installation is killed, stopped for less or more than the lease, left and started again; a worker
is killed or stopped; etcd is stopped, killed, or cut off from one installation. What a fault has
hit must serve new sessions again in time.

Judged by the journals of all installations, so also by what no client saw, and by the answers:

- of one session, each epoch has one worker: else it was split silently;
- a request that began after an answer of a higher epoch had come is not served by a lower one;
- an ``immutable`` session has one worker and one epoch, whatever happens.

Run as ``python -m tests.soak.affinity --store etcd --sessions 10000 --seconds 600``; exits 1 at the
first violation, or when the time was over before the sessions were.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import httpx
from tests.e2e.affinity import BODY, PATH, configuration, read
from tests.e2e.engines import Engine, engines
from tests.e2e.installation import Installation
from tests.fleet.etcd_process import EtcdProcess, etcd_process

HOSTS: Final = 3
WORKERS: Final = 4
ETCD_MEMBERS: Final = 3
"""One of the wheel's release may forget what it acknowledged (`EtcdProcess`)."""
LEASE_S: Final = 3
TURNS: Final = (2, 6)
PAUSE_S: Final = (0.0, 3.0)
AT_ONCE: Final = 150
"""Sessions that live at the same time."""
CALM_S: Final = (0.5, 2.0)
"""Between two faults."""
PROBE_S: Final = 2.0
RECOVERY_S: Final = 5.0
"""Promised after the lease; files take three."""
ENDS: Final = ("session_worker_lost", "session_claim_expired", "session_closed")


class Seen(NamedTuple):
    """One request of a session."""

    sent_s: float
    answered_s: float
    worker: str
    epoch: int


@dataclass(slots=True)
class Tally:
    """What a run has come to."""

    seen: defaultdict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    violations: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    """Recoveries that took longer than was promised: on a machine that does more than this."""
    sessions: int = 0
    ended: int = 0


class Link:
    """A way to etcd for one installation, which can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Nothing passes from here on; connections stay open, as when a cable is pulled."""
        self._open.clear()

    def mend(self) -> None:
        """Everything passes."""
        self._open.set()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled: the whole run ends.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there = await asyncio.open_connection("127.0.0.1", self._port)
            ways = (self._pass(reader, there[1]), self._pass(there[0], writer))
            await asyncio.gather(*ways)
        writer.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@dataclass(slots=True)
class World:
    """Everything that runs."""

    store: str
    binding: str
    hosts: list[Installation]
    workers: list[Engine]
    etcd: EtcdProcess | None
    links: list[Link]
    rng: random.Random
    tally: Tally
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    probes: list[httpx.AsyncClient] = field(default_factory=list)
    """Of their own, so that they wait for nobody's connection."""

    @property
    def patience_s(self) -> float:
        """How long a gateway may be without new sessions after a fault has ended."""
        return LEASE_S * (3 if self.store == "file" else 1) + RECOVERY_S

    def beyond_lease_s(self) -> float:
        """For longer than a claim lives without its owner."""
        return LEASE_S * (4 if self.store == "file" else 1.5)


async def live(world: World, name: str, deadline_s: float) -> None:
    """All turns of one session; the first by every gateway at the same instant."""
    rng, tally = world.rng, world.tally
    await asyncio.gather(*(turn(world, name, index) for index in range(HOSTS)))
    turns = rng.randint(*TURNS)
    while turns and time.monotonic() < deadline_s:
        answer = await turn(world, name, rng.randrange(HOSTS))
        if answer in ENDS:
            tally.ended += 1
            return
        turns -= answer == "200"
        await asyncio.sleep(rng.uniform(*PAUSE_S))


async def turn(
    world: World, name: str, index: int, clients: list[httpx.AsyncClient] | None = None
) -> str:
    """One request; its status or error code."""
    client = (clients or world.clients)[index]
    sent_s = time.monotonic()
    try:
        found = read(await client.post(PATH, json=BODY, headers={"x-dynamo-session-id": name}))
    except httpx.TransportError as error:
        world.tally.answers[type(error).__name__] += 1
        return "lost"
    answer = found.error or str(found.status)
    world.tally.answers[answer] += 1
    if found.status == 200:
        seen = Seen(sent_s, time.monotonic(), found.worker, found.epoch)
        world.tally.seen[name].append(seen)
    return answer


# Faults: each returns when it has ended.


async def kill_gateway(world: World) -> list[int]:
    """One process; its supervisor starts another."""
    index = world.rng.randrange(HOSTS)
    await asyncio.to_thread(world.hosts[index].kill, "gateway")
    return [index]


async def kill_host(world: World) -> list[int]:
    """All processes of an installation; back at once, or when its claims are gone."""
    index = world.rng.randrange(HOSTS)
    host = world.hosts[index]
    await asyncio.to_thread(host.kill_everything)
    await asyncio.sleep(world.rng.choice((0.0, world.beyond_lease_s())))
    await asyncio.to_thread(host.start)
    return [index]


async def restart_host(world: World) -> list[int]:
    """As a deploy does it."""
    index = world.rng.randrange(HOSTS)
    await asyncio.to_thread(world.hosts[index].stop)
    await asyncio.to_thread(world.hosts[index].start)
    return [index]


async def stop_gateway(world: World) -> list[int]:
    """It stands still, for less than the lease or for more."""
    index = world.rng.randrange(HOSTS)
    pid = await asyncio.to_thread(world.hosts[index].pid, "gateway")
    await _stand_still(world, [pid])
    return [index]


async def kill_worker(world: World) -> list[int]:
    """An engine, away for some seconds."""
    worker = world.rng.choice(world.workers)
    await asyncio.to_thread(worker.kill)
    await asyncio.sleep(world.rng.uniform(0.5, 4.0))
    await asyncio.to_thread(worker.start)
    return list(range(HOSTS))


async def stop_worker(world: World) -> list[int]:
    """An engine that neither answers nor refuses."""
    worker = world.rng.choice(world.workers)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(world.rng.uniform(0.5, 6.0))
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    return list(range(HOSTS))


async def stop_etcd(world: World) -> list[int]:
    """It stands still."""
    assert world.etcd is not None
    await _stand_still(world, world.etcd.pids)
    return list(range(HOSTS))


async def kill_etcd(world: World) -> list[int]:
    """It is killed, and comes back with what it had written."""
    assert world.etcd is not None
    await asyncio.to_thread(world.etcd.kill)
    await asyncio.sleep(world.rng.choice((0.0, world.beyond_lease_s())))
    await asyncio.to_thread(world.etcd.start)
    return list(range(HOSTS))


async def cut_off(world: World) -> list[int]:
    """One installation hears nothing of etcd, and is not heard."""
    index = world.rng.randrange(HOSTS)
    world.links[index].cut()
    await asyncio.sleep(world.rng.choice((LEASE_S / 3, world.beyond_lease_s())))
    world.links[index].mend()
    return [index]


async def _stand_still(world: World, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(world.rng.choice((LEASE_S / 3, world.beyond_lease_s())))
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


Fault = Callable[[World], Awaitable[list[int]]]
FAULTS: Final[tuple[Fault, ...]] = (
    kill_gateway,
    kill_host,
    restart_host,
    stop_gateway,
    kill_worker,
    stop_worker,
)
OF_ETCD: Final[tuple[Fault, ...]] = (stop_etcd, kill_etcd, cut_off)


async def strike(world: World, is_over: asyncio.Event) -> None:
    """One fault after the other, each with the time until new sessions are served again."""
    faults = FAULTS + (OF_ETCD if world.etcd else ())
    while not is_over.is_set():
        for fault in world.rng.sample(faults, len(faults)):
            await asyncio.sleep(world.rng.uniform(*CALM_S))
            if is_over.is_set():
                return
            hosts = await fault(world)
            ended_s = time.monotonic()
            world.tally.faults[fault.__name__] += 1
            await asyncio.gather(*(_recover(world, fault.__name__, ended_s, i) for i in hosts))


async def _recover(world: World, name: str, ended_s: float, index: int) -> None:
    number = 0
    while True:
        number += 1
        probe = f"probe-{name}-{ended_s:.6f}-{index}-{number}"
        if await turn(world, probe, index, world.probes) == "200":
            break
        if time.monotonic() - ended_s > 2 * world.patience_s:
            break
        await asyncio.sleep(0.02)
    took_s = time.monotonic() - ended_s
    world.tally.recoveries[name].append(took_s)
    if took_s > world.patience_s:
        world.tally.slow.append(f"host {index}: {took_s:.1f} s until it recovered of {name}")


# Judging.


def judge_answers(seen: dict[str, list[Seen]]) -> list[str]:
    """Requests that were served by an older binding than an answer before them."""
    faults = []
    for session, found in seen.items():
        for one in found:
            older = [other for other in found if other.answered_s < one.sent_s]
            if any(other.epoch > one.epoch for other in older):
                faults.append(f"{session}: served by epoch {one.epoch} after a higher one")
    return faults


def judge_records(records: Iterable[tuple[str, str, int]], binding: str) -> list[str]:
    """Sessions of which one epoch had two workers; records are session, worker, epoch."""
    workers: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    epochs: defaultdict[str, set[int]] = defaultdict(set)
    for session, worker, epoch in records:
        workers[session, epoch].add(worker)
        epochs[session].add(epoch)
    faults = [
        f"{session}: epoch {epoch} on {', '.join(sorted(found))}"
        for (session, epoch), found in workers.items()
        if len(found) > 1
    ]
    if binding == "immutable":
        faults += [
            f"{one}: epochs {sorted(found)}" for one, found in epochs.items() if len(found) > 1
        ]
    return faults


def records_of(hosts: Iterable[Installation]) -> list[tuple[str, str, int]]:
    """Every attempt in the stores that named a worker."""
    found: list[tuple[str, str, int]] = []
    for host in hosts:
        host.settle(60)
        path = host.directory / "data" / "clew.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found += connection.execute(
                "SELECT s.session_id, a.worker, a.epoch FROM attempts a "
                "JOIN sessions s ON s.id = a.session WHERE a.worker <> ''"
            ).fetchall()
    return found


# The run.


@contextlib.asynccontextmanager
async def world_of(directory: Path, options: argparse.Namespace) -> AsyncIterator[World]:
    """Everything started."""
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(engines(directory, WORKERS))
        etcd = None
        links: list[Link] = []
        stores = [f"file:{directory / 'claims'}"] * HOSTS
        if options.store == "etcd":
            etcd = stack.enter_context(etcd_process(directory, ETCD_MEMBERS))
            links = [Link(int(etcd.url.rpartition(":")[2])) for _ in range(HOSTS)]
            for link in links:
                await link.start()
                stack.callback(link.close)
            stores = [f"etcd:{link.url}" for link in links]
        hosts = []
        for index, store in enumerate(stores):
            place = directory / f"host-{index}"
            place.mkdir()
            text = configuration(store, workers, lease_s=LEASE_S, binding=options.binding)
            hosts.append(Installation(place, text))
            stack.callback(hosts[-1].end)
        await asyncio.gather(*(asyncio.to_thread(host.start) for host in hosts))
        rng = random.Random(options.seed)
        world = World(options.store, options.binding, hosts, workers, etcd, links, rng, Tally())
        world.clients = [_client(host, 10.0) for host in hosts]
        world.probes = [_client(host, PROBE_S) for host in hosts]
        try:
            yield world
        finally:
            for client in world.clients + world.probes:
                await client.aclose()


def _client(host: Installation, timeout_s: float) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    url = host.gateway.url
    return httpx.AsyncClient(base_url=url, timeout=timeout_s, trust_env=False, limits=limits)


async def soak(options: argparse.Namespace) -> Tally:
    """Sessions and faults until there were enough, or the time is up."""
    with TemporaryDirectory() as name:
        async with world_of(Path(name), options) as world:
            tally = world.tally
            deadline_s = time.monotonic() + options.seconds
            is_over = asyncio.Event()
            striking = asyncio.create_task(strike(world, is_over))
            numbers = iter(range(options.sessions))

            async def go_on() -> None:
                for number in numbers:
                    if time.monotonic() >= deadline_s or striking.done():
                        return
                    await live(world, f"s{number}", deadline_s)
                    tally.sessions += 1
                    if tally.sessions % 1_000 == 0:
                        print(f"affinity: {tally.sessions:,} sessions", flush=True)

            await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))
            is_over.set()
            await striking
            found = await asyncio.to_thread(records_of, world.hosts)
            tally.answers["records"] = len(found)
            tally.violations += judge_answers(tally.seen)
            tally.violations += judge_records(found, options.binding)
    return tally


def main() -> int:
    """Run, print the figures, say whether the promise was kept."""
    parser = argparse.ArgumentParser(prog="tests.soak.affinity", description=__doc__)
    parser.add_argument("--store", choices=("file", "etcd"), default="etcd")
    parser.add_argument("--binding", choices=("immutable", "rebind", "prefer"), default="immutable")
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1_200.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tally = asyncio.run(soak(options))
    answers = ", ".join(f"{name} {count:,}" for name, count in tally.answers.most_common())
    print(
        f"{options.store}, {options.binding}: {tally.sessions:,} of {options.sessions:,} sessions"
    )
    print(f"{tally.ended:,} of them ended by an error; answers: {answers}")
    for name, found in sorted(tally.recoveries.items()):
        print(f"{name}: {tally.faults[name]} times, recovered in at most {max(found):.2f} s")
    told = tally.violations + tally.slow
    print(f"{len(tally.violations)} splits, {len(tally.slow)} recoveries too slow")
    print("\n".join(told[:20]), end="\n" if told else "")
    return 1 if told or tally.sessions < options.sessions else 0


if __name__ == "__main__":
    sys.exit(main())
