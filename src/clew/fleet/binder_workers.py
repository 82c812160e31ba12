"""A fleet as the binder sees it."""

from __future__ import annotations

from collections.abc import Sequence

from clew.core.affinity import Standing
from clew.core.placement import Load
from clew.core.workers import placeable
from clew.fleet.workers import Fleet


class FleetWorkers:
    """The workers of one upstream."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def candidates(self) -> Sequence[Load]:
        """Those of the best state there is, without those that drain."""
        return tuple(worker.load for worker in placeable(self._fleet.workers()))

    def standing(self, url: str) -> Standing:
        """Lost: it is down, or listed no more. A fleet of nobody says nothing of anybody."""
        worker = self._fleet.worker(url)
        if worker is None:
            return Standing.LOST if self._fleet.workers() else Standing.UNKNOWN
        if not worker.is_usable:
            return Standing.LOST
        return Standing.DRAINING if worker.is_draining else Standing.SERVING

    def load(self, url: str) -> Load | None:
        """A listed worker's load."""
        worker = self._fleet.worker(url)
        return None if worker is None else worker.load
