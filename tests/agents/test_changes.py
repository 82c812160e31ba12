"""Changes of settings files, and taking them back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.agents.changes import ChangeError, change, present, undo
from clew.agents.plan import PlanError, Situation
from clew.agents.table import BY_NAME, SettingForm
from clew.agents.targets import Target, targets_of

VALUE = "http://127.0.0.1:2539"
JSON = Target(SettingForm.JSON, ("/h/s.json",), ("env", "URL"), VALUE)
TOML = Target(SettingForm.TOML, ("/h/c.toml",), ("url",), VALUE)
DOTENV = Target(SettingForm.DOTENV, ("/h/.env",), ("URL",), VALUE)
PROFILE = Target(SettingForm.PROFILE, ("/h/.bashrc",), ("URL",), VALUE, "bash")
FISH = Target(SettingForm.PROFILE, ("/h/config.fish",), ("URL",), VALUE, "fish")

CASES = [
    (JSON, None),
    (JSON, ""),
    (JSON, '{"env": {"URL": "http://old"}}'),
    (JSON, '{\n  // mine\n  "env": {"A": "1"},\n}\n'),
    (TOML, None),
    (TOML, "# mine\nmodel = 'x'\n[table]\nurl = 'not this'\n"),
    (TOML, "model = 'x'\nurl = 'http://old'  # mine\n[table]\n"),
    (DOTENV, None),
    (DOTENV, "KEY=1"),
    (DOTENV, "KEY=1\r\nexport URL='http://old'\r\nLAST=2\r\n"),
    (PROFILE, None),
    (PROFILE, "alias x=y\n"),
    (FISH, "set x y"),
]


@pytest.mark.parametrize(("target", "text"), CASES)
def test_a_change_taken_back_leaves_every_byte(target: Target, text: str | None) -> None:
    """Also the file that was not there, which is removed."""
    made, after = change(target, target.paths[0], text)

    assert VALUE in after
    assert undo(made, after).text == text


@pytest.mark.parametrize(("target", "text"), CASES)
def test_two_changes_of_one_file_are_taken_back_in_turn(target: Target, text: str | None) -> None:
    """The last first."""
    first, after = change(target, target.paths[0], text)
    other = Target(target.form, target.paths, (*target.key[:-1], "URL2"), VALUE, target.shell)
    second, both = change(other, target.paths[0], after)

    between = undo(second, both).text

    assert between == after
    assert undo(first, between).text == text


@pytest.mark.parametrize(
    ("target", "text", "changed"),
    [
        (JSON, '{"a": 1}', lambda after: after.replace('"a": 1', '"a": 2')),
        (TOML, "a = 1\n", lambda after: after + "b = 2\n"),
        (DOTENV, "A=1\n", lambda after: after + "B=2\n"),
        (DOTENV, "URL=http://old\nA=1\n", lambda after: after + "B=2\n"),
        (PROFILE, "A=1", lambda after: after + "B=2\n"),
    ],
)
def test_what_was_changed_in_between_stays(target: Target, text: str, changed: object) -> None:
    """Only Clew's own lines go, and a value that they replaced is there again."""
    made, after = change(target, target.paths[0], text)

    left = undo(made, changed(after)).text  # type: ignore[operator]

    assert left is not None
    assert VALUE not in left
    assert ("http://old" in left) == ("http://old" in text)
    assert "2" in left


@pytest.mark.parametrize("target", [JSON, TOML, DOTENV, PROFILE])
def test_a_value_that_is_no_longer_clews_is_left_alone(target: Target) -> None:
    """Somebody set it to something else since."""
    made, after = change(target, target.paths[0], None)
    text = after.replace(VALUE, "http://theirs")

    undone = undo(made, text)

    assert undone.text == text
    assert not undone.is_found


def test_a_file_that_is_gone_stays_gone() -> None:
    """There is nothing to take back."""
    made, _ = change(JSON, "/h/s.json", None)

    assert undo(made, None).text is None


def test_a_new_file_somebody_added_to_stays() -> None:
    """With what they added, and without what Clew wrote."""
    made, after = change(JSON, "/h/s.json", None)

    undone = undo(made, after.replace("{\n  ", '{\n  "mine": 1,\n  ', 1))

    assert undone.text == '{\n  "mine": 1\n}\n'


def test_a_file_that_cannot_be_read_is_not_changed() -> None:
    """Before and afterwards; the text says which file."""
    with pytest.raises(ChangeError, match=r"/h/s\.json"):
        change(JSON, "/h/s.json", "{")
    with pytest.raises(ChangeError, match=r"/h/c\.toml"):
        change(TOML, "/h/c.toml", "[")
    with pytest.raises(ChangeError, match="by hand"):
        change(TOML, "/h/c.toml", 'url = """\nhttp://old"""\n')
    made, _ = change(JSON, "/h/s.json", None)
    with pytest.raises(ChangeError, match=r"take env\.URL out"):
        undo(made, "{")


@given(st.text(alphabet="AURL=x\n\r #'\"", max_size=40))
def test_any_lines_come_back(text: str) -> None:
    """Whatever a file of lines holds, and however it ends."""
    for target in (DOTENV, PROFILE):
        made, after = change(target, target.paths[0], text)

        assert undo(made, after).text == text


def test_the_present_value_is_read_as_the_agent_reads_it() -> None:
    """None where there is none; a profile is a program, whose value nobody knows."""
    assert present(JSON, '{"env": {"URL": "http://old"}}') == "http://old"
    assert present(JSON, '{"env": {"URL": 1}}') == ""
    assert present(TOML, "url = 'http://old'") == "http://old"
    assert present(DOTENV, "export URL='http://old'") == "http://old"
    assert present(DOTENV, "URL=http://old # mine") == "http://old"
    assert present(PROFILE, "export URL=http://old") == ""
    assert present(JSON, None) == ""
    with pytest.raises(ChangeError):
        present(TOML, "[")


def situation(name: str, files: dict[str, str] | None = None, **environ: str) -> Situation:
    """An agent in a home of its own."""
    return Situation(BY_NAME[name], environ, home="/h", directory="/h", files=files or {})


@pytest.mark.parametrize(
    ("case", "path", "key", "value"),
    [
        (situation("claude"), "/h/.claude/settings.json", "env.ANTHROPIC_BASE_URL", VALUE),
        (
            situation("claude", CLAUDE_CONFIG_DIR="/c"),
            "/c/settings.json",
            "env.ANTHROPIC_BASE_URL",
            VALUE,
        ),
        (situation("codex"), "/h/.codex/config.toml", "openai_base_url", f"{VALUE}/v1"),
        (
            situation("opencode", OPENAI_API_KEY="x"),
            "/h/.config/opencode/opencode.json",
            "provider.openai.options.baseURL",
            f"{VALUE}/v1",
        ),
        (
            situation("opencode", OPENAI_API_KEY="x", XDG_CONFIG_HOME="/x"),
            "/x/opencode/opencode.json",
            "provider.openai.options.baseURL",
            f"{VALUE}/v1",
        ),
        (situation("pi"), "/h/.pi/agent/models.json", "providers.anthropic.baseUrl", VALUE),
        (situation("gemini"), "/h/.gemini/.env", "GOOGLE_GEMINI_BASE_URL", VALUE),
        (situation("qwen"), "/h/.qwen/.env", "OPENAI_BASE_URL", f"{VALUE}/v1"),
        (
            situation("copilot", SHELL="/bin/zsh"),
            "/h/.zshrc",
            "COPILOT_PROVIDER_BASE_URL",
            f"{VALUE}/v1",
        ),
        (situation("docker-agent"), "/h/.profile", "DOCKER_AGENT_MODELS_GATEWAY", VALUE),
        (situation("openai", SHELL="/bin/bash"), "/h/.bashrc", "OPENAI_BASE_URL", f"{VALUE}/v1"),
        (situation("anthropic"), "/h/.profile", "ANTHROPIC_BASE_URL", VALUE),
    ],
)
def test_where_each_agent_keeps_its_base_url(
    case: Situation, path: str, key: str, value: str
) -> None:
    """In its own settings where it has any, else in the shell's profile."""
    target = targets_of(case, VALUE)[0]

    assert (target.paths[0], ".".join(target.key), target.value) == (path, key, value)


def test_what_setup_cannot_do_for_an_agent_is_said() -> None:
    """Codex with a provider of its own, OpenCode before it has any."""
    files = {
        "/h/.codex/config.toml": (
            'model_provider = "mine"\n[model_providers.mine]\nbase_url = "https://m/v1"\n'
        )
    }
    with pytest.raises(PlanError, match=r"model_providers\.mine\.base_url"):
        targets_of(situation("codex", files), VALUE)
    with pytest.raises(PlanError, match="no provider yet"):
        targets_of(situation("opencode"), VALUE)
