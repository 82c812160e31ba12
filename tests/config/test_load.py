"""How file, environment and flags become one configuration, and how faults are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.config.load import ConfigError, load
from clew.config.reading import DURATION_KEYS, SIZE_KEYS, known_keys
from clew.config.schema import Config
from clew.config.show import show


def faults_of(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """The lines a file is answered with; none when it is good."""
    path = tmp_path / "clew.toml"
    path.write_text(text)
    try:
        load(path, environ or {}, {})
    except ConfigError as error:
        return [str(fault).replace(str(path), "clew.toml") for fault in error.faults]
    return []


def told(
    environ: dict[str, str] | None = None, overrides: dict[str, object] | None = None
) -> list[str]:
    """The lines an environment or flags are answered with."""
    try:
        load(None, environ or {}, overrides or {})
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return []


def test_no_file_no_environment_no_flags_are_the_defaults(tmp_path: Path) -> None:
    """Clew starts without any configuration."""
    found = load(None, {}, {"data": str(tmp_path)})

    assert found == Config(data=str(tmp_path))


def test_environment_wins_over_the_file_and_flags_over_both(tmp_path: Path) -> None:
    """The nearer to the command, the stronger."""
    path = tmp_path / "clew.toml"
    path.write_text('[server]\nlisten = "127.0.0.1:1"\nworkers = 2\ndrain_s = 5\n')
    environ = {"CLEW_SERVER__LISTEN": "127.0.0.1:2", "CLEW_SERVER__WORKERS": "3"}

    found = load(path, environ, {"server.listen": "127.0.0.1:3", "server.workers": None})

    assert (found.server.listen, found.server.workers, found.server.drain_s) == (
        "127.0.0.1:3",
        3,
        5,
    )


def test_lists_and_tables_in_the_environment_are_toml() -> None:
    """What has no plain text form is written as in the file."""
    environ = {
        "CLEW_SESSIONS__CLIENT": '[{name = "mytool", session = "x-mytool-session"}]',
        "CLEW_UPSTREAM": '[{name = "a", url = "http://127.0.0.1:1", paths = ["/v1/*"]}]',
        "CLEW_SESSIONS__RETENTION": "30d",
        "CLEW_SESSIONS__CASCADE_CLOSE": "true",
    }

    found = load(None, environ, {})

    assert found.sessions.client[0].name == "mytool"
    assert found.upstream[0].paths == ("/v1/*",)
    assert found.sessions.retention == 30 * 86_400
    assert found.sessions.cascade_close is True


def test_names_with_single_underscores_are_not_keys() -> None:
    """Secrets and tokens have their own names."""
    assert load(None, {"CLEW_SECRET": "x", "CLEW_TOKEN": "y"}, {}).auth.mode == "none"


def test_a_variable_cannot_smuggle_further_keys() -> None:
    """A line break in a value does not begin another key."""
    with pytest.raises(ConfigError, match="whole number"):
        load(None, {"CLEW_SERVER__WORKERS": "1\nlisten = 2"}, {})


def test_the_data_directory_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag wins over the variable; a relative path is relative to where Clew starts."""
    monkeypatch.chdir(tmp_path)

    assert load(None, {"CLEW_DATA": "/elsewhere"}, {"data": "here"}).data == str(tmp_path / "here")
    assert load(None, {"CLEW_DATA": "/elsewhere"}, {}).data == "/elsewhere"


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """Nobody mends a file one restart at a time."""
    found = faults_of(
        """
        [server]
        lissten = "127.0.0.1:1"
        workers = "two"
        [sever]
        [auth]
        mode = "kyes"
        [sessions]
        resume_max_age = "5 fortnights"
        """,
        tmp_path,
    )

    assert found == [
        "clew.toml: server.lissten: unknown key; the nearest known key is server.listen",
        "clew.toml: server.workers: must be a whole number; found text",
        "clew.toml: sever: unknown key; the nearest known key is server",
        'clew.toml: auth.mode: must be one of "credential", "keys", "none"; found "kyes"',
        (
            "clew.toml: sessions.resume_max_age: must be a duration such as "
            '"30s", "45m", "24h" or "90d"; found \'5 fortnights\''
        ),
    ]


def test_a_key_of_another_section_is_named_with_its_section(tmp_path: Path) -> None:
    """A right key in the wrong table is told where it belongs."""
    assert "claims.lease_s" in faults_of("[server]\nlease_s = 3\n", tmp_path)[0]


def test_a_fault_of_the_environment_names_the_variable() -> None:
    """The person looks where the fault is."""
    with pytest.raises(ConfigError, match=r"^CLEW_JOURNAL__SNYC: journal.snyc: .*journal.sync$"):
        load(None, {"CLEW_JOURNAL__SNYC": "always"}, {})


def test_a_fault_of_a_flag_names_the_flag() -> None:
    """The person looks where the fault is."""
    with pytest.raises(ConfigError, match=r"^--listen: server.listen: must be HOST:PORT"):
        load(None, {}, {"server.listen": "nowhere"})


def test_elements_keep_their_place_when_one_is_faulty(tmp_path: Path) -> None:
    """A fault in the first table does not renumber the second."""
    found = faults_of(
        '[[upstream]]\nurl = "http://a"\n[[upstream]]\nname = "b"\nurl = "ftp://b"\n', tmp_path
    )

    assert [line.split(": ")[1] for line in found] == ["upstream[0].name", "upstream[1].url"]


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    """No trace, no errno."""
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: no such file"):
        load(tmp_path / "nothing.toml", {}, {})


def test_broken_toml_names_line_and_column(tmp_path: Path) -> None:
    """The parser's own place is passed on."""
    assert "line 2" in faults_of("[server]\nlisten = \n", tmp_path)[0]


def test_data_is_not_a_key_of_the_file(tmp_path: Path) -> None:
    """A data directory cannot be moved by the file that lies in it."""
    assert "use --data" in faults_of('data = "/x"\n', tmp_path)[0]


def test_the_value_of_an_unknown_key_is_not_repeated(tmp_path: Path) -> None:
    """A key pasted under a wrong name stays out of the log."""
    found = faults_of(
        '[[upstream]]\nname = "a"\nurl = "http://a"\napi_key = "sk-canary"\n', tmp_path
    )

    assert "api_key" in found[0]
    assert "canary" not in "".join(found)


def test_control_characters_in_a_fault_are_escaped(tmp_path: Path) -> None:
    """A line stays one line."""
    found = faults_of('[server]\n"a\\nb\\u001b" = 1\n', tmp_path)

    assert "\n" not in found[0]
    assert "\x1b" not in found[0]


def test_every_key_can_be_set_by_environment() -> None:
    """Each known key has a variable, and the variable is understood."""
    for key in known_keys():
        if key.partition(".")[0] in ("upstream", "limit", "budget") or "client" in key:
            continue
        name = "CLEW_" + key.upper().replace(".", "__")

        assert not any("unknown key" in line for line in told(environ={name: "\x00"})), key


def test_units_belong_to_keys_of_the_schema() -> None:
    """No unit is promised for a key that does not exist."""
    assert set(known_keys()) >= DURATION_KEYS | SIZE_KEYS


def test_what_is_shown_loads_back(tmp_path: Path) -> None:
    """`clew config show` prints a file that means the same."""
    path = tmp_path / "clew.toml"
    path.write_text(
        '[[upstream]]\nname = "a\\u007f"\nurl = "http://a"\n'.replace("\\u007f", "")
        + '[[sessions.client]]\nname = "t"\nsession = "x-t"\n[sessions]\nidle_after = "90s"\n'
    )
    first = load(path, {}, {"data": str(tmp_path)})
    path.write_text(show(first))

    assert load(path, {}, {"data": str(tmp_path)}) == first


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(max_examples=150)
@given(st.sampled_from(known_keys()), PLAIN)
def test_any_value_is_accepted_or_refused_in_words(key: str, value: object) -> None:
    """Nothing but a configuration or a ConfigError comes out."""
    assert all(line for line in told(overrides={key: value}))
