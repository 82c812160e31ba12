"""How durations, sizes, rates and addresses are read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.config.addresses import check_url, masked_url, read_listen
from clew.config.units import (
    Rate,
    read_duration,
    read_rate,
    read_size,
    show_duration,
    show_size,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0s", 0), ("30m", 1800), ("24h", 86_400), ("90d", 7_776_000), (45, 45), ("1.5s", 1.5)],
)
def test_a_duration_is_read_in_seconds(written: object, seconds: float) -> None:
    """A number with its unit, or a bare number of seconds."""
    assert read_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "5 fortnights", "-1s", "1h30m", True, None, -1, [], "٣s", "1e3s"]
)
def test_what_is_no_duration_is_refused_with_an_example(written: object) -> None:
    """The fault says what a duration looks like."""
    with pytest.raises(ValueError, match="24h"):
        read_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [("2GiB", 2**31), ("512MB", 512_000_000), ("7", 7), (9, 9), ("1 kib", 1024)],
)
def test_a_size_is_read_in_bytes(written: object, size: int) -> None:
    """Binary and decimal units differ."""
    assert read_size(written) == size


@pytest.mark.parametrize("written", ["2GB/s", "half", "0.5B", float("nan"), float("inf")])
def test_what_is_no_size_is_refused(written: object) -> None:
    """A size is a whole number of bytes."""
    with pytest.raises(ValueError, match="size"):
        read_size(written)


@pytest.mark.parametrize(
    ("written", "rate"),
    [("60/m", Rate(60, 60)), ("1M/h", Rate(1_000_000, 3600)), ("1.5k/s", Rate(1500, 1))],
)
def test_a_rate_is_a_count_per_window(written: str, rate: Rate) -> None:
    """The count may carry k, M or G."""
    assert read_rate(written) == rate


@pytest.mark.parametrize("written", ["60", "60/x", "0/m", "0.5/m", "/m", "1T/h"])
def test_what_is_no_rate_is_refused(written: str) -> None:
    """A rate allows at least one."""
    with pytest.raises(ValueError, match="rate"):
        read_rate(written)


@given(st.integers(0, 10**9))
def test_a_shown_duration_reads_back(seconds: int) -> None:
    """What `clew config show` prints is what the file takes."""
    assert read_duration(show_duration(seconds)) == seconds


@given(st.integers(0, 2**50))
def test_a_shown_size_reads_back(size: int) -> None:
    """What `clew config show` prints is what the file takes."""
    assert read_size(show_size(size)) == size


@given(st.text())
def test_reading_text_raises_nothing_but_value_error(text: str) -> None:
    """Whatever stands in the file, the answer is a value or a fault."""
    for read in (read_duration, read_size, read_rate, read_listen, check_url):
        with contextlib.suppress(ValueError):
            read(text)


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:2539", "127.0.0.1", 2539, True),
        ("127.9.9.9:0", "127.9.9.9", 0, True),
        ("localhost:80", "localhost", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::]:80", "::", 80, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("gateway.internal:80", "gateway.internal", 80, False),
    ],
)
def test_a_listen_address_is_host_and_port(
    text: str, host: str, port: int, is_loopback: bool
) -> None:
    """An IPv6 host is in brackets; only loopback addresses and localhost count as loopback."""
    found = read_listen(text)

    assert (found.host, found.port, found.is_loopback) == (host, port, is_loopback)
    assert str(found) == text


@pytest.mark.parametrize(
    "text", ["", "2539", ":2539", "::1:2539", "127.0.0.1", "127.0.0.1:99999", "1.2.3:80", "[x]:1"]
)
def test_what_is_no_listen_address_is_refused(text: str) -> None:
    """Half an address is no address."""
    with pytest.raises(ValueError, match=r"HOST:PORT|65535|IP address"):
        read_listen(text)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "https://",
        "https://user:secret@host/",
        "https://host/?q=1",
        "https://host/?",
        "https://host/#f",
        "https://host:0/",
        "https://host:x/",
        "https://host/a b",
        "https://höst/",
        "https://host/a/../b",
        "//host",
        "http://[::1/",
    ],
)
def test_a_bad_url_is_refused_without_repeating_it(url: str) -> None:
    """A password in a url reaches no error message."""
    with pytest.raises(ValueError) as raised:
        check_url(url)

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["https://api.anthropic.com", "http://127.0.0.1:8000/v1", "http://[::1]:9/"]
)
def test_a_plain_url_is_accepted(url: str) -> None:
    """http and https, a host, a port and a base path."""
    check_url(url)


def test_a_masked_url_keeps_host_and_loses_password() -> None:
    """What a person needs to recognise the place stays."""
    assert masked_url("postgresql://me:pw@db/clew") == "postgresql://***@db/clew"
    asked = "postgresql:///clew?host=/run&password=pw&sslpassword=pw"
    assert masked_url(asked) == "postgresql:///clew?host=/run&password=***&sslpassword=***"


def test_a_duration_is_bounded() -> None:
    """A slip of the keyboard does not overflow a clock."""
    with pytest.raises(ValueError, match="100 years"):
        read_duration("999999999d")
