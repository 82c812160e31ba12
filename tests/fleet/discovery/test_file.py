"""Which files are lists of workers, and what becomes of those that are not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet.discovery.house import following

from clew.core.workers import Listed
from clew.fleet.discovery.file import MAX_FILE_BYTES, FileSource, read_list
from clew.fleet.discovery.port import UnusableList

WRONG = [
    (b"", "truncated"),
    (b"[", "truncated"),
    (b"{}", "Expected `array`"),
    (b'["http://h"]', "Expected `object`"),
    (b'[{"weight": 1}]', "missing required field `url`"),
    (b'[{"url": "http://h", "wieght": 1}]', "unknown field `wieght`"),
    (b'[{"url": "http://h", "weight": 0}]', "weight must be"),
    (b'[{"url": "http://h", "weight": "2"}]', "Expected `int`"),
    (b'[{"url": "http://h"}, {"url": "http://h"}]', "listed twice"),
    (b'[{"url": "http://u:secret@h"}]', "must not carry credentials"),
    (b'[{"url": "h:8000"}]', "must be an http"),
    (b"\xff", "invalid"),
    (b"[" * 100_000, ""),
]


@pytest.mark.parametrize(("content", "said"), WRONG)
def test_a_wrong_file_is_named_and_repeats_no_secret(content: bytes, said: str) -> None:
    """One wrong row spoils the file: half a list is not what its author meant."""
    with pytest.raises(UnusableList) as caught:
        read_list(content, is_toml=False)

    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_toml_has_tables() -> None:
    """The same keys; what is left out has its default."""
    content = b'[[worker]]\nurl = "http://a"\n[[worker]]\nurl = "http://b"\nweight = 3\n'

    assert read_list(content, is_toml=True) == (Listed("http://a"), Listed("http://b", 3))


@pytest.mark.parametrize("content", [b"", b"worker = 1", b"[[workers]]\nurl='http://a'", b"x ="])
def test_a_wrong_toml_file_is_refused(content: bytes) -> None:
    """An empty one too: it is a torn one."""
    with pytest.raises(UnusableList):
        read_list(content, is_toml=True)


@given(st.binary(max_size=200), st.booleans())
def test_no_content_is_our_fault(content: bytes, is_toml: bool) -> None:
    """Whatever a file holds: workers, or a reason."""
    try:
        found = read_list(content, is_toml=is_toml)
    except UnusableList:
        return
    assert all(isinstance(one, Listed) for one in found)


def test_a_torn_file_keeps_the_last_good_list(tmp_path: Path) -> None:
    """It is said once, and the next good file is taken."""
    path = tmp_path / "workers.json"
    path.write_text('[{"url": "http://a"}]')

    async def run() -> None:
        async with following(FileSource(path, poll_s=0.01)) as audience:
            await audience.until_urls("http://a")
            path.write_text('[{"url": "http://')
            await audience.until(lambda: bool(audience.troubles))
            assert audience.urls == ["http://a"]
            assert str(path) in audience.troubles[0]
            path.write_text('[{"url": "http://b"}]')
            await audience.until_urls("http://b")
            assert len(audience.troubles) == 1

    asyncio.run(run())


def test_a_file_that_is_no_list_for_its_size_is_not_read(tmp_path: Path) -> None:
    """Somebody named another file."""
    path = tmp_path / "workers.json"
    path.write_bytes(b" " * (MAX_FILE_BYTES + 1))

    async def run() -> None:
        async with following(FileSource(path, poll_s=0.01)) as audience:
            await audience.until(lambda: bool(audience.troubles))
            assert "is over" in audience.troubles[0]

    asyncio.run(run())
