"""Which store a configuration names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clew.config.schema import Claims as ClaimsConfig
from clew.fleet.claims.opening import open_claims


@pytest.mark.parametrize(
    ("store", "name", "is_local"),
    [
        ("memory", "memory", True),
        ("file:/shared/claims", "file", False),
        ("etcd:http://127.0.0.1:2379", "etcd", False),
    ],
)
def test_a_store_is_opened_by_its_name(
    store: str, name: str, is_local: bool, tmp_path: Path
) -> None:
    """Each store says what it is, and nothing is touched before it is started."""

    async def scenario() -> None:
        claims = open_claims(ClaimsConfig(store=store), tmp_path, "instance")

        assert (claims.name, claims.is_local) == (name, is_local)

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    """The start of a gateway can say what is wrong."""
    with pytest.raises(ValueError, match="etcd"):
        open_claims(ClaimsConfig(store="etcd:http://"), tmp_path, "instance")
