"""Base urls, old and new."""

from __future__ import annotations

import pytest

from clew.agents.bases import (
    Bases,
    Existing,
    is_of_gateway,
    is_vendor,
    missing,
    plain_url,
    to_start_with,
)

GATEWAY = "http://127.0.0.1:2539"


def existing(url: str, path: str = "/v1") -> Existing:
    """A base url that was set before."""
    return Existing("OPENAI_BASE_URL in the environment", "OPENAI_BASE_URL", url, path)


def test_a_client_without_a_base_url_gets_gateway_and_run() -> None:
    """And its own path after them."""
    assert Bases(GATEWAY, "run-1").direct("/v1") == f"{GATEWAY}/r/run-1/v1"
    assert Bases(GATEWAY + "/").direct("") == GATEWAY


@pytest.mark.parametrize(
    ("url", "path", "upstream", "base"),
    [
        ("https://h/base/v1", "/v1", "https://h/base/v1", "/r/run-1/u/name/v1"),
        ("https://h/base/v1/", "/v1", "https://h/base/v1", "/r/run-1/u/name/v1"),
        ("https://h/openai", "/v1", "https://h/openai", "/r/run-1/u/name"),
        ("https://h/anthropic", "", "https://h/anthropic", "/r/run-1/u/name"),
        ("https://h/g/v1beta", "/v1beta", "https://h/g", "/r/run-1/u/name/v1beta"),
    ],
)
def test_an_old_destination_is_kept(url: str, path: str, upstream: str, base: str) -> None:
    """The old url becomes an upstream, and the client's own path stays the client's."""
    old = existing(url, path)
    bases = Bases(GATEWAY, "run-1", {plain_url(upstream): "name"})

    assert old.upstream == upstream
    assert bases.through(old) == GATEWAY + base


def test_urls_are_compared_by_what_they_mean() -> None:
    """Case of the host, a trailing slash and a trailing version make no difference."""
    assert plain_url("HTTPS://H.example/Base/v1/") == plain_url("https://h.example/Base")
    assert plain_url("https://h.example/base") != plain_url("https://h.example/Base")


def test_upstreams_that_are_missing_are_named() -> None:
    """Those the gateway has are left out."""
    one, other = existing("https://a/v1"), existing("https://b/v1")

    assert missing((one, other), {plain_url("https://a"): "a"}) == (other,)


def test_a_gateway_is_started_with_what_it_does_not_know_by_itself() -> None:
    """Vendors need no flag; beside another destination they do, because it replaces them."""
    vendor, own = existing("https://api.openai.com/v1"), existing("https://own/v1")

    assert is_vendor(vendor.url)
    assert to_start_with((vendor,)) == ()
    assert to_start_with((vendor, own, own)) == (vendor.upstream, own.upstream)


def test_a_url_of_the_gateway_itself_is_no_destination() -> None:
    """Loopback has several names; another port is another program."""
    assert is_of_gateway("http://localhost:2539/r/run-0/v1", (GATEWAY,))
    assert not is_of_gateway("http://127.0.0.1:8000/v1", (GATEWAY,))
    assert not is_of_gateway("http://h:x/", (GATEWAY,))
