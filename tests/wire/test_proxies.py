"""Which proxy an origin goes through."""

from __future__ import annotations

import pytest

from clew.wire.faults import Unreachable
from clew.wire.proxies import Proxies, Proxy


def test_a_scheme_has_its_proxy_and_all_proxy_is_the_last_resort() -> None:
    """HTTPS_PROXY, HTTP_PROXY, then ALL_PROXY; lower case first."""
    proxies = Proxies({"HTTPS_PROXY": "http://p:3128", "all_proxy": "q:81"})

    assert proxies.select("https", "a.example", 443) == Proxy("p", 3128)
    assert proxies.select("http", "a.example", 80) == Proxy("q", 81)
    assert Proxies({}).select("https", "a.example", 443) is None


def test_credentials_of_the_url_become_a_field() -> None:
    """Percent-encoding is undone."""
    proxy = Proxies({"http_proxy": "http://u:p%40@p"}).select("http", "a.example", 80)

    assert proxy == Proxy("p", 80, b"proxy-authorization: Basic dTpwQA==\r\n")


@pytest.mark.parametrize(
    ("listed", "host", "is_direct"),
    [
        ("*", "a.example", True),
        ("a.example", "a.example", True),
        ("example", "a.example", True),
        (".example", "a.example", True),
        ("*.example", "a.example", True),
        ("a.example:443", "a.example", True),
        ("a.example:444", "a.example", False),
        ("le", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("x, A.Example", "a.EXAMPLE", True),
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("", "::1", True),
    ],
)
def test_no_proxy_and_loopback_go_directly(listed: str, host: str, is_direct: bool) -> None:
    """Hosts, domains, networks, ports and the star."""
    proxies = Proxies({"https_proxy": "http://p", "no_proxy": listed})

    assert (proxies.select("https", host, 443) is None) is is_direct


def test_a_proxy_that_is_not_spoken_is_unreachable() -> None:
    """Better no connection than one that leaks around the proxy."""
    with pytest.raises(Unreachable):
        Proxies({"all_proxy": "socks5://p"}).select("https", "a.example", 443)
