"""`clew setup` and its undoing, on files."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clew.agents.table import BY_NAME
from clew.cli.main import cli

GATEWAY = "http://127.0.0.1:2539"
Setup = Callable[..., Result]

BEFORE = {
    "claude": (".claude/settings.json", '{\n  // mine\n  "env": {"A": "1"},\n}\n'),
    "codex": (".codex/config.toml", '# mine\nmodel = "gpt-5"\n\n[tui]\ntheme = "x"\n'),
    "opencode": (".config/opencode/opencode.jsonc", '{ "provider": { "openai": {} } } // mine'),
    "gemini": (".env", "GEMINI_API_KEY=theirs"),
    "qwen": (".qwen/.env", "# mine\r\nOPENAI_API_KEY=theirs\r\n"),
    "pi": (".pi/agent/models.json", "{}"),
    "copilot": (".zshrc", "alias ll='ls -l'\n"),
    "docker-agent": (".zshrc", ""),
    "openai": (".zshrc", "# the end, without a line end"),
    "anthropic": (".zshrc", "\n\n"),
}
"""A file the user has already, for each agent."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an environment that knows nothing of any agent."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "PI_CODING_AGENT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SHELL", "/bin/zsh")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    return home


@pytest.fixture
def setup(home: Path, tmp_path: Path) -> Setup:
    """The command, with a data directory of its own."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(cli, ["setup", *words, "--data", str(tmp_path / "data")])

    return invoke


def tree(home: Path) -> dict[str, bytes | None]:
    """Every file below the home with its content; directories without one."""
    return {
        str(path.relative_to(home)): path.read_bytes() if path.is_file() else None
        for path in home.rglob("*")
    }


@pytest.mark.parametrize("agent", BY_NAME)
def test_a_home_without_any_file_is_empty_again(agent: str, home: Path, setup: Setup) -> None:
    """What was made is taken away, directories too."""
    done = setup(agent)
    assert done.exit_code == 0, done.output
    assert any(GATEWAY.encode() in (content or b"") for content in tree(home).values())

    undone = setup(agent, "--undo")

    assert undone.exit_code == 0, undone.output
    assert tree(home) == {}


@pytest.mark.parametrize("agent", BY_NAME)
def test_a_users_file_is_byte_for_byte_as_it_was(agent: str, home: Path, setup: Setup) -> None:
    """Comments, line ends and permissions included."""
    path, text = BEFORE[agent]
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    file.chmod(0o640)
    before = tree(home)

    assert setup(agent).exit_code == 0
    assert GATEWAY.encode() in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert setup(agent, "--undo").exit_code == 0

    assert tree(home) == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("agent", BY_NAME)
def test_doing_it_twice_does_it_once(agent: str, home: Path, setup: Setup) -> None:
    """The second says so, and one undoing suffices."""
    setup(agent)
    after = tree(home)

    again = setup(agent)

    assert "is set up already" in again.output
    assert tree(home) == after
    setup(agent, "--undo")
    assert tree(home) == {}


def test_what_the_user_changed_in_between_stays(home: Path, setup: Setup) -> None:
    """Only Clew's own member goes."""
    file = home / ".claude/settings.json"
    file.parent.mkdir()
    file.write_text('{\n  "env": {\n    "A": "1"\n  }\n}\n')
    setup("claude")
    file.write_text(file.read_text().replace('"A": "1"', '"A": "2",\n    "B": "3"'))

    setup("claude", "--undo")

    assert file.read_text() == '{\n  "env": {\n    "A": "2",\n    "B": "3"\n  }\n}\n'


def test_two_agents_in_one_profile_are_undone_in_any_order(home: Path, setup: Setup) -> None:
    """Each takes its own line."""
    file = home / ".zshrc"
    file.write_bytes(b"# no line end")
    setup("openai")
    setup("anthropic")

    setup("openai", "--undo")
    assert "OPENAI" not in file.read_text()
    setup("anthropic", "--undo")

    assert file.read_bytes() == b"# no line end"


def test_another_base_url_is_replaced_only_if_asked(home: Path, setup: Setup) -> None:
    """The error names it and the next step; undoing brings it back."""
    file = home / ".codex/config.toml"
    file.parent.mkdir()
    file.write_text('openai_base_url = "https://theirs.invalid/v1"\n')

    refused = setup("codex")
    replaced = setup("codex", "--replace")

    assert refused.exit_code == 1
    assert "--upstream https://theirs.invalid/v1" in refused.output
    assert replaced.exit_code == 0
    assert file.read_text() == f'openai_base_url = "{GATEWAY}/v1"\n'
    setup("codex", "--undo")
    assert file.read_text() == 'openai_base_url = "https://theirs.invalid/v1"\n'


def test_another_address_of_the_gateway_replaces_the_first(
    home: Path, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one undoing restores what was there before both."""
    setup("claude")
    monkeypatch.setenv("CLEW_SERVER__LISTEN", "127.0.0.1:2600")

    setup("claude")

    settings = json.loads((home / ".claude/settings.json").read_text())
    assert settings["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:2600"
    setup("claude", "--undo")
    assert tree(home) == {}


def test_a_link_stays_a_link(home: Path, setup: Setup) -> None:
    """Settings kept elsewhere are changed there."""
    real = home / "dotfiles.json"
    real.write_text("{}")
    (home / ".claude").mkdir()
    link = home / ".claude/settings.json"
    link.symlink_to(real)

    setup("claude")

    assert link.is_symlink()
    assert GATEWAY in real.read_text()
    setup("claude", "--undo")
    assert link.is_symlink()
    assert real.read_text() == "{}"


def test_a_dry_run_changes_nothing(home: Path, setup: Setup, tmp_path: Path) -> None:
    """It says what would be, for both directions."""
    shown = setup("claude", "--dry-run")

    assert f"env.ANTHROPIC_BASE_URL would be set: {GATEWAY}" in shown.output
    assert tree(home) == {}
    assert not (tmp_path / "data").exists()
    setup("claude")
    after = tree(home)
    assert "would be removed" in setup("claude", "--undo", "--dry-run").output
    assert tree(home) == after


def test_json_tells_the_files_and_keys(setup: Setup, home: Path) -> None:
    """For programs."""
    found = json.loads(setup("codex", "--json").output)

    assert found["gateway"] == GATEWAY
    assert found["changes"] == [
        {
            "did": "set",
            "path": str(home / ".codex/config.toml"),
            "key": "openai_base_url",
            "value": f"{GATEWAY}/v1",
            "file": "new",
        }
    ]


def test_undoing_what_was_not_done_is_refused(setup: Setup) -> None:
    """With the place where it was looked for."""
    done = setup("claude", "--undo")

    assert done.exit_code == 1
    assert "claude is not set up from" in done.output


def test_a_file_that_cannot_be_read_stays_as_it_is(home: Path, setup: Setup) -> None:
    """The error names it."""
    file = home / ".claude/settings.json"
    file.parent.mkdir()
    file.write_bytes(b"\xff{")

    done = setup("claude")

    assert done.exit_code == 1
    assert "is not UTF-8" in done.output
    assert file.read_bytes() == b"\xff{"


def test_the_note_holds_no_secret_of_the_files(home: Path, setup: Setup, tmp_path: Path) -> None:
    """Only what Clew wrote, and digests; it is its owner's alone."""
    file = home / ".claude/settings.json"
    file.parent.mkdir()
    file.write_text('{"env": {"ANTHROPIC_API_KEY": "sk-ant-canary"}}')

    setup("claude")

    note = tmp_path / "data" / "setup" / "claude.json"
    assert "canary" not in note.read_text()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
