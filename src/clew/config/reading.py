"""Decides, value by value, whether a tree of plain values fits the schema, and finds every fault.

`msgspec.convert` stops at the first fault; a person who edits a file wants all of them. What is
faulty is left out of the result (or, where it cannot be, stands as an empty value), so that the
rules of `config.checks` still see the rest, at its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

from clew.config.schema import Config
from clew.config.units import read_duration, read_size

DURATION_KEYS: Final = frozenset(
    {
        "sessions.resume_max_age",
        "sessions.idle_after",
        "sessions.retention",
        "upstream.affinity.ttl",
        "journal.retention",
        "capture.retention",
    }
)
SIZE_KEYS: Final = frozenset({"server.max_body_bytes", "store.max_bytes", "capture.max_bytes"})
NOT_OF_THE_FILE: Final = frozenset({"data"})

_READERS: Final[tuple[tuple[frozenset[str], Callable[[object], float | int]], ...]] = (
    (DURATION_KEYS, read_duration),
    (SIZE_KEYS, read_size),
)

Faults = list[tuple[str, str]]
"""(key, text) of each fault, in the order of the tree."""


class _Left:
    """Marks a value that was faulty and is left out."""


_LEFT_OUT: Final = _Left()


def schema_type() -> inspect.StructType:
    """The whole schema as msgspec describes it."""
    found = inspect.type_info(Config)
    assert isinstance(found, inspect.StructType)
    return found


def known_keys() -> tuple[str, ...]:
    """Every key of the file as ``section.key``, lists of tables without an index."""
    return tuple(_known(schema_type(), ""))


def type_at(key: str) -> inspect.Type | None:
    """The type of a dotted key (no index); None when there is no such key."""
    found: inspect.Type = schema_type()
    for name in key.split("."):
        table = _table_of(found)
        field = None if table is None else _field(table, name)
        if field is None:
            return None
        found = field.type
    return found


def is_text(key: str) -> bool:
    """Whether the key's value is text as it stands: text, one of several words, or with a unit."""
    if key in DURATION_KEYS or key in SIZE_KEYS:
        return True
    return isinstance(type_at(key), inspect.StrType | inspect.LiteralType)


def read_tree(tree: Mapping[str, object]) -> tuple[dict[str, Any], Faults]:
    """What of the tree fits the schema, units read, and what does not."""
    faults: Faults = []
    found = _read_table(schema_type(), tree, "", faults)
    return (found if isinstance(found, dict) else {}), faults


def plain_key(key: str) -> str:
    """``upstream[0].url`` without its indices: ``upstream.url``."""
    return "".join(part.rpartition("]")[2] for part in key.split("["))


def _known(table: inspect.StructType, prefix: str) -> list[str]:
    keys: list[str] = []
    for field in table.fields:
        key = f"{prefix}{field.encode_name}"
        if key in NOT_OF_THE_FILE:
            continue
        inner = _table_of(field.type)
        keys.extend([key] if inner is None else _known(inner, f"{key}."))
    return keys


def _table_of(found: inspect.Type) -> inspect.StructType | None:
    if isinstance(found, inspect.VarTupleType):
        found = found.item_type
    return found if isinstance(found, inspect.StructType) else None


def _field(table: inspect.StructType, name: str) -> inspect.Field | None:
    return next((field for field in table.fields if field.encode_name == name), None)


def _read(kind: inspect.Type, value: object, key: str, faults: Faults) -> object:
    if isinstance(kind, inspect.StructType):
        return _read_table(kind, value, key, faults)
    if isinstance(kind, inspect.VarTupleType):
        return _read_list(kind, value, key, faults)
    try:
        return _read_leaf(kind, value, plain_key(key))
    except ValueError as error:
        faults.append((key, str(error)))
        return _LEFT_OUT


def _read_table(kind: inspect.StructType, value: object, key: str, faults: Faults) -> object:
    if not isinstance(value, Mapping):
        faults.append((key, f"must be a table; found {_name_of(value)}"))
        return _LEFT_OUT
    found: dict[str, Any] = {}
    for name, inner in value.items():
        field = None if not key and name in NOT_OF_THE_FILE else _field(kind, name)
        path = f"{key}.{name}" if key else str(name)
        if field is None:
            faults.append((path, _unknown_text(kind, str(name), key)))
            continue
        read = _read(field.type, inner, path, faults)
        if read is not _LEFT_OUT:
            found[name] = read
    for field in kind.fields:
        if field.required and field.encode_name not in found:
            found[field.encode_name] = _empty(field.type)
            if field.encode_name not in value:
                faults.append((f"{key}.{field.encode_name}", "is missing"))
    return found


def _empty(kind: inspect.Type) -> object:
    """A value that stands where a faulty one cannot be left out without moving its neighbours."""
    if isinstance(kind, inspect.StructType):
        return {f.encode_name: _empty(f.type) for f in kind.fields if f.required}
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    return 0.0 if isinstance(kind, inspect.FloatType) else ""


def _read_list(kind: inspect.VarTupleType, value: object, key: str, faults: Faults) -> object:
    if not isinstance(value, list | tuple):
        inner = _table_of(kind)
        like = f"a list of tables ([[{key}]])" if inner else 'a list, such as ["a", "b"]'
        faults.append((key, f"must be {like}; found {_name_of(value)}"))
        return _LEFT_OUT
    read = [_read(kind.item_type, item, f"{key}[{n}]", faults) for n, item in enumerate(value)]
    return [_empty(kind.item_type) if item is _LEFT_OUT else item for item in read]


def _read_leaf(kind: inspect.Type, value: object, key: str) -> object:
    for keys, reader in _READERS:
        if key in keys:
            return _bounded(kind, reader(value))
    if isinstance(kind, inspect.LiteralType):
        return _one_of(kind, value)
    expected, types = _EXPECTED[type(kind)]
    # A bool is an int to Python and is not one to a person.
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise ValueError(f"must be {expected}; found {_name_of(value)}")
    return _bounded(kind, value)


_EXPECTED: Final[dict[type, tuple[str, Any]]] = {
    inspect.StrType: ('text in quotes, such as "a"', str),
    inspect.IntType: ("a whole number", int),
    inspect.FloatType: ("a number", int | float),
    inspect.BoolType: ("true or false", bool),
}


def _bounded(kind: inspect.Type, value: object) -> object:
    low = kind.ge if isinstance(kind, inspect.IntType | inspect.FloatType) else None
    if low is not None and isinstance(value, int | float) and value < low:
        raise ValueError(f"must be at least {low}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("is too large")
    return value


def _one_of(kind: inspect.LiteralType, value: object) -> object:
    if isinstance(value, str) and value in kind.values:
        return value
    words = ", ".join(f'"{word}"' for word in kind.values)
    found = f'"{value:.60}"' if isinstance(value, str) else _name_of(value)
    raise ValueError(f"must be one of {words}; found {found}")


def _name_of(value: object) -> str:
    names = (
        (bool, "true or false"),
        (str, "text"),
        (int, "a whole number"),
        (float, "a number with a fraction"),
        (Mapping, "a table"),
        (list | tuple, "a list"),
    )
    return next((name for type_, name in names if isinstance(value, type_)), "a date or time")


def _unknown_text(table: inspect.StructType, name: str, prefix: str) -> str:
    if not prefix and name in NOT_OF_THE_FILE:
        return "is not a key of the file; use --data or CLEW_DATA"
    return f"unknown key; the nearest known key is {_nearest(table, name, prefix)}"


def _nearest(table: inspect.StructType, name: str, prefix: str) -> str:
    """A sibling that looks alike, the same name in another section, or the most alike of all."""
    siblings = [field.encode_name for field in table.fields]
    plain = plain_key(prefix)
    lead = f"{plain}." if plain else ""
    close = difflib.get_close_matches(name.lower(), siblings, 1, 0.6)
    if close:
        return f"{lead}{close[0]}"
    elsewhere = [key for key in known_keys() if key.rpartition(".")[2] == name.lower()]
    if elsewhere:
        return elsewhere[0]
    return difflib.get_close_matches(f"{lead}{name}".lower(), known_keys(), 1, 0.0)[0]


def build(values: Mapping[str, object]) -> Config:
    """The frozen configuration of values that fit the schema."""
    return msgspec.convert(dict(values), Config)
