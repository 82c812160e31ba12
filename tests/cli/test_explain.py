"""What `clew explain` prints of recorded sessions, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
GOLDENS = sorted((ROOT / "tests" / "data" / "explain").glob("*.txt"))


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.stem)
def test_a_recorded_session_is_explained_as_written_down(golden: Path, run: Run) -> None:
    """Rules, reasons and the outcome of each mode; a change of any of them shows here."""
    capture = ROOT / "conformance" / "captures" / f"{golden.stem}.jsonl"

    assert run("explain", str(capture)).stdout == golden.read_text()


def test_the_modes_find_what_the_capture_expects(run: Run) -> None:
    """By proof the threads of a client without ids; without lineage nothing."""
    capture = ROOT / "conformance" / "captures" / "qwen-code-0.24.4.jsonl"
    expected = [json.loads(line)["expect"]["thread"] for line in capture.read_text().splitlines()]
    found = json.loads(run("explain", str(capture), "--json").stdout)
    played = [{one["mode"]: one for one in each["played"]} for each in found]

    by_proof = [one["proof"]["session"] for one in played]
    assert len(set(zip(by_proof, expected, strict=True))) == len(set(expected))
    assert {one["off"]["outcome"] for one in played} == {"unattributed"}


def test_a_rotated_header_is_resumed_by_recency_alone(run: Run, tmp_path: Path) -> None:
    """Without a history there is no proof; the modes differ, and it is said."""
    lines = [
        {
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": {"user-agent": "Kilo-Code/5.1", "x-session-affinity": value},
            "body": {"messages": [{"role": "user", "content": f"task {value}"}]},
            "reply": {"text": "Done."},
        }
        for value in ("n1", "n2")
    ]
    file = tmp_path / "two.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    found = json.loads(run("explain", str(file), "--json").stdout)[1]["played"]

    assert {one["mode"]: (one["outcome"], one["session"]) for one in found} == {
        "proof": ("new", "session 2"),
        "recency": ("resumed", "session 1"),
        "off": ("new", "session 2"),
    }
