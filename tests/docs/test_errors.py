"""The errors' page says what the table of errors does."""

from __future__ import annotations

import re
from pathlib import Path

from clew.config.reading import known_keys
from clew.core.errors import FAULTS

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def test_every_code_has_one_row_and_no_other() -> None:
    """In the order of the code's table."""
    assert [row[0].strip("`") for row in ROWS] == list(FAULTS)


def test_status_and_retry_are_the_codes() -> None:
    """What the page promises is what is sent."""
    for code, status, again, *_ in ROWS:
        fault = FAULTS[code.strip("`")]
        assert (int(status), again == "yes") == (fault.status, fault.is_retryable)


def test_every_row_says_what_happened_and_what_to_do() -> None:
    """No code without a next step."""
    assert all(len(row) == 5 and row[3] and row[4] for row in ROWS)


def test_keys_named_on_the_page_exist() -> None:
    """A next step that names a key can be taken."""
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", PAGE))

    assert named - set(known_keys()) == set()
