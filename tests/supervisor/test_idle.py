"""When a gateway that was started for a command ends by itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clew.supervisor.idle import Idleness, claim_end, hold, read_work


def test_time_without_a_call_is_counted() -> None:
    """From the last one on, not from the start."""
    idleness = Idleness(10.0, 0.0)

    assert not idleness.note(1, 0, 5.0)
    assert not idleness.note(1, 0, 14.9)
    assert idleness.note(1, 0, 15.0)


def test_a_call_that_still_runs_is_work() -> None:
    """However long it takes."""
    idleness = Idleness(10.0, 0.0)

    assert not idleness.note(1, 1, 100.0)
    assert not idleness.note(1, 0, 105.0)
    assert idleness.note(1, 0, 110.0)


def test_who_holds_the_gateway_begins_the_time_anew() -> None:
    """A person thinks longer than a program."""
    idleness = Idleness(10.0, 0.0)
    idleness.note(0, 0, 0.0)
    assert idleness.note(0, 0, 10.0)

    idleness.keep(10.0)

    assert not idleness.note(0, 0, 19.0)
    assert idleness.note(0, 0, 20.0)


def test_work_is_summed_over_the_gateways_that_say(tmp_path: Path) -> None:
    """A missing, torn or foreign file says nothing."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "gateway-0.stats.json").write_text(json.dumps({"requests_total": 3, "in_flight": 1}))
    (run / "gateway-1.stats.json").write_text("{")
    (run / "gateway-2.stats.json").write_text("[]")
    (run / "gateway-3.stats.json").write_text(json.dumps({"requests_total": 4, "in_flight": 0}))

    assert read_work(tmp_path, 5) == (7, 1)


def test_a_gateway_that_is_held_is_not_taken_for_ending(tmp_path: Path) -> None:
    """Several may hold it; when the last has let go, it may end."""
    first, second = hold(tmp_path), hold(tmp_path)

    assert claim_end(tmp_path) is None
    os.close(first)
    assert claim_end(tmp_path) is None
    os.close(second)
    taken = claim_end(tmp_path)

    assert taken is not None
    os.close(taken)
