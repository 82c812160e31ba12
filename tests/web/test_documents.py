"""`docs/admin-api.md` and `docs/metrics.md` against what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.store.reads_shapes import EventView, Record, Session, Totals, UsageRow
from clew.web.api import ROUTES
from clew.web.keys import IssuedKey, KeyRequest, RotateRequest
from clew.web.metrics import names
from clew.web.openapi import document

DOCS = Path(__file__).parents[2] / "docs"


def test_every_metric_is_documented() -> None:
    """Name by name."""
    text = (DOCS / "metrics.md").read_text()

    assert [name for name in names() if f"`{name}`" not in text] == []


def test_every_route_is_documented() -> None:
    """Path by path, as OpenAPI writes it."""
    text = (DOCS / "admin-api.md").read_text()

    assert [path for path in document()["paths"] if f"`{path}`" not in text] == []


def test_every_route_that_is_served_is_in_the_description() -> None:
    """The description and the wiring list the same."""
    described = {path.split("/{")[0] for path in document()["paths"]}

    assert {route.path.split("/{")[0] for route in ROUTES} == described


@pytest.mark.parametrize(
    "shape", [Session, Record, EventView, UsageRow, Totals, IssuedKey, KeyRequest, RotateRequest]
)
def test_every_field_is_documented(shape: type) -> None:
    """Field by field."""
    text = (DOCS / "admin-api.md").read_text()

    fields = shape.__struct_fields__  # type: ignore[attr-defined]
    assert [name for name in fields if f"`{name}`" not in text] == []


def test_every_parameter_is_documented() -> None:
    """Parameter by parameter."""
    text = (DOCS / "admin-api.md").read_text()
    rows = [
        row
        for path in document()["paths"].values()
        for operation in path.values()
        for row in operation.get("parameters", ())
    ]

    assert [row["name"] for row in rows if f"`{row['name']}`" not in text] == []
