"""What the views print, from an admin port with known sessions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import TOKEN, AdminServer, Run, record, session

from clew.cli.admin import AdminPort, Place, find_place
from clew.cli.tail import Follower
from clew.config.schema import Config


@pytest.fixture
def family(admin: AdminServer) -> AdminServer:
    """A root with two calls and a subagent of its own."""
    child = {"parent_id": "cs_root-1", "root_id": "cs_root-1", "depth": 1, "cost_usd": None}
    admin.world.sessions = [session("root-1"), session("child-1", **child)]
    admin.world.records["cs_root-1"] = [record("root-1", 1), record("root-1", 2)]
    return admin


def here(admin: AdminServer) -> list[str]:
    """The options that lead to the test's port."""
    return ["--admin", admin.url, "--token", TOKEN]


def test_sessions_are_listed_with_human_numbers(family: AdminServer, run: Run) -> None:
    """Tokens in thousands, money in dollars, unknown money as a dash."""
    lines = run("sessions", *here(family)).stdout.splitlines()

    assert " ".join(lines[0].split()) == (
        "SESSION CLIENT SOURCE STATE SEEN CALLS IN CACHED OUT COST"
    )
    assert "24.4k" in lines[1]
    assert "50%" in lines[1]
    assert lines[1].endswith("$0.0123")
    assert lines[2].endswith("–")
    assert all(len(line) <= 100 for line in lines)


def test_a_long_id_is_cut_at_its_end(admin: AdminServer, run: Run) -> None:
    """What is left is a prefix, and a prefix names a session."""
    admin.world.sessions = [session("a" * 300, client="tool/" + "b" * 60)]

    lines = run("sessions", *here(admin)).stdout.splitlines()

    assert all(len(line) <= 100 for line in lines)
    assert lines[1].startswith("aaaaaaaa")


def test_no_sessions_yet_says_how_to_begin(
    admin: AdminServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty list is not an empty screen; a gateway elsewhere has an address of its own."""
    assert "point an agent at that gateway" in run("sessions", *here(admin)).stdout

    monkeypatch.setenv("CLEW_ADMIN__LISTEN", admin.url.removeprefix("http://"))
    said = run("sessions", "--token", TOKEN).stdout
    assert "point an agent at http://127.0.0.1:2539" in said


def test_a_filter_that_fits_nothing_says_so(admin: AdminServer, run: Run) -> None:
    """A first run and a wrong filter are told apart."""
    assert run("sessions", "-q", "x", *here(admin)).stdout == "no session fits\n"


def test_filters_reach_the_api(admin: AdminServer, run: Run) -> None:
    """A duration becomes a time; what was not asked for is not sent."""
    run("sessions", "-q", "x", "--since", "2026-11-01T00:00:00Z", "--state", "open", *here(admin))

    assert admin.world.queries[-1] == {
        "q": "x",
        "since": "2026-11-01T00:00:00Z",
        "state": "open",
        "sort": "last_seen",
        "limit": "50",
    }


def test_control_characters_are_printed_escaped(admin: AdminServer, run: Run) -> None:
    """A session id cannot drive the terminal."""
    admin.world.sessions = [session("a\x1b[2Jb\u202e", client="c\nd")]
    admin.world.records["cs_a\x1b[2Jb\u202e"] = [record("a\x1b[2Jb\u202e", 1, model="m\r")]

    for command in (["sessions"], ["show", "cs_a"], ["tree", "cs_a"], ["tail", "--no-follow"]):
        for extra in ([], ["--json"]):
            found = run(*command, *extra, *here(admin)).stdout
            assert "\\x1b[2Jb\\u202e"[:3] in found or "\\u001b" in found
            assert not set(found) & {"\x1b", "\u202e", "\r"}


def test_show_draws_calls_as_bars(family: AdminServer, run: Run) -> None:
    """The cached part of the input is full, the rest light."""
    found = run("show", "root-1", *here(family)).stdout

    assert "claude-cli/2.1.330 (by claude-code)" in found
    assert "24.4k in (50% cached), 310 out" in found
    assert found.count("█" * 14 + "░" * 14) == 2
    assert "+1m" in found
    assert all(len(line) <= 100 for line in found.splitlines())


def test_show_marks_idle_time(family: AdminServer, run: Run) -> None:
    """A gap over idle_after is a rule across the drawing."""
    later = record("root-1", 3) | {"received_at": "2026-11-21T12:07:00Z"}
    family.world.records["cs_root-1"].append(later)

    assert "─── idle 2h5m ─" in run("show", "root-1", *here(family)).stdout


def test_tree_is_drawn_from_the_root_with_totals(family: AdminServer, run: Run) -> None:
    """Any session of a tree leads to the whole of it."""
    lines = run("tree", "child-1", *here(family)).stdout.splitlines()

    assert lines[1].startswith("root-1")
    assert lines[2].startswith("└─ child-1")
    assert lines[3].split()[:4] == ["total", "4", "48.8k", "50%"]


def test_a_unique_prefix_names_a_session(family: AdminServer, run: Run) -> None:
    """Of Clew's id and of the client's."""
    for prefix in ("ro", "cs_roo"):
        found = json.loads(run("show", prefix, "--json", *here(family)).stdout)
        assert found["session"]["session_id"] == "root-1"


def test_an_ambiguous_prefix_lists_the_candidates(family: AdminServer, run: Run) -> None:
    """The person sees what to type more of."""
    result = run("show", "cs_", *here(family))

    assert result.exit_code == 1
    assert "root-1, child-1" in result.stderr


def test_an_unknown_id_is_one_line(family: AdminServer, run: Run) -> None:
    """Status 1, nothing on standard output."""
    result = run("tree", "nobody\x1b", *here(family))

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "clew: no session is called nobody\\x1b or begins so\n"


def test_usage_sums_by_a_property(family: AdminServer, run: Run) -> None:
    """The heading names the property."""
    lines = run("usage", "--by", "session", *here(family)).stdout.splitlines()

    assert lines[0].startswith("SESSION")
    assert family.world.queries[-1] == {"by": "session"}
    assert "24.4k" in lines[1]


def test_every_view_prints_json(family: AdminServer, run: Run) -> None:
    """For programs, the API's own values."""
    for command in (["sessions"], ["show", "root-1"], ["tree", "root-1"], ["usage"]):
        assert json.loads(run(*command, "--json", *here(family)).stdout)


def test_tail_prints_the_past_and_then_only_what_is_new(family: AdminServer) -> None:
    """No call twice, none missed."""
    with AdminPort(Place(family.url, TOKEN)) as port:
        follower = Follower(port)
        assert [r["request_id"] for r in follower.poll()] == ["rroot-11", "rroot-12"]
        assert follower.poll() == []
        family.world.records["cs_root-1"].append(record("root-1", 3))
        family.world.sessions[0]["requests"] = 3
        assert [r["request_id"] for r in follower.poll()] == ["rroot-13"]


def test_tail_ends_after_the_past_when_told(family: AdminServer, run: Run) -> None:
    """`--lines` bounds what is printed."""
    found = run("tail", "--no-follow", "--lines", "1", *here(family)).stdout.splitlines()

    assert len(found) == 1
    assert "claude-sonnet-4-5" in found[0]


def test_no_gateway_is_one_clear_line(run: Run) -> None:
    """Every view says what to do, with status 1."""
    for command in (["sessions"], ["show", "x"], ["tree", "x"], ["usage"], ["tail"]):
        result = run(*command, "--admin", "http://127.0.0.1:9")
        assert result.exit_code == 1
        assert result.stderr == (
            "clew: no gateway answers at http://127.0.0.1:9; start one with `clew serve`\n"
        )


def test_a_wrong_token_is_told_without_repeating_it(admin: AdminServer, run: Run) -> None:
    """The token is a secret."""
    result = run("sessions", "--admin", admin.url, "--token", "secret-canary")

    assert result.exit_code == 1
    assert "refused the token" in result.stderr
    assert "canary" not in result.stderr


def test_the_token_is_found_in_the_data_directory(
    admin: AdminServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody types a token on the machine the gateway runs on."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("CLEW_ADMIN__LISTEN", admin.url.removeprefix("http://"))

    assert run("sessions").exit_code == 0
    assert admin.world.tokens_seen == [TOKEN]


def test_the_kept_token_goes_to_no_other_machine(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address on the command line does not get this machine's token."""
    (tmp_path / "admin.token").write_text(TOKEN)
    config = Config(data=str(tmp_path))

    assert find_place(config, "http://gateway.example:2540", "", {}).token == ""
    assert find_place(config, "127.0.0.1:9", "", {}) == Place("http://127.0.0.1:9", TOKEN)
    assert find_place(config, "", "", {"CLEW_TOKEN": "mine"}).token == "mine"


def test_a_proxy_of_the_environment_does_not_see_the_token(
    family: AdminServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admin port is called directly."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    assert run("sessions", *here(family)).exit_code == 0


def test_a_lagging_store_is_told_on_standard_error(family: AdminServer, run: Run) -> None:
    """Figures that may be behind are not shown as if they were not."""
    family.world.is_stale = True

    assert "may lag behind" in run("sessions", *here(family)).stderr
