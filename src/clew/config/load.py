"""Decides how file, environment and flags become one configuration. Flags win, then environment.

Every key of the file is also an environment variable: ``CLEW_SECTION__KEY``, two underscores
between the parts. Text is taken as it stands; lists and tables are written as in TOML. The lists of
tables that have no section are ``CLEW_UPSTREAM``, ``CLEW_LIMIT`` and ``CLEW_BUDGET``. Other names
with single underscores (``CLEW_SECRET``, ``CLEW_TOKEN``) are no keys. A table of a later layer is
merged into the earlier one, any other value replaces it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import platformdirs

from clew.config.checks import find_faults
from clew.config.faults import ConfigError, ConfigFault
from clew.config.reading import build, is_text, known_keys, plain_key, read_tree, type_at
from clew.config.schema import Config

__all__ = ["FLAGS", "ConfigError", "ConfigFault", "data_directory", "load"]

FLAGS: Final = {
    "server.listen": "--listen",
    "server.workers": "--workers",
    "admin.listen": "--admin",
    "upstream": "--upstream",
    "data": "--data",
}
"""The flag that sets each key; named in faults."""

_PREFIX: Final = "CLEW_"
_WHOLE_LISTS: Final = {"CLEW_UPSTREAM": "upstream", "CLEW_LIMIT": "limit", "CLEW_BUDGET": "budget"}
_FILE_BYTES: Final = 4 * 1024 * 1024
"""No configuration is this large; a mistaken path to a device or a dump is refused early."""


class _Layers:
    """The merged tree, and which layer wrote each key."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.faults: list[ConfigFault] = []

    def add(self, keys: list[str], value: object, origin: str) -> None:
        """Put one value at its place; what was not a table there is replaced."""
        table = self.tree
        for name in keys[:-1]:
            inner = table.get(name)
            if not isinstance(inner, dict):
                inner = table[name] = {}
            table = inner
        table[keys[-1]] = value
        self.origins[".".join(keys)] = origin

    def fault(self, origin: str, key: str, text: str) -> None:
        """Note a fault of one layer."""
        self.faults.append(ConfigFault(origin, key, text))

    def origin_of(self, key: str) -> str:
        """The layer that wrote this key, or the table it is in, or anything in it."""
        parts = key.replace("[", ".[").split(".")
        for end in range(len(parts), 0, -1):
            found = self.origins.get(".".join(parts[:end]))
            if found:
                return found
        below = (o for k, o in self.origins.items() if k.startswith(f"{key}."))
        return next(below, "configuration")


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Config:
    """The checked configuration of one file (or none), the environment and the flags.

    ``overrides`` maps dotted keys (``server.listen``, also ``data``) to plain values as TOML gives
    them; a value of None is a flag that was not given.

    Raises ConfigError with every fault that was found.
    """
    layers = _Layers()
    _add_file(layers, path)
    _add_environment(layers, environ)
    _add_overrides(layers, overrides)
    layers.tree.pop("data", None)
    values, found = read_tree(layers.tree)
    faults = [*layers.faults, *(ConfigFault(layers.origin_of(k), k, text) for k, text in found)]
    values["data"] = str(data_directory(environ, overrides))
    config = build(values)
    faulty = [fault.key for fault in faults]
    faults += [
        ConfigFault(_first_origin(layers, finding.keys), finding.keys[0], finding.text)
        for finding in find_faults(config, environ)
        if not _depends_on(finding.keys, faulty)
    ]
    if faults:
        raise ConfigError(faults)
    return config


def data_directory(environ: Mapping[str, str], overrides: Mapping[str, object]) -> Path:
    """``--data``, else ``CLEW_DATA``, else the platform's user-data directory; always absolute."""
    chosen = overrides.get("data") or environ.get("CLEW_DATA") or ""
    if not chosen:
        return Path(platformdirs.user_data_dir("clew", appauthor=False))
    return Path(str(chosen)).expanduser().absolute()


def _add_file(layers: _Layers, path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES + 1)
    except OSError as error:
        layers.fault(str(path), "", f"cannot be read: {(error.strerror or 'unknown').lower()}")
        return
    if len(raw) > _FILE_BYTES:
        layers.fault(str(path), "", "is over 4 MiB; this is no configuration file")
        return
    try:
        tree = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        layers.fault(str(path), "", f"is not valid TOML: {error}")
        return
    except RecursionError:
        layers.fault(str(path), "", "is not valid TOML: nested too deeply")
        return
    if "data" in tree:
        layers.fault(str(path), "data", "is not a key of the file; use --data or CLEW_DATA")
    for keys, value in _leaves(tree):
        layers.add(keys, value, str(path))


def _add_environment(layers: _Layers, environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if name in _WHOLE_LISTS:
            keys = [_WHOLE_LISTS[name]]
        elif name.startswith(_PREFIX) and "__" in name:
            keys = name.removeprefix(_PREFIX).lower().split("__")
        else:
            continue
        if not all(keys):
            layers.fault(name, "", "must be CLEW_SECTION__KEY")
            continue
        value = _read_variable(".".join(keys), environ[name])
        for inner, leaf in _leaves(value, keys) if isinstance(value, dict) else [(keys, value)]:
            layers.add(inner, leaf, name)


def _read_variable(key: str, text: str) -> object:
    """Text where the key wants text; else what TOML makes of it, or the text, which is a fault."""
    if type_at(key) is None or is_text(key):
        return text
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return found["value"] if found.keys() == {"value"} else text


def _add_overrides(layers: _Layers, overrides: Mapping[str, object]) -> None:
    known = {*known_keys(), *FLAGS}
    for key, value in overrides.items():
        if value is None:
            continue
        if key not in known:
            raise KeyError(key)
        layers.add(key.split("."), value, FLAGS.get(key, f"flag for {key}"))


def _leaves(tree: Mapping[str, Any], lead: Iterable[str] = ()) -> Iterator[tuple[list[str], Any]]:
    """Every value that is no table, with its path; an empty table is a value of its own."""
    for name, value in tree.items():
        keys = [*lead, name]
        if isinstance(value, dict) and value:
            yield from _leaves(value, keys)
        else:
            yield keys, value


def _first_origin(layers: _Layers, keys: Iterable[str]) -> str:
    """The layer of the first key that was written anywhere."""
    origins = (layers.origin_of(key) for key in keys)
    return next((origin for origin in origins if origin != "configuration"), "configuration")


def _depends_on(keys: Iterable[str], faulty: Iterable[str]) -> bool:
    """Whether a rule looked at something that is not what was written."""
    pairs = [(f"{key}.", f"{bad}.") for key in keys for bad in faulty]
    plain = [(plain_key(key), plain_key(bad)) for key, bad in pairs if "[" not in key]
    indexed = [(key.replace("[", "."), bad.replace("[", ".")) for key, bad in pairs]
    return any(a.startswith(b) or b.startswith(a) for a, b in (*plain, *indexed))
