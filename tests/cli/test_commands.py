"""The commands that need no running gateway."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.cli.conftest import Run
from tests.store.postgresql import Server

import clew.supervisor.run
from clew import __version__, command
from clew.cli.main import cli
from clew.cli.serve import upstream_tables
from clew.config.schema import Config

LATER = "not available in this version of Clew"
CAPTURES = Path(__file__).parents[2] / "conformance" / "captures"


def every_command() -> list[tuple[str, click.Command]]:
    """All commands, those of groups by their whole name."""
    found: list[tuple[str, click.Command]] = []
    for name, one in cli.commands.items():
        inner = getattr(one, "commands", None)
        if inner is None:
            found.append((name, one))
        else:
            found += [(f"{name} {sub}", each) for sub, each in inner.items()]
    return found


@pytest.mark.parametrize("name", [name for name, _ in every_command()])
def test_every_command_has_help_with_examples(name: str, run: Run) -> None:
    """Nobody needs the manual for the first try."""
    result = run(*name.split(), "--help")

    assert result.exit_code == 0
    assert f"  clew {name}" in result.stdout
    assert "Examples:" in result.stdout


def test_the_version_is_printed(run: Run) -> None:
    """Name and version, nothing else."""
    assert run("--version").stdout == f"clew {__version__}\n"


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library alone has no command; it says so instead of failing in an import."""
    monkeypatch.setattr(command, "NEEDED", ("click", "a_package_that_is_not_there"))

    with pytest.raises(SystemExit) as left:
        command.main()

    assert left.value.code == 2
    printed = capsys.readouterr().err
    assert printed == "clew: the command needs its extra: pip install 'clew[gateway]'\n"


def test_importing_the_entry_imports_nothing_of_others() -> None:
    """What is not installed cannot fail."""
    code = "import sys, clew.command; print({'click', 'rich', 'msgspec'} & set(sys.modules))"
    # -S leaves site's own imports out of the count.
    source = str(Path(command.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "set()\n"


def test_serve_hands_the_checked_configuration_to_the_supervisor(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags win over the file, the status is the supervisor's, a reload reads the file again."""
    seen: list[Config] = []
    path = tmp_path / "clew.toml"
    path.write_text('[server]\ndrain_s = 5\nlisten = "127.0.0.1:1"\n')

    def fake_run(config: Config, reload: object, idle_stop_s: float) -> int:
        assert idle_stop_s == 600.0
        seen.append(config)
        path.write_text("[server]\ndrain_s = 6\n")
        seen.append(reload())  # type: ignore[operator]
        return 3

    monkeypatch.setattr(clew.supervisor.run, "run", fake_run)
    result = run(
        *("serve", "-c", str(path), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--workers", "2", "--idle-stop", "10m", "--upstream", "http://127.0.0.1:8000"),
    )

    assert result.exit_code == 3
    first, second = seen
    assert (first.server.listen, first.server.workers, first.server.drain_s) == (
        "127.0.0.1:0",
        2,
        5,
    )
    assert first.upstream[0].url == "http://127.0.0.1:8000"
    assert (second.server.listen, second.server.drain_s) == ("127.0.0.1:0", 6)


def test_serve_refuses_a_bad_configuration_with_status_2(run: Run) -> None:
    """One line per fault on standard error, nothing on standard output."""
    result = run("serve", "--listen", "0.0.0.0:2539", "--upstream", "ftp://x", "--admin", "x")

    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["--admin", "--listen", "--upstream"]


def test_serve_takes_urls_after_one_flag_only_behind_the_flag(run: Run) -> None:
    """A stray argument is refused; so is what is no url."""
    assert "unexpected argument" in run("serve", "http://127.0.0.1:1").stderr
    assert "upstream[1].url" in run("serve", "--upstream", "http://127.0.0.1:1", "ftp://x").stderr


def test_upstreams_of_flags_are_named_by_their_host() -> None:
    """The names fit /u/NAME/ and differ."""
    urls = ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", "http://[::1]:9", "nonsense"]

    assert [table["name"] for table in upstream_tables(urls)] == [
        "127.0.0.1-8000",
        "127.0.0.1-8000-2",
        "1-9",
        "upstream",
    ]


def test_config_check_prints_every_fault(run: Run, tmp_path: Path) -> None:
    """Status 2, a line a fault; JSON for programs."""
    path = tmp_path / "clew.toml"
    path.write_text('[server]\nlissten = 1\n[capture]\ncontent = "full"\n')

    result = run("config", "check", str(path))
    as_json = run("config", "check", str(path), "--json")

    assert result.exit_code == as_json.exit_code == 2
    assert result.stderr.splitlines() == [
        f"clew: {path}: server.lissten: unknown key; the nearest known key is server.listen",
        f"clew: {path}: capture.content: content capture: {LATER}",
    ]
    assert [fault["key"] for fault in json.loads(as_json.stdout)["faults"]] == [
        "server.lissten",
        "capture.content",
    ]


def test_config_check_says_when_all_is_well(run: Run, tmp_path: Path) -> None:
    """Status 0."""
    path = tmp_path / "clew.toml"
    path.write_text("[server]\nworkers = 2\n")

    result = run("config", "check", str(path))

    assert (result.exit_code, result.stdout) == (0, f"{path}: good\n")


def test_config_show_masks_passwords(run: Run, tmp_path: Path) -> None:
    """What is shown can be pasted into a report."""
    path = tmp_path / "clew.toml"
    path.write_text('[store]\nurl = "sqlite:///x"\n')
    result = run("config", "show", "-c", str(path))

    assert result.exit_code == 0
    assert 'url = "sqlite:///x"' in result.stdout
    assert json.loads(run("config", "show", "--json").stdout)["server"]["workers"] == 1


def test_clients_lists_the_table_and_ones_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own clients rank after the canonical header."""
    own = '[{name = "mytool", session = "x-mytool-session"}]'
    monkeypatch.setenv("CLEW_SESSIONS__CLIENT", own)

    lines = run("clients").stdout.splitlines()

    assert lines[1].split()[1] == "canonical"
    assert lines[3].split()[1] == "mytool"
    assert any("x-claude-code-session-id" in line for line in lines)
    assert json.loads(run("clients", "--json").stdout)[1]["name"] == "mytool"


def test_doctor_passes_on_a_fit_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check has a line; nothing is called outside."""
    monkeypatch.setenv("CLEW_SERVER__LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("CLEW_ADMIN__LISTEN", "127.0.0.1:0")

    result = run("doctor")

    assert result.exit_code == 0, result.stdout
    for check in ("python", "sqlite", "clock", "ulimit -n", "data", "gateway", "admin"):
        assert any(check in line for line in result.stdout.splitlines())
    assert json.loads(run("doctor", "--json").stdout)


def test_doctor_says_which_server_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch, postgresql: Server
) -> None:
    """Its version and its address."""
    monkeypatch.setenv("CLEW_STORE__URL", postgresql.url("postgres"))

    line = next(one for one in run("doctor").stdout.splitlines() if " postgresql " in one)

    assert line.startswith("ok")
    assert "PostgreSQL " in line


def test_doctor_fails_without_the_server_and_repeats_no_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason is the driver's; the privacy report hides the password too."""
    url = f"postgresql://clew:canary@/clew?host={tmp_path}&password=canary"
    monkeypatch.setenv("CLEW_STORE__URL", url)

    result = run("doctor")

    assert result.exit_code == 1
    assert "No such file" in result.stdout
    assert "canary" not in result.stdout + run("doctor", "--privacy").stdout
    assert "canary" not in run("config", "show").stdout


def test_doctor_fails_on_a_port_that_is_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1 and a line that names the address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("CLEW_SERVER__LISTEN", address)
        result = run("doctor")

    assert result.exit_code == 1
    assert f"FAILED gateway      {address} cannot be used" in result.stdout


def test_doctor_fails_on_a_token_others_can_read(run: Run, tmp_path: Path) -> None:
    """The mode of the file is named with the way to mend it."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "admin.token").write_text("x")
    (data / "admin.token").chmod(0o644)

    result = run("doctor")

    assert result.exit_code == 1
    assert "chmod go=" in result.stdout
    assert "stored       admin.token: 1B" in result.stdout


def test_doctor_tells_what_is_kept(run: Run, tmp_path: Path) -> None:
    """Where, what, how long, how to remove it; and what is never kept."""
    found = run("doctor", "--privacy").stdout

    assert str(tmp_path / "data" / "journal") in found
    assert "how long  90d" in found
    assert "never stored: prompts" in found
    assert json.loads(run("doctor", "--privacy", "--json").stdout)["kept"]


RAW = (
    b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: sk-ant-canary\r\n"
    b"X-Dynamo-Session-ID: run-1\r\nX-Dynamo-Parent-Session-ID: root-1\r\n\r\n{}"
)


def test_explain_tells_session_parent_and_what_goes_on(run: Run) -> None:
    """From standard input, without sending anything, the credential masked."""
    found = run("explain", stdin=RAW).stdout

    assert "=> canonical reads x-dynamo-session-id, x-dynamo-parent-session-id" in found
    assert "session    run-1 (canonical, thread, durable)" in found
    assert "parent     root-1" in found
    assert "goes to    anthropic: api.anthropic.com/v1/messages" in found
    assert "without    x-dynamo-session-id, x-dynamo-parent-session-id" in found
    assert "canary" not in found


def test_explain_tells_why_a_request_is_refused(run: Run) -> None:
    """The code, the status and the sentence."""
    raw = b"POST /v1/messages HTTP/1.1\nx-dynamo-session-id: a b\n\n{}"

    found = run("explain", stdin=raw).stdout

    assert "refused    session_id_invalid (400)" in found
    assert "refused; nothing would be forwarded" in found


def test_explain_reads_captures(run: Run) -> None:
    """Every line of a capture file, as JSON."""
    path = CAPTURES / "claude-code-2.1.330.jsonl"

    found = json.loads(run("explain", str(path), "--json").stdout)

    assert len(found) == len(path.read_text().splitlines())
    for one, line in zip(found, path.read_text().splitlines(), strict=True):
        expected = json.loads(line)["expect"]
        assert (one["session"] or {}).get("value") == expected.get("session")


def test_explain_refuses_what_is_no_request(run: Run) -> None:
    """Status 1 and what to give instead."""
    result = run("explain", stdin=b"hello")

    assert result.exit_code == 1
    assert "give a raw HTTP request" in result.stderr


def test_a_broken_configuration_stops_a_view_with_status_2(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view does not guess past a fault."""
    monkeypatch.setenv("CLEW_ADMIN__LISTEN", "nowhere")

    assert run("sessions").exit_code == 2


def test_the_command_is_installed() -> None:
    """`clew` and `python -m clew.command` are the same."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLEW_")}
    done = subprocess.run(
        [sys.executable, "-m", "clew.command", "--version"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"clew {__version__}\n"
