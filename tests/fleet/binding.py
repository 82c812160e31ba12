"""What tests of the binder share: workers and claims in a test's hands."""

from __future__ import annotations

from collections.abc import Sequence

from clew.core.affinity import ClaimKey, Mode, Standing
from clew.core.claim import Principal
from clew.core.placement import Load
from clew.fleet.binder import Binder
from clew.fleet.binder_parts import Terms, Wish
from clew.fleet.claims.memory import MemoryClaims
from clew.fleet.claims.port import Binding, ClaimState, ClaimsUnavailable, Told

LOCAL = Principal("local")
URLS = tuple(f"http://10.0.0.{number}:8000" for number in range(1, 5))


class House:
    """The workers of one upstream, as the test says."""

    def __init__(self, urls: Sequence[str] = URLS[:3]) -> None:
        self.standings = dict.fromkeys(urls, Standing.SERVING)
        self.loads = {url: Load(url) for url in urls}

    def candidates(self) -> Sequence[Load]:
        """Those that serve."""
        serving = Standing.SERVING
        return [self.loads[url] for url, standing in self.standings.items() if standing is serving]

    def standing(self, url: str) -> Standing:
        """As set."""
        return self.standings.get(url, Standing.LOST)

    def load(self, url: str) -> Load | None:
        """Of a listed worker."""
        return self.loads.get(url)


class CuttableClaims(MemoryClaims):
    """Claims in memory that can be away."""

    is_cut = False
    confirmed_s: float | None = None
    heard_s: float | None = None
    settle_s = 0.0
    asked = 0

    def subscribe(self, told: Told) -> None:
        """Cut, nothing is heard either; what was missed is told as a reset."""
        super().subscribe(lambda key, number: None if self.is_cut else told(key, number))

    def cut(self, *, is_cut: bool) -> None:
        """Lose the way to the claims, or find it again."""
        self.is_cut = is_cut
        self.confirmed_s = 0.0 if is_cut else None
        if not is_cut:
            self._board.tell(None, "")

    def _check(self) -> None:
        self.asked += 1
        if self.is_cut:
            raise ClaimsUnavailable("cut")

    def confirmed_until(self) -> float:
        """As set, else for ever."""
        return super().confirmed_until() if self.confirmed_s is None else self.confirmed_s

    def heard_until(self) -> float:
        """As set, else as confirmed."""
        return super().heard_until() if self.heard_s is None else self.heard_s

    async def claim(self, key: ClaimKey, worker: str, *, above: int = 0) -> Binding:
        """Unless cut."""
        self._check()
        return await super().claim(key, worker, above=above)

    async def read(self, key: ClaimKey) -> Binding | None:
        """Unless cut."""
        self._check()
        return await super().read(key)

    async def move(self, key: ClaimKey, seen: Binding, worker: str) -> Binding:
        """Unless cut."""
        self._check()
        return await super().move(key, seen, worker)

    async def end(self, key: ClaimKey, state: ClaimState, seen: Binding | None = None) -> Binding:
        """Unless cut."""
        self._check()
        return await super().end(key, state, seen)


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


def wish(session_id: str, principal: str = "local", **more: object) -> Wish:
    """A request of a session."""
    return Wish(Principal(principal), session_id, **more)  # type: ignore[arg-type]


def make_binder(
    claims: MemoryClaims, house: House, clock: Clock, mode: Mode = Mode.IMMUTABLE, **more: object
) -> Binder:
    """A binder over these."""
    bounds = {name: more.pop(name) for name in ("max_per_principal",) if name in more}
    terms = Terms("fleet", mode, 60.0, **more)  # type: ignore[arg-type]
    return Binder(claims, house, terms, boot_s=clock, now_s=clock, **bounds)  # type: ignore[arg-type]
