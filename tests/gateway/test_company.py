"""Who of several processes is the last to leave."""

from __future__ import annotations

from pathlib import Path

from clew.gateway.company import Company


def test_the_last_one_knows_that_it_is(tmp_path: Path) -> None:
    """Each before it sees somebody."""
    every = [Company(tmp_path) for _ in range(3)]
    for one in every:
        one.join()

    assert [one.leave() for one in every] == [False, False, True]


def test_one_alone_is_the_last(tmp_path: Path) -> None:
    """Nobody else was ever there."""
    company = Company(tmp_path)
    company.join()

    assert company.leave()


def test_of_two_that_leave_at_once_one_is_the_last(tmp_path: Path) -> None:
    """Who comes to it while the other hands over leaves that to it."""
    first, second = Company(tmp_path), Company(tmp_path)
    first.join()
    second.join()

    assert sorted([second.leave(), first.leave()]) == [False, True]
