"""`clew keys` against the real admin API, with a keeper in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.web.conftest import TOKEN, House
from tests.web.serving import served

from clew.cli.main import cli

Keys = Callable[..., Result]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An installation without keys."""
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture
def keys(house: House) -> Iterator[Keys]:
    """Run a command of the group."""
    with served(house.app) as address:

        def run(*words: str) -> Result:
            options = ["--admin", address, "--token", TOKEN]
            return CliRunner().invoke(cli, ["keys", *words, *options])

        yield run


def test_the_key_is_alone_on_standard_output(keys: Keys) -> None:
    """Whose it is, and that it is shown once, stands on standard error."""
    done = keys("create", "--principal", "alice", "--expires", "90d")

    assert done.exit_code == 0
    assert done.stdout.startswith("ck_")
    assert done.stdout.count("\n") == 1
    assert "for alice, until " in done.stderr
    assert "shown this once" in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_json_has_everything(keys: Keys) -> None:
    """The API's own answer."""
    words = ("--team", "red", "--project", "web", "--name", "n", "--tag", "a=b=c", "--tag", "d=")
    made = json.loads(keys("create", "--principal", "alice", *words, "--json").stdout)

    assert made["key"].startswith("ck_")
    assert (made["team"], made["project"], made["name"]) == ("red", "web", "n")
    assert made["tags"] == {"a": "b=c", "d": ""}


def test_a_list_shows_no_key(keys: Keys) -> None:
    """Its id, whose it is, and its state."""
    key = keys("create", "--principal", "alice").stdout.strip()
    keys("create", "--principal", "bob")

    listed = keys("list", "--principal", "alice")

    assert key not in listed.stdout
    assert "alice" in listed.stdout
    assert "active" in listed.stdout
    assert "bob" not in listed.stdout


def test_an_empty_list_says_what_to_do(keys: Keys) -> None:
    """Instead of a table without rows."""
    assert "clew keys create" in keys("list").stdout
    assert json.loads(keys("list", "--json").stdout) == []


def test_a_rotation_prints_the_new_key(keys: Keys) -> None:
    """The old one stays in the list, in its grace."""
    made = json.loads(keys("create", "--principal", "alice", "--json").stdout)

    turned = keys("rotate", made["id"], "--grace", "1h")

    assert turned.stdout.startswith("ck_")
    assert turned.stdout.strip() != made["key"]
    states = {item["id"]: item["state"] for item in json.loads(keys("list", "--json").stdout)}
    assert states.pop(made["id"]) == "grace"
    assert list(states.values()) == ["active"]


def test_a_revocation_says_so(keys: Keys) -> None:
    """By id and principal."""
    made = json.loads(keys("create", "--principal", "alice", "--json").stdout)

    assert keys("revoke", made["id"]).stdout == f"{made['id']} of alice is revoked\n"
    assert json.loads(keys("revoke", made["id"], "--json").stdout)["state"] == "revoked"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("create",), 2, "--principal"),
        (("create", "--principal", "a", "--tag", "novalue"), 2, "no K=V"),
        (("create", "--principal", "a b"), 1, "principal"),
        (("create", "--principal", "a", "--expires", "soon"), 1, "expires"),
        (("create", "--principal", "a", "--expires", "2020-01-01"), 1, "future"),
        (("revoke", "key_none"), 1, "no key has this id"),
        (("rotate", "key_none", "--grace", "long"), 1, "grace"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    keys: Keys, words: tuple[str, ...], status: int, said: str
) -> None:
    """And nothing is on standard output."""
    done = keys(*words)

    assert (done.exit_code, done.stdout) == (status, "")
    assert said in done.stderr.strip().splitlines()[-1]


def test_a_gateway_that_did_not_confirm_is_named(
    house: House, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is done all the same."""

    async def confirm() -> list[str]:
        return ["gateway gateway-1"]

    monkeypatch.setattr(house.keeper.server, "confirm", confirm)

    done = keys("create", "--principal", "alice")

    assert done.exit_code == 0
    assert "not confirmed yet by gateway gateway-1" in done.stderr
