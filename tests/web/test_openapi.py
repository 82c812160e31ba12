"""The description is true: generated requests find no answer it does not allow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import schemathesis
from tests.web.conftest import BEARER, TOKEN, House
from tests.web.serving import served

from clew.web.openapi import document

EXAMPLES = 40


@pytest.fixture
def filled(house: House) -> House:
    """An installation with a little of everything."""
    house.filling.session("cs_a", requests=2, input_tokens=200)
    house.filling.session("cs_b", parent_id="cs_a", root_id="cs_a", depth=1)
    house.filling.alias("cs_a", "x-cs_a")
    house.filling.attempt("r1", "cs_a")
    house.filling.attempt("r2", "cs_a", state="unsettled", status=0, billed_nanousd=None)
    house.filling.event("cs_a", "opened", evidence=["rule"])
    return house


def test_the_description_is_true(filled: House, tmp_path: Path) -> None:
    """Statuses, media types, shapes, refused and accepted values, methods, credentials."""
    options = (
        f"--max-examples {EXAMPLES} --seed 7 --workers 1 --no-color --generation-database none"
    )
    with served(filled.app) as address:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{address}/api/v1/openapi.json",
            *("--header", f"Authorization: Bearer {TOKEN}"),
            # A stream without end; tests of its own are in test_live.py.
            *("--exclude-path", "/api/v1/live"),
            *options.split(),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


@pytest.mark.parametrize("tail", ["", "/tree", "/requests", "/events"])
def test_real_answers_fit_their_shapes(filled: House, tail: str) -> None:
    """What generated ids seldom find: the answers about a session that is there."""
    described = schemathesis.openapi.from_dict(document())
    operation = described[f"/api/v1/sessions/{{id}}{tail}"]["GET"]

    response = filled.client(**BEARER).get(f"/api/v1/sessions/cs_a{tail}")

    assert response.status_code == 200
    operation.validate_response(schemathesis.Response.from_any(response))
