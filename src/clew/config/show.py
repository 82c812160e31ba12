"""Shows the effective configuration as the file would have it, secrets masked.

A configuration holds no secret itself, only names of variables and files; but a url may carry a
password, and that is replaced by ``***``.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from clew.config.addresses import masked_url
from clew.config.reading import DURATION_KEYS, NOT_OF_THE_FILE, SIZE_KEYS, plain_key
from clew.config.schema import Config
from clew.config.units import show_duration, show_size


def shown(config: Config) -> dict[str, Any]:
    """The configuration as plain values with units written out and passwords masked."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    return {name: _masked(value, name) for name, value in tree.items()}


def show(config: Config) -> str:
    """The configuration as TOML that `load` reads back, masked values aside."""
    tree = shown(config)
    lines = [f"# data directory: {_text(tree.pop('data'))}"]
    for name, value in tree.items():
        if isinstance(value, dict):
            lines += _table(name, value)
        else:
            for item in value:
                lines += _table(name, item, is_item=True)
    return "\n".join(lines) + "\n"


def _masked(value: Any, key: str) -> Any:
    plain = plain_key(key)
    if isinstance(value, dict):
        return {name: _masked(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner, key) for inner in value]
    if isinstance(value, str) and plain not in NOT_OF_THE_FILE:
        return masked_url(value)
    if plain in DURATION_KEYS:
        return show_duration(value)
    if plain in SIZE_KEYS and plain != "server.max_body_bytes":
        return show_size(value)
    return value


def _table(name: str, table: dict[str, Any], *, is_item: bool = False) -> list[str]:
    lines = ["", f"[[{name}]]" if is_item else f"[{name}]"]
    below: list[str] = []
    for key, value in table.items():
        path = f"{name}.{key}"
        if isinstance(value, dict):
            below += _table(path, value)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for item in value:
                below += _table(path, item, is_item=True)
        else:
            lines.append(f"{key} = {_value(value)}")
    return lines + below


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, apart from DEL, which TOML wants escaped and JSON does not.
    return json.dumps(text).replace("\x7f", "\\u007f")
