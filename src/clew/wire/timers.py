"""One coarse clock for every time limit of the wire, and the watch for a suspended machine.

Limits here are seconds; asyncio's heap pays for each arming what these connections do a thousand
times a second. So a timer is one number that is moved freely; it is filed in the wheel once and
refiled when its slot comes by before it is due. A limit fires late by at most two ticks, never
early.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.25
HORIZON_TICKS: Final = 32
"""Far timers are filed this far and refiled: what a closed connection leaves behind goes soon."""
SUSPEND_S: Final = 2.0
"""The boot clock ran this much further than the monotonic one: the machine slept."""
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# On macOS CLOCK_MONOTONIC counts sleep and time.monotonic() does not: the same pair.


def boot_clock() -> float:
    """Seconds since boot, sleep included."""
    return time.clock_gettime(_BOOT_CLOCK)


def nothing() -> None:
    """What a timer calls that was never armed."""


class Timer:
    """One limit; ``callback`` runs once when it is due. Not thread-safe."""

    __slots__ = ("_due", "_filed", "_wheel", "callback")

    def __init__(self, wheel: TimerWheel, callback: Callable[[], None]) -> None:
        self._wheel = wheel
        self._due = 0
        """Tick; 0: not armed."""
        self._filed = 0
        """Tick of the slot that holds it; 0: none."""
        self.callback = callback

    def set(self, delay_s: float) -> None:
        """Arm, or move; 0 = no limit."""
        if delay_s <= 0:
            self._due = 0
            return
        self.set_ticks(self._wheel.ticks(delay_s))

    def set_ticks(self, ticks: int) -> None:
        """Arm, or move, by ticks counted before (`TimerWheel.ticks`); 0 = no limit."""
        if not ticks:
            self._due = 0
            return
        wheel = self._wheel
        self._due = due = wheel.tick + ticks
        if not self._filed or due < self._filed:
            self._filed = wheel.file(self, due)

    def clear(self) -> None:
        """Disarm."""
        self._due = 0

    def drop(self) -> None:
        """Disarm for good and forget the callback's owner."""
        self._due = 0
        self.callback = nothing

    def on_slot(self, tick: int) -> None:
        """Its slot came by: fire, refile or leave."""
        if self._filed != tick:
            return
        self._filed = 0
        if not self._due:
            return
        if self._due > tick:
            self._filed = self._wheel.file(self, self._due)
            return
        self._due = 0
        self.callback()


class TimerWheel:
    """Files timers by tick. `start` runs it on the loop; tests turn it with `advance`."""

    def __init__(
        self,
        tick_s: float = TICK_S,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        boot: Callable[[], float] = boot_clock,
    ) -> None:
        self.tick = 1
        self.tick_s = tick_s
        self._monotonic = monotonic
        self._boot = boot
        self._start_s = monotonic()
        self._asleep_s = boot() - monotonic()
        self._slots: dict[int, list[Timer]] = {}
        self._on_resume: list[Callable[[], None]] = []
        self._handle: asyncio.TimerHandle | None = None

    def timer(self, callback: Callable[[], None]) -> Timer:
        """A timer, not armed."""
        return Timer(self, callback)

    def ticks(self, delay_s: float) -> int:
        """Ticks that are never shorter than ``delay_s``; 0 for 0."""
        return int(delay_s / self.tick_s) + 2 if delay_s > 0 else 0

    def file(self, timer: Timer, due: int) -> int:
        """Put a timer in the slot of its due tick, or the farthest; returns that slot."""
        slot = min(due, self.tick + HORIZON_TICKS)
        self._slots.setdefault(slot, []).append(timer)
        return slot

    def on_resume(self, callback: Callable[[], None]) -> None:
        """Call after the machine was suspended: what was connected before is worth nothing."""
        self._on_resume.append(callback)

    def start(self) -> None:
        """Turn with the running loop."""
        if self._handle is None:
            self._schedule()

    def stop(self) -> None:
        """Turn no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def advance(self) -> None:
        """Catch up with the clock: run every slot passed, then look for a suspend."""
        now = int((self._monotonic() - self._start_s) / self.tick_s) + 1
        while self.tick < now:
            self.tick += 1
            for timer in self._slots.pop(self.tick, ()):
                timer.on_slot(self.tick)
        asleep_s = self._boot() - self._monotonic()
        if asleep_s - self._asleep_s > SUSPEND_S:
            for callback in self._on_resume:
                callback()
        self._asleep_s = asleep_s

    def _schedule(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self.tick_s, self._on_tick)

    def _on_tick(self) -> None:
        self._schedule()
        self.advance()
