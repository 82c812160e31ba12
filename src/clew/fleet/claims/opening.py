"""Which claim store ``[claims]`` names."""

from __future__ import annotations

from pathlib import Path

from clew.config.schema import Claims as ClaimsConfig
from clew.fleet.claims.file import FileClaims
from clew.fleet.claims.memory import MemoryClaims
from clew.fleet.claims.port import Claims


def open_claims(config: ClaimsConfig, data: Path, instance: str) -> Claims:
    """The store of ``claims.store``, not started yet.

    ``data`` is the data directory and ``instance`` its id: what all processes of one instance
    share. Raises ValueError for an address that is none.
    """
    kind, _, place = config.store.partition(":")
    if kind == "file":
        return FileClaims(Path(place), data, lease_s=config.lease_s)
    if kind == "etcd":
        # Here, because only who keeps claims in etcd should pay for the client.
        from clew.fleet.claims.etcd import EtcdClaims  # noqa: PLC0415
        from clew.fleet.etcd import Etcd, read_address  # noqa: PLC0415

        return EtcdClaims(Etcd(read_address(place)), instance, lease_s=config.lease_s)
    return MemoryClaims()
