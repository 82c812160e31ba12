"""The source that an upstream's ``discovery`` names: one row a word before the colon.

``etcd:`` takes its endpoint from the value (``etcd:http://HOST:2379/PREFIX``) or, where that is a
bare prefix, from ``claims.store``. ``kubernetes:NAMESPACE/SERVICE`` may end in ``:PORT``, by name
or number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from clew.config.schema import Config, Upstream
from clew.fleet.discovery.file import FileSource
from clew.fleet.discovery.port import Source
from clew.fleet.discovery.static import StaticSource


class Ground(msgspec.Struct, frozen=True):
    """What a source may be built from, beside its own words."""

    config: Config
    environment: Mapping[str, str]


def make_source(upstream: Upstream, ground: Ground) -> Source:
    """The source of an upstream's workers. Raises ValueError where it cannot be one."""
    word, _, rest = upstream.discovery.partition(":")
    if word == "static":
        return StaticSource(upstream.workers)
    return _SOURCES[word](rest, ground)


def _file(rest: str, _: Ground) -> Source:
    return FileSource(Path(rest).expanduser())


def _etcd(rest: str, ground: Ground) -> Source:
    # httpx is loaded by those who use it only: it takes longer than the rest of the gateway.
    from clew.fleet.discovery.etcd import make_etcd_source  # noqa: PLC0415  see above

    return make_etcd_source(rest, ground.config.claims.store)


def _kubernetes(rest: str, ground: Ground) -> Source:
    from clew.fleet.discovery.kubernetes import Cluster, KubernetesSource  # noqa: PLC0415  httpx

    return KubernetesSource(rest, Cluster.of_this_pod(ground.environment))


_SOURCES: Final[dict[str, Callable[[str, Ground], Source]]] = {
    "file": _file,
    "etcd": _etcd,
    "kubernetes": _kubernetes,
}
