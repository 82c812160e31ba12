"""The keeper over its real socket: questions, snapshots, news, barriers, absence."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.journal.events import LOCAL, SECRET, START_NS, alias, dispatched, key_of, settled
from tests.keeper.projecting import House, url_in

from clew.config.schema import Config, Store
from clew.core.claim import Alias, Claim, Principal
from clew.keeper.ballast import Ballast
from clew.keeper.knowledge import load_known
from clew.keeper.link import KeeperAway, KeeperLink
from clew.keeper.protocol import MAX_FRAME_BYTES, Known
from clew.keeper.running import Running
from clew.keeper.server import KeeperServer
from clew.process.launch import Launch, encode_launch
from clew.store.reads_engine import open_for_reading


class Keeper:
    """A keeper in this process, and links to it."""

    def __init__(self, data: Path) -> None:
        self.house = House(data)
        self.path = str(data / "k.sock")
        self._data = data
        self._links: list[KeeperLink] = []

    async def start(self) -> None:
        """Listen and follow."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        self._reading = open_for_reading(url_in(self._data), self._data)
        self._server = KeeperServer(self._reading, SECRET)
        self.ballast = Ballast(self._data / "ballast", 4096)
        self.running = Running(self.house.projector(), self._load, self._server.tell, self.ballast)
        self.running.start()
        await self._server.start(listener, self.running)

    def _load(self, keys: set[str]) -> list[Known]:
        with self.house.engine.begin() as connection:
            return list(load_known(connection, keys))

    async def link(self, news: list[Known] | None = None) -> KeeperLink:
        """A connected gateway that has its snapshot."""
        found = KeeperLink(self.path, "gateway0", [].append if news is None else news.append)
        self._links.append(found)
        found.start()
        assert await found.wait_caught_up(5)
        return found

    async def stop(self) -> None:
        """Everything ends."""
        for link in self._links:
            await link.close()
        await self.running.finish()
        await self._server.close()
        self._reading.dispose()


def keeper(data: Path, work: Callable[[Keeper], Awaitable[None]]) -> None:
    """Run ``work`` beside a keeper."""

    async def run() -> None:
        kept = Keeper(data)
        await kept.start()
        try:
            await work(kept)
        finally:
            await kept.stop()

    asyncio.run(run())


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop run until a state is reached."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110  news comes from another task: any turn may show it
            await asyncio.sleep(0.001)


def test_two_questions_within_the_delay_agree(tmp_path: Path) -> None:
    """The first opens, the second is exact, before anything is projected."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        first = await link.ask(LOCAL, Claim(session=alias("s1")), START_NS)
        second = await link.ask(LOCAL, Claim(session=alias("s1")), START_NS)

        assert (first.resolution, second.resolution) == ("new", "exact")
        assert first.known == second.known
        assert first.known is not None
        assert (first.known.key, first.known.session_id) == (key_of("s1"), "s1")

    keeper(tmp_path, work)


def test_another_principals_id_is_another_session(tmp_path: Path) -> None:
    """An equal id of somebody else is neither found nor hinted at."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        mine = await link.ask(LOCAL, Claim(session=alias("s1")), START_NS)
        theirs = await link.ask(Principal("other"), Claim(session=alias("s1")), START_NS)

        assert theirs.resolution == "new"
        assert mine.known is not None
        assert theirs.known is not None
        assert mine.known.key != theirs.known.key

    keeper(tmp_path, work)


def test_a_migration_sees_what_is_not_projected_yet(tmp_path: Path) -> None:
    """A question that hangs on other ids waits for one pass over the journals."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        kept.house.journal().append(dispatched(1, "n1"))
        claim = Claim(session=Alias("canonical", "c1", "canonical"), others=(alias("n1"),))
        answer = await link.ask(LOCAL, claim, START_NS)

        assert answer.resolution == "migrated"
        assert answer.known is not None
        assert (answer.known.key, answer.known.session_id) == (key_of("n1"), "n1")

    keeper(tmp_path, work)


def test_a_response_names_its_session_at_once(tmp_path: Path) -> None:
    """The next request of a chain may come before the last one was projected."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        kept.house.journal().append(dispatched(1, "n1"), settled(1))
        answer = await link.ask(LOCAL, Claim(previous_response_id="msg_1"), START_NS)

        assert (answer.resolution, answer.source) == ("exact", "response-chain")
        assert answer.known is not None
        assert answer.known.key == key_of("n1")

    keeper(tmp_path, work)


def test_a_claim_without_id_is_unattributed(tmp_path: Path) -> None:
    """No session is answered."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        answer = await link.ask(LOCAL, Claim(), START_NS)

        assert (answer.known, answer.resolution) == (None, "unattributed")

    keeper(tmp_path, work)


def test_a_gateway_hears_of_sessions_it_did_not_open(tmp_path: Path) -> None:
    """The snapshot first, then every change, each numbered."""

    async def work(kept: Keeper) -> None:
        journal = kept.house.journal()
        journal.append(dispatched(1, "old"))
        await (await kept.link()).barrier()
        news: list[Known] = []
        link = await kept.link(news)
        assert [known.session_id for known in news] == ["old"]
        final = Claim(session=alias("young"), final=True)
        journal.append(dispatched(2, "young", claim=final), settled(2))
        await until(lambda: len(news) > 1)

        assert (news[-1].session_id, news[-1].is_closed) == ("young", True)
        assert news[-1].aliases == (("opencode", "young"),)
        assert link.sequence > 0

    keeper(tmp_path, work)


def test_a_barrier_passes_when_everything_is_in_the_store(tmp_path: Path) -> None:
    """What was in the journals before it can be read after it."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        journal = kept.house.journal()
        for number in range(5):
            journal.append(dispatched(number), settled(number))
            await link.barrier()

            assert kept.house.one("SELECT count(*) FROM attempts") == number + 1

    keeper(tmp_path, work)


def test_a_peer_that_speaks_nonsense_is_cut_alone(tmp_path: Path) -> None:
    """Others go on."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        for nonsense in (b"\0\0\0\1x", (MAX_FRAME_BYTES + 1).to_bytes(4, "big")):
            reader, writer = await asyncio.open_unix_connection(kept.path)
            writer.write(nonsense)

            assert await reader.read() == b""
            writer.close()
        await link.barrier()

    keeper(tmp_path, work)


def test_without_a_keeper_a_question_fails_at_once(tmp_path: Path) -> None:
    """Nobody waits for what is not there."""

    async def run() -> None:
        link = KeeperLink(str(tmp_path / "none.sock"), "gateway0", [].append)
        link.start()
        with pytest.raises(KeeperAway):
            await link.ask(LOCAL, Claim(session=alias("s1")), START_NS)
        await link.close()

    asyncio.run(run())


def test_a_silent_keeper_is_away_within_a_second(tmp_path: Path) -> None:
    """A stopped process holds nobody up."""

    async def run() -> None:
        path = str(tmp_path / "k.sock")
        server = await asyncio.start_unix_server(lambda _r, _w: None, path)
        link = KeeperLink(path, "gateway0", [].append)
        link.start()
        await until(lambda: link.is_connected)
        began = asyncio.get_running_loop().time()
        with pytest.raises(KeeperAway):
            await link.ask(LOCAL, Claim(session=alias("s1")), START_NS)

        assert asyncio.get_running_loop().time() - began < 1.5
        await link.close()
        server.close()

    asyncio.run(run())


def test_a_link_comes_back_by_itself(tmp_path: Path) -> None:
    """A restarted keeper is found again, and its snapshot applied."""

    async def run() -> None:
        first = Keeper(tmp_path)
        await first.start()
        link = KeeperLink(first.path, "gateway0", [].append)
        link.start()
        assert await link.wait_caught_up(5)
        await first.stop()
        await until(lambda: not link.is_connected)
        os.unlink(first.path)  # noqa: PTH108  one call, nothing else runs in this loop
        second = Keeper(tmp_path)
        await second.start()

        assert await link.wait_caught_up(5)
        await link.barrier()
        await link.close()
        await second.stop()

    asyncio.run(run())


def test_a_full_store_is_named_and_recovers(tmp_path: Path) -> None:
    """The ballast is given up, the fault is said, and the next pass after it goes on."""

    async def work(kept: Keeper) -> None:
        link = await kept.link()
        assert kept.ballast.set_aside()
        with kept.house.engine.begin() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        journal = kept.house.journal()
        journal.append(*(dispatched(n, f"s{n}" * 50) for n in range(500)))
        await until(lambda: bool(kept.running.fault))
        assert "full" in kept.running.fault
        assert not kept.ballast.give_up()
        with kept.house.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        await link.barrier()

        assert kept.house.one("SELECT count(*) FROM sessions") == 500
        assert kept.running.fault == ""

    keeper(tmp_path, work)


# --- the process ------------------------------------------------------------------------------


def start_process(data: Path) -> tuple[subprocess.Popen[bytes], str]:
    """``python -m clew.keeper`` as the supervisor starts it."""
    path = str(data / "p.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    launch = Launch(
        role="keeper",
        config=msgspec.structs.replace(Config(), data=str(data), store=Store(url=url_in(data))),
        secret=SECRET,
        admin_token="t",
        instance="i",
        listen_fds=(listener.fileno(),),
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "clew.keeper"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(listener.fileno(),),
    )
    listener.close()
    assert child.stdin is not None
    child.stdin.write(encode_launch(launch))
    child.stdin.flush()
    return child, path


@pytest.mark.parametrize("by_signal", [True, False])
def test_the_process_projects_to_the_end_before_it_leaves(tmp_path: Path, by_signal: bool) -> None:
    """On SIGTERM, or when its supervisor is gone."""
    child, path = start_process(tmp_path)

    async def run() -> None:
        link = KeeperLink(path, "gateway0", [].append)
        link.start()
        assert await link.wait_caught_up(10)
        answer = await link.ask(LOCAL, Claim(session=alias("s1")), START_NS)
        assert answer.resolution == "new"
        await link.close()

    asyncio.run(run())
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    house = House(tmp_path)
    house.journal().append(dispatched(1), settled(1))
    if by_signal:
        child.terminate()
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(10) == 0
    assert child.stderr is not None
    child.stderr.close()
    child.stdout.close()

    assert house.rows("SELECT state, price_version != '' FROM attempts") == [("settled", 1)]


def test_the_process_refuses_a_newer_store_with_one_line(tmp_path: Path) -> None:
    """And touches nothing."""
    house = House(tmp_path)
    with house.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    child, _ = start_process(tmp_path)
    _, said = child.communicate(timeout=10)

    assert child.returncode == 2
    assert said.decode().startswith("clew: the store has schema 9999")
    assert said.count(b"\n") == 1
