"""The timer wheel: limits that move freely, fire once and never early; sleep is noticed."""

from __future__ import annotations

from clew.wire.timers import HORIZON_TICKS, TimerWheel


class Clock:
    """Two clocks under the test's hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.asleep_s = 0.0
        self.wheel = TimerWheel(0.25, monotonic=lambda: self.now_s, boot=self.boot)

    def boot(self) -> float:
        """The clock that counts sleep."""
        return self.now_s + self.asleep_s

    def pass_s(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        for _ in range(int(seconds / 0.25)):
            self.now_s += 0.25
            self.wheel.advance()


def test_a_limit_fires_once_and_not_early() -> None:
    """At most two ticks late."""
    clock, fired = Clock(), []
    clock.wheel.timer(lambda: fired.append(clock.now_s)).set(1.0)

    clock.pass_s(0.75)
    assert not fired
    clock.pass_s(10)
    assert len(fired) == 1
    assert 101.0 <= fired[0] <= 101.5


def test_moving_a_limit_later_or_sooner_moves_it() -> None:
    """The last setting counts."""
    clock, fired = Clock(), []
    timer = clock.wheel.timer(lambda: fired.append(clock.now_s))
    timer.set(1.0)
    timer.set(5.0)
    clock.pass_s(4)
    assert not fired
    timer.set(60.0)
    timer.set(0.5)
    clock.pass_s(1)
    assert len(fired) == 1
    clock.pass_s(100)
    assert len(fired) == 1


def test_a_cleared_limit_does_not_fire_and_can_be_set_again() -> None:
    """Clearing costs one store; the slot comes by in vain."""
    clock, fired = Clock(), []
    timer = clock.wheel.timer(lambda: fired.append(1))
    timer.set(1.0)
    timer.clear()
    clock.pass_s(3)
    assert not fired
    timer.set(1.0)
    timer.set(0)
    clock.pass_s(3)
    assert not fired
    timer.set(1.0)
    clock.pass_s(3)
    assert fired == [1]


def test_a_far_limit_is_refiled_until_it_is_due() -> None:
    """Beyond the horizon it stays exact, and what was dropped is forgotten within it."""
    clock, fired = Clock(), []
    far_s = HORIZON_TICKS * 0.25 * 5 + 1
    clock.wheel.timer(lambda: fired.append(1)).set(far_s)
    clock.pass_s(far_s - 0.25)
    assert not fired
    clock.pass_s(0.75)
    assert fired == [1]
    assert not clock.wheel._slots


def test_sleep_is_told_once_by_the_clock_that_counts_it() -> None:
    """A suspended machine: the boot clock went on, the monotonic one stood."""
    clock, woken = Clock(), []
    clock.wheel.on_resume(lambda: woken.append(1))
    clock.pass_s(5)
    assert not woken
    clock.asleep_s = 60.0
    clock.pass_s(5)
    assert woken == [1]
