"""What commands on this machine are told of a running installation."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clew.config.schema import Config, Upstream
from clew.supervisor.ready import (
    Destination,
    describe,
    read_ready,
    ready_path,
    remove_ready,
    write_ready,
)

URLS = ("http://127.0.0.1:1", "http://127.0.0.1:2")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory."""
    (tmp_path / "run").mkdir()
    return tmp_path


def test_the_upstreams_are_those_requests_are_sent_to(data: Path) -> None:
    """The configured ones, else those Clew knows by itself."""
    own = describe(Config(upstream=(Upstream(name="u", url="http://h"),)), *URLS, pid=1)
    known = describe(Config(), *URLS, pid=1)

    assert own.upstreams == (Destination("u", "http://h"),)
    assert not own.is_built_in
    assert known.is_built_in
    assert {one.name for one in known.upstreams} >= {"anthropic", "openai"}


def test_what_was_written_is_read_by_its_owner_only(data: Path) -> None:
    """And is gone after the end."""
    ready = describe(Config(), *URLS, pid=os.getpid(), idle_stop_s=600.0)

    write_ready(data, ready)

    assert read_ready(data) == ready
    assert stat.S_IMODE(ready_path(data).stat().st_mode) == 0o600
    remove_ready(data)
    assert read_ready(data) is None


def test_what_a_killed_supervisor_left_behind_counts_for_nothing(data: Path) -> None:
    """Its process is gone; so does a file that is none of ours."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    write_ready(data, describe(Config(), *URLS, pid=pid))
    assert read_ready(data) is None

    ready_path(data).write_text("{")
    assert read_ready(data) is None
