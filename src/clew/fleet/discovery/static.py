"""Workers that the configuration names: known before anybody is asked, changed by a reload."""

from __future__ import annotations

from collections.abc import Sequence

from clew.core.workers import Listed
from clew.fleet.discovery.port import Audience


class StaticSource:
    """A fixed list of urls, each of weight 1."""

    label = "static"

    def __init__(self, urls: Sequence[str]) -> None:
        self.initial: tuple[Listed, ...] | None = tuple(Listed(url) for url in urls)

    async def follow(self, audience: Audience) -> None:
        """Tell it once."""
        audience.heard(self.initial or ())
