"""One GET with each HTTP library, as its users write it; redirects are followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import requests
import urllib3

Call = Callable[[str, dict[str, str]], None]


def sync_httpx(url: str, headers: dict[str, str]) -> None:
    """httpx.Client."""
    _sync(httpx, url, headers)


def sync_httpx2(url: str, headers: dict[str, str]) -> None:
    """httpx2.Client."""
    _sync(httpx2, url, headers)


def async_httpx(url: str, headers: dict[str, str]) -> None:
    """httpx.AsyncClient."""
    asyncio.run(_async(httpx, url, headers))


def async_httpx2(url: str, headers: dict[str, str]) -> None:
    """httpx2.AsyncClient."""
    asyncio.run(_async(httpx2, url, headers))


def over_requests(url: str, headers: dict[str, str]) -> None:
    """requests.get."""
    requests.get(url, headers=headers, timeout=10).raise_for_status()


def over_urllib3(url: str, headers: dict[str, str]) -> None:
    """urllib3.PoolManager."""
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", url, headers=headers).status == 200


def over_aiohttp(url: str, headers: dict[str, str]) -> None:
    """aiohttp.ClientSession."""
    asyncio.run(_aiohttp(url, headers))


def _sync(library: Any, url: str, headers: dict[str, str]) -> None:
    with library.Client(verify=False, follow_redirects=True) as client:
        client.get(url, headers=headers).raise_for_status()


async def _async(library: Any, url: str, headers: dict[str, str]) -> None:
    async with library.AsyncClient(verify=False, follow_redirects=True) as client:
        (await client.get(url, headers=headers)).raise_for_status()


async def _aiohttp(url: str, headers: dict[str, str]) -> None:
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        answer.raise_for_status()


CALLS: tuple[Call, ...] = (
    sync_httpx,
    async_httpx,
    sync_httpx2,
    async_httpx2,
    over_requests,
    over_urllib3,
    over_aiohttp,
)
