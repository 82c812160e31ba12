"""Values made for a schema satisfy it, as an independent validator judges."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from clew.lab.sim_schema import named_agent, satisfy

SCHEMAS: dict[str, Any] = {
    "plain": {
        "type": "object",
        "properties": {"description": {"type": "string"}, "prompt": {"type": "string"}},
        "required": ["description", "prompt"],
        "additionalProperties": False,
    },
    "choices": {
        "type": "object",
        "properties": {
            "mode": {"enum": ["a", "b"]},
            "kind": {"const": "k"},
            "count": {"type": "integer", "minimum": 3},
            "flag": {"type": ["boolean", "null"]},
        },
        "required": ["mode", "kind", "count", "flag"],
    },
    "nested": {
        "$defs": {"item": {"type": "object", "properties": {"n": {"type": "number"}}}},
        "type": "object",
        "properties": {
            "list": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/item"}},
            "either": {"anyOf": [{"type": "string", "minLength": 30}, {"type": "null"}]},
            "both": {"allOf": [{"type": "object"}, {"required": []}]},
        },
        "required": ["list", "either", "both"],
    },
    "recursive": {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": ["children"],
            }
        },
        "$ref": "#/$defs/tree",
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_made_value_is_valid(name: str) -> None:
    """The schema's own validator accepts it."""
    jsonschema_rs.validate(SCHEMAS[name], satisfy(SCHEMAS[name]))


def test_the_prompt_goes_where_a_subagent_reads_it() -> None:
    """An optional message property carries the task."""
    schema = {"type": "object", "properties": {"message": {"type": "string"}}}

    assert satisfy(schema, "do it") == {"message": "do it"}


def test_a_required_agent_name_is_one_the_description_lists() -> None:
    """Agents refuse names they do not know."""
    schema = {
        "type": "object",
        "properties": {"subagent_type": {"type": "string"}},
        "required": ["subagent_type"],
    }
    description = "Agents:\n- explore: fast search\n- general: anything"

    assert satisfy(schema, "x", named_agent(description)) == {"subagent_type": "explore"}
