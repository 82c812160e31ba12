"""The client of etcd's JSON gateway, against a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet.etcd_process import EtcdProcess, etcd_process, free_port

from clew.fleet.etcd import (
    Changes,
    Compacted,
    Compare,
    Delete,
    Etcd,
    EtcdUnavailable,
    Get,
    LeaseExists,
    LeaseGone,
    Put,
    prefix_end,
    read_address,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """One etcd for this file."""
    with etcd_process(tmp_path_factory.mktemp("etcd")) as running:
        yield running


def play(address: str, scenario: Callable[[Etcd], Awaitable[None]]) -> None:
    """Run with a client."""

    async def run() -> None:
        client = Etcd(read_address(address), timeout_s=2.0)
        try:
            async with asyncio.timeout(30):
                await scenario(client)
        finally:
            await client.close()

    asyncio.run(run())


def test_what_is_put_is_read_and_removed(server: EtcdProcess) -> None:
    """Any bytes can be a key and a value; a deletion says how many there were."""

    async def scenario(etcd: Etcd) -> None:
        revision = await etcd.put(b"a/\x00\xff", b"\xfe\x00value")
        found = await etcd.range(b"a/", prefix_end(b"a/"))

        assert [(row.key, row.value) for row in found.kvs] == [(b"a/\x00\xff", b"\xfe\x00value")]
        assert found.kvs[0].mod_revision == revision
        assert found.revision >= revision
        assert await etcd.delete(b"a/", prefix_end(b"a/")) == 1
        assert (await etcd.range(b"a/\x00\xff")).kvs == ()

    play(server.url, scenario)


def test_a_transaction_is_carried_out_where_its_comparisons_hold(server: EtcdProcess) -> None:
    """Of two that create one key the second gets what the first wrote."""

    async def scenario(etcd: Etcd) -> None:
        absent = [Compare(b"t", create_revision=0)]
        first = await etcd.txn(absent, [Put(b"t", b"1")], [Get(b"t")])
        second = await etcd.txn(absent, [Put(b"t", b"2")], [Get(b"t")])
        third = await etcd.txn([Compare(b"t", mod_revision=first.revision)], [Delete(b"t")])

        assert (first.succeeded, second.succeeded, third.succeeded) == (True, False, True)
        assert second.rows(0)[0].value == b"1"

    play(server.url, scenario)


def test_a_lease_takes_its_keys_with_it(server: EtcdProcess) -> None:
    """Revoked, a lease is gone for renewals and writes, and so are its keys."""

    async def scenario(etcd: Etcd) -> None:
        lease = await etcd.grant(30, 4711)
        with pytest.raises(LeaseExists):
            await etcd.grant(30, 4711)
        await etcd.put(b"leased", b"", lease)
        assert await etcd.keep_alive(lease) == 30
        await etcd.revoke(lease)

        assert (await etcd.range(b"leased")).kvs == ()
        assert await etcd.keep_alive(lease) == 0
        with pytest.raises(LeaseGone):
            await etcd.put(b"leased", b"", lease)
        with pytest.raises(LeaseGone):
            await etcd.revoke(lease)

    play(server.url, scenario)


def test_a_prefix_is_followed_from_its_state_on(server: EtcdProcess) -> None:
    """First all that is there, then each change in its order."""

    async def scenario(etcd: Etcd) -> None:
        await etcd.put(b"f/1", b"one")
        heard: list[Changes] = []
        async for changes in etcd.follow(b"f/"):
            heard.append(changes)
            if changes.is_reset:
                assert [change.row.key for change in changes.changes] == [b"f/1"]
            elif not changes.changes:
                await etcd.put(b"f/2", b"two")
                await etcd.delete(b"f/1")
                await etcd.put(b"g/1", b"elsewhere")
            if sum(len(one.changes) for one in heard) >= 3:
                break
        told = [(c.row.key, c.is_deleted) for one in heard[1:] for c in one.changes]

        assert told == [(b"f/2", False), (b"f/1", True)]

    play(server.url, scenario)


def test_a_silent_watch_is_begun_again_and_misses_nothing(server: EtcdProcess) -> None:
    """Changes between two connections of one watch are told."""

    async def scenario(etcd: Etcd) -> None:
        etcd._timeout_s = 0.2
        watch = etcd.watch(b"w/", silence_s=0.05)
        assert (await anext(watch)).changes == ()
        for number in range(5):
            await asyncio.sleep(0.3)  # a silence, which is what is tested
            await etcd.put(b"w/%d" % number, b"")
            changes = await anext(watch)
            assert [change.row.key for change in changes.changes] == [b"w/%d" % number]
        await watch.aclose()

    play(server.url, scenario)


def test_a_compacted_history_is_told_apart(server: EtcdProcess) -> None:
    """Who asks for what was compacted away must read everything anew."""

    async def scenario(etcd: Etcd) -> None:
        await etcd.put(b"c", b"1")
        last = await etcd.put(b"c", b"2")
        await etcd._call("/v3/kv/compaction", {"revision": last}, msgspec.Raw)

        with pytest.raises(Compacted):
            async for _ in etcd.watch(b"c", 1):
                pass

    play(server.url, scenario)


def test_the_next_endpoint_is_asked_where_one_is_away(server: EtcdProcess) -> None:
    """A call and a watch find the endpoint that answers, and stay with it."""

    async def scenario(etcd: Etcd) -> None:
        await etcd.put(b"e", b"1")
        assert (await etcd.range(b"e")).kvs[0].value == b"1"
        assert (await anext(etcd.watch(b"e"))).changes == ()

    play(f"http://127.0.0.1:{free_port()},{server.url}", scenario)


def test_nobody_there_is_unavailable() -> None:
    """Without any endpoint every call says so, and nothing hangs."""

    async def scenario(etcd: Etcd) -> None:
        with pytest.raises(EtcdUnavailable):
            await etcd.range(b"x")
        with pytest.raises(EtcdUnavailable):
            await anext(etcd.watch(b"x"))

    play(f"http://127.0.0.1:{free_port()},http://127.0.0.1:{free_port()}", scenario)


def test_a_user_is_authenticated(server: EtcdProcess) -> None:
    """With authentication on, a name and password in the address let in; a wrong one does not."""

    async def scenario(etcd: Etcd) -> None:
        raw = msgspec.Raw
        await etcd._call("/v3/auth/user/add", {"name": "root", "password": "pass:word"}, raw)
        await etcd._call("/v3/auth/role/add", {"name": "root"}, raw)
        await etcd._call("/v3/auth/user/grant", {"user": "root", "role": "root"}, raw)
        await etcd._call("/v3/auth/enable", {}, raw)
        address = server.url.replace("http://", "http://root:pass%3Aword@")
        known = Etcd(read_address(address))
        try:
            await known.put(b"secret", b"1")
            known._token = "outdated"
            assert (await known.range(b"secret")).kvs[0].value == b"1"
            assert (await anext(known.watch(b"secret"))).changes == ()
            with pytest.raises(Exception, match="user name is empty"):
                await etcd.range(b"secret")
        finally:
            await known._call("/v3/auth/disable", {}, raw)
            await known.close()

    play(server.url, scenario)


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1:2379", "ftp://h:1", "http://", "http://h:1?cat=1", "http://h:1,"]
)
def test_a_wrong_address_is_refused(text: str) -> None:
    """What is no list of urls is said to be none."""
    with pytest.raises(ValueError, match="etcd"):
        read_address(text)


def test_an_address_has_several_endpoints_and_options() -> None:
    """Credentials and files are read off, the endpoints are plain."""
    found = read_address("https://u:p%40@a:1, https://b:2/?ca=/ca.pem&cert=/c.pem&key=/k.pem")

    assert found.endpoints == ("https://a:1", "https://b:2")
    assert (found.user, found.password) == ("u", "p@")
    assert (found.ca_file, found.cert_file, found.key_file) == ("/ca.pem", "/c.pem", "/k.pem")


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=3))
def test_a_prefix_ends_behind_all_its_keys(prefix: bytes, rest: bytes) -> None:
    """Every key with the prefix lies in the range; the end itself has another beginning."""
    end = prefix_end(prefix)

    assert end == b"\0" or prefix + rest < end
    assert not end.startswith(prefix)
