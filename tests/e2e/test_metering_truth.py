"""Each attempt's row says what the provider's own journal says."""

from __future__ import annotations

from pathlib import Path

from tests.soak.metering import ledgers

ATTEMPTS = 600


def test_mixed_attempts_are_metered_to_the_token(tmp_path: Path) -> None:
    """Four APIs, streamed or not, coded, failing, cut, left, retried: tokens and cost row by row,
    and every sum of usage is that of its rows."""
    with ledgers(tmp_path) as running:
        assert running.run(ATTEMPTS, seed=3) == []
