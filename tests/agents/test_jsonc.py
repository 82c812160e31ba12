"""JSON with comments: read as it is meant, and changed in one place only."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.agents.jsonc import JsoncError, parse, value_at
from clew.agents.jsonc_edit import Edit, drop, put

SETTINGS = """\
// mine
{
    /* the model */
    "model": "opus", // the large one
    "env": {
        "A": "1",
    },
}
"""
PATH = ("env", "BASE_URL")

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
tables = st.dictionaries(st.sampled_from(["env", "a", "b"]), plain, max_size=3)
layouts = st.sampled_from([None, 0, 2, 4, "\t"])


def back(edit: Edit) -> Edit:
    """The edit that takes another one back."""
    return Edit(edit.start, edit.inserted, edit.removed)


@given(plain, layouts)
def test_plain_json_is_read_as_json(value: Any, indent: Any) -> None:
    """What `json` writes means the same here."""
    assert parse(json.dumps(value, indent=indent)).value == value


def test_comments_and_trailing_commas_are_read_over() -> None:
    """As the agents' own readers do."""
    assert parse(SETTINGS).value == {"model": "opus", "env": {"A": "1"}}
    assert value_at(SETTINGS, ("env", "A")) == "1"
    assert value_at(SETTINGS, ("env", "B")) is None
    assert value_at("", ("env",)) is None
    assert parse('{"a": "// no comment", "b": "/* nor this */"}').value["a"] == "// no comment"


@pytest.mark.parametrize(
    "text",
    ['{"a" 1}', "{1: 2}", '{"a": }', "[1 2]", '{"a": 1} x', "{", "[", '"a', "nul", "/* open", "-"],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    """Nothing is guessed: a file that cannot be read is not changed."""
    with pytest.raises(JsoncError):
        parse(text)


@given(st.text(alphabet='{}[]",:/*\\ \n1ae', max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader fail otherwise, or read past its end."""
    try:
        node = parse(text)
    except JsoncError:
        return
    assert node.end <= len(text)


def test_too_deep_a_nesting_is_refused() -> None:
    """Before the stack is exhausted."""
    with pytest.raises(JsoncError, match="deep"):
        parse("[" * 5_000 + "]" * 5_000)


@given(tables, layouts)
def test_a_value_put_in_and_taken_back_leaves_every_character(
    table: dict[str, Any], indent: Any
) -> None:
    """The reverse of the edit restores the text, whatever it looked like."""
    text = json.dumps(table, indent=indent)
    try:
        edit, created = put(text, PATH, "http://g")
    except JsoncError:
        assert not isinstance(table.get("env"), dict) or isinstance(
            table["env"].get("BASE_URL"), dict | list
        )
        return
    after = edit.apply(text)

    assert value_at(after, PATH) == "http://g"
    assert back(edit).apply(after) == text
    if created:
        assert parse(drop(after, PATH, created)).value == table


def test_an_edit_in_commented_settings_touches_its_own_line_only() -> None:
    """Comments, order, indentation and commas of the user stay."""
    edit, _ = put(SETTINGS, PATH, "http://g")

    after = edit.apply(SETTINGS)

    assert after == SETTINGS.replace('        "A"', '        "BASE_URL": "http://g",\n        "A"')


def test_a_table_that_is_not_there_is_made() -> None:
    """Indented as its neighbours are."""
    edit, created = put('{\n    "model": "opus"\n}\n', PATH, "http://g")

    after = edit.apply('{\n    "model": "opus"\n}\n')

    assert created == 2
    assert after == (
        '{\n    "env": {\n        "BASE_URL": "http://g"\n    },\n    "model": "opus"\n}\n'
    )


@pytest.mark.parametrize("text", ["", " \n", "{}", "{ }", "{\n}\n", '{"env":{}}', "{ // mine\n}"])
def test_an_empty_text_becomes_a_document(text: str) -> None:
    """A new file, an empty one, an empty table: the value stands in it afterwards."""
    edit, _ = put(text, PATH, "http://g")

    assert value_at(edit.apply(text), PATH) == "http://g"
    assert back(edit).apply(edit.apply(text)) == text


def test_an_older_value_is_replaced() -> None:
    """Nothing is created then, and the edit knows what stood there."""
    edit, created = put('{"env": {"BASE_URL": "http://old"}}', PATH, "http://g")

    assert created == 0
    assert edit.removed == '"http://old"'


@pytest.mark.parametrize(
    "text", ['{"env": "text"}', "[]", '{"env": {"BASE_URL": {}}}', '{"env": {"BASE_URL": []}}']
)
def test_a_text_of_another_shape_is_not_changed(text: str) -> None:
    """A value is never put over a table, nor a table over a value."""
    with pytest.raises(JsoncError):
        put(text, PATH, "http://g")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{\n  "env": {\n    "BASE_URL": "http://g",\n    "MINE": "1"\n  }\n}\n',
            '{\n  "env": {\n    "MINE": "1"\n  }\n}\n',
        ),
        (
            '{\n  "env": {\n    "MINE": "1",\n    "BASE_URL": "http://g"\n  }\n}\n',
            '{\n  "env": {\n    "MINE": "1"\n  }\n}\n',
        ),
        (
            '{\n  "env": {\n    // why\n    "BASE_URL": "http://g"\n  }\n}\n',
            '{\n  "env": {\n    // why\n  }\n}\n',
        ),
        ('{\n  "a": 1,\n  "env": {\n    "BASE_URL": "http://g"\n  }\n}\n', '{\n  "a": 1\n}\n'),
        ('{"a": 1, "env": {"BASE_URL": "http://g"}}', '{"a": 1}'),
        ('{"env": {"BASE_URL": "http://g"}, "a": 1}', '{"a": 1}'),
        ('{"other": 1}', '{"other": 1}'),
    ],
)
def test_a_member_is_taken_out_of_whatever_stands_there_by_now(text: str, expected: str) -> None:
    """With the table that was made for it, unless somebody put something else into it."""
    assert drop(text, PATH, 2) == expected


def test_a_table_of_the_users_own_stays() -> None:
    """It was there before, so it is there afterwards, empty or not."""
    assert drop('{"env": {"BASE_URL": "http://g"}}', PATH, 1) == '{"env": {}}'
