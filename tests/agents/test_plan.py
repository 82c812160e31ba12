"""What each agent is told: the table's rows, end to end, as pure decisions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clew.agents.bases import Bases, plain_url
from clew.agents.forms import FORMS
from clew.agents.pi import EXTENSION
from clew.agents.plan import (
    Child,
    PlanError,
    Situation,
    check,
    own_variables,
    run_above,
    with_session,
)
from clew.agents.table import AGENTS, BY_NAME, CLIENTS

GATEWAY = "http://127.0.0.1:2539"
BASE = f"{GATEWAY}/r/run-1"


def situation(
    name: str, *arguments: str, files: dict[str, str] | None = None, **environ: str
) -> Situation:
    """An agent in an otherwise empty world."""
    return Situation(
        agent=BY_NAME[name],
        environ=environ,
        arguments=arguments,
        home="/h",
        directory="/h/project",
        files=files or {},
        gateways=(GATEWAY,),
    )


def told(case: Situation) -> Child:
    """What the child is told, every old url being an upstream called ``old``."""
    check(case)
    form = FORMS[case.agent.form]
    names = {plain_url(one.upstream): "old" for one in form.existing(case)}
    return form.child(case, Bases(GATEWAY, "run-1", names))


def test_every_row_has_a_form_and_something_to_set_up() -> None:
    """A row without either would be an agent in name only."""
    for agent in AGENTS:
        assert agent.form in FORMS
        assert agent.settings
        assert agent.commands or agent.name in CLIENTS


@pytest.mark.parametrize(
    ("name", "environ", "expected"),
    [
        ("claude", {}, {"ANTHROPIC_BASE_URL": BASE}),
        ("gemini", {}, {"GOOGLE_GEMINI_BASE_URL": BASE}),
        ("qwen", {}, {"OPENAI_BASE_URL": f"{BASE}/v1"}),
        ("openai", {}, {"OPENAI_BASE_URL": f"{BASE}/v1", "OPENAI_API_BASE": f"{BASE}/v1"}),
        ("anthropic", {}, {"ANTHROPIC_BASE_URL": BASE}),
        (
            "copilot",
            {"COPILOT_MODEL": "gpt-5", "COPILOT_PROVIDER_API_KEY": "sk-x"},
            {"COPILOT_PROVIDER_BASE_URL": f"{BASE}/v1"},
        ),
        (
            "copilot",
            {
                "COPILOT_MODEL": "claude",
                "COPILOT_PROVIDER_API_KEY": "sk-x",
                "COPILOT_PROVIDER_TYPE": "anthropic",
            },
            {"COPILOT_PROVIDER_BASE_URL": BASE},
        ),
        (
            "docker-agent",
            {},
            {
                "DOCKER_AGENT_MODELS_GATEWAY": BASE,
                "CAGENT_MODELS_GATEWAY": BASE,
                "DOCKER_TOKEN": "clew",
            },
        ),
        (
            "docker-agent",
            {"DOCKER_TOKEN": "theirs"},
            {"DOCKER_AGENT_MODELS_GATEWAY": BASE, "CAGENT_MODELS_GATEWAY": BASE},
        ),
    ],
)
def test_an_agent_that_reads_its_environment(
    name: str, environ: dict[str, str], expected: dict[str, str]
) -> None:
    """Gets its base url there; its arguments stay, and no credential is touched."""
    child = told(situation(name, "-p", "hi", **environ))

    assert child == Child(expected, ("-p", "hi"))


@pytest.mark.parametrize(
    ("name", "variable", "url", "expected"),
    [
        ("claude", "ANTHROPIC_BASE_URL", "https://p/anthropic", f"{BASE}/u/old"),
        ("qwen", "OPENAI_BASE_URL", "https://q/compatible-mode/v1", f"{BASE}/u/old/v1"),
        ("openai", "OPENAI_BASE_URL", "https://q/api", f"{BASE}/u/old"),
        ("gemini", "GOOGLE_GEMINI_BASE_URL", "https://g", f"{BASE}/u/old"),
        ("claude", "ANTHROPIC_BASE_URL", f"{GATEWAY}/", BASE),
        ("openai", "OPENAI_BASE_URL", "http://localhost:2539/v1", f"{BASE}/v1"),
    ],
)
def test_a_base_url_of_the_environment_stays_the_destination(
    name: str, variable: str, url: str, expected: str
) -> None:
    """As an upstream; one that is the gateway's own is none."""
    assert told(situation(name, **{variable: url})).environment[variable] == expected


def test_the_older_spelling_of_a_base_url_speaks_for_both() -> None:
    """A client may read either; both must lead to the same place."""
    child = told(situation("openai", OPENAI_API_BASE="https://q/v1"))

    assert set(child.environment.values()) == {f"{BASE}/u/old/v1"}


def test_a_base_url_in_a_dotenv_file_counts_where_the_environment_has_none() -> None:
    """The nearest file does; the environment outranks it."""
    files = {
        "/h/project/.qwen/.env": 'export OPENAI_BASE_URL="https://near/v1"\n',
        "/h/.qwen/.env": "OPENAI_BASE_URL=https://far/v1\n",
    }
    form = FORMS[BY_NAME["qwen"].form]

    (near,) = form.existing(situation("qwen", files=files))
    (own,) = form.existing(situation("qwen", files=files, OPENAI_BASE_URL="https://own/v1"))

    assert near.url == "https://near/v1"
    assert "/h/project/.qwen/.env" in near.where
    assert own.url == "https://own/v1"
    assert form.reads(situation("qwen"))[:2] == ("/h/project/.qwen/.env", "/h/project/.env")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (situation("claude", CLAUDE_CODE_USE_BEDROCK="1"), "CLAUDE_CODE_USE_BEDROCK is set"),
        (situation("docker-agent", "run", "--models-gateway=http://g"), "--models-gateway"),
        (situation("docker-agent", CAGENT_MODELS_GATEWAY="https://g"), "two cannot be chained"),
        (situation("qwen", "--openai-base-url", "http://x"), "--openai-base-url"),
        (situation("copilot"), "COPILOT_MODEL"),
        (situation("openai", OPENAI_BASE_URL="unix:/x"), "is no http url"),
        (situation("codex", "--oss"), "on this machine"),
        (situation("codex", files={"/h/.codex/config.toml": "model_provider ="}), "is no TOML"),
        (situation("opencode", files={"/h/opencode.json": "{"}), "cannot be read"),
        (situation("opencode", files={"/h/opencode.json": "[]"}), "holds no table"),
        (situation("pi", files={"/h/.pi/agent/models.json": "{"}), "cannot be read"),
        (situation("claude", files={"/h/.claude/settings.json": "{"}), "cannot be read"),
    ],
)
def test_what_would_pass_the_gateway_by_is_refused(case: Situation, said: str) -> None:
    """With the reason, before anything is started."""
    with pytest.raises(PlanError, match=said):
        told(case)


def test_claude_codes_settings_are_outranked_by_an_argument() -> None:
    """Its settings win over the environment, so where they set a base url an argument does too."""
    files = {"/h/.claude/settings.json": '{"env": {"ANTHROPIC_BASE_URL": "https://p"}} // mine'}

    child = told(situation("claude", "-p", "hi", files=files))

    assert child.arguments[0] == "--settings"
    assert json.loads(child.arguments[1]) == {"env": {"ANTHROPIC_BASE_URL": f"{BASE}/u/old"}}
    assert child.arguments[2:] == ("-p", "hi")
    with pytest.raises(PlanError, match="--settings is given already"):
        told(situation("claude", "--settings", "x.json", files=files))


def test_claude_code_reads_three_settings_files() -> None:
    """The user's, wherever a variable puts it, and the project's two."""
    reads = FORMS[BY_NAME["claude"].form].reads

    assert reads(situation("claude", CLAUDE_CONFIG_DIR="/c")) == (
        "/c/settings.json",
        "/h/project/.claude/settings.json",
        "/h/project/.claude/settings.local.json",
    )


@pytest.mark.parametrize(
    ("config", "arguments", "expected"),
    [
        ("", ("exec", "hi"), f'openai_base_url="{BASE}/v1"'),
        ('openai_base_url = "https://p/v1"', (), f'openai_base_url="{BASE}/u/old/v1"'),
        (
            'model_provider = "mine"\n[model_providers.mine]\nbase_url = "https://m/v1"\n',
            (),
            f'model_providers.mine.base_url="{BASE}/u/old/v1"',
        ),
        (
            '[model_providers.mine]\nbase_url = "https://m/v1"\n',
            ("-c", 'model_provider="mine"'),
            f'model_providers.mine.base_url="{BASE}/u/old/v1"',
        ),
        (
            '[profiles.p]\nmodel_provider = "mine"\n[model_providers.mine]\nbase_url = "https://m"',
            ("--profile", "p"),
            f'model_providers.mine.base_url="{BASE}/u/old"',
        ),
    ],
)
def test_codex_is_told_by_one_argument(
    config: str, arguments: tuple[str, ...], expected: str
) -> None:
    """For the provider that it will use; before the user's own arguments."""
    child = told(situation("codex", *arguments, files={"/h/.codex/config.toml": config}))

    assert child == Child({}, ("-c", expected, *arguments))


def test_codex_with_a_provider_that_has_no_url_is_refused() -> None:
    """There is nothing that Clew could stand for."""
    with pytest.raises(PlanError, match="no base_url"):
        told(situation("codex", "-c", "model_provider=mine"))


def providers_of(child: Child) -> dict[str, Any]:
    """Base urls by provider."""
    config = json.loads(child.environment["OPENCODE_CONFIG_CONTENT"])
    return {name: one["options"]["baseURL"] for name, one in config["provider"].items()}


def test_opencode_is_told_of_the_providers_its_user_has() -> None:
    """By key, login or configuration: naming others would change its choice of a model."""
    files = {
        "/h/.local/share/opencode/auth.json": '{"anthropic": {"type": "api", "key": "sk-ant-x"}}',
        "/h/.config/opencode/opencode.jsonc": (
            '{"provider": {"mine": {"options": {"baseURL": "https://m/v1"}}}} // mine'
        ),
    }

    child = told(situation("opencode", files=files, GEMINI_API_KEY="x"))

    assert providers_of(child) == {
        "mine": f"{BASE}/u/old/v1",
        "anthropic": f"{BASE}/v1",
        "google": f"{BASE}/v1beta",
    }
    assert "sk-ant-x" not in str(child)


def test_opencodes_own_variable_is_added_to() -> None:
    """What was in it stays."""
    own = '{"model": "openai/gpt-5", "provider": {"openai": {"options": {"timeout": 5}}}}'

    child = told(situation("opencode", OPENCODE_CONFIG_CONTENT=own))

    config = json.loads(child.environment["OPENCODE_CONFIG_CONTENT"])
    assert config["model"] == "openai/gpt-5"
    assert config["provider"]["openai"]["options"] == {"timeout": 5, "baseURL": f"{BASE}/v1"}


def test_opencode_without_any_provider_is_told_of_all() -> None:
    """Nothing can be changed by it then."""
    assert set(providers_of(told(situation("opencode")))) == {"anthropic", "openai", "google"}


def test_pi_is_told_by_an_extension() -> None:
    """For the providers it has built in, and those of its own file."""
    files = {
        "/h/.pi/agent/models.json": json.dumps(
            {"providers": {"mine": {"baseUrl": "https://m/v1"}, "odd": 1}}
        )
    }

    child = told(situation("pi", "-p", "hi", files=files))

    assert child.arguments == ("-e", EXTENSION, "-p", "hi")
    assert json.loads(child.environment["CLEW_PI_PROVIDERS"]) == {
        "anthropic": BASE,
        "openai": f"{BASE}/v1",
        "google": f"{BASE}/v1beta",
        "mine": f"{BASE}/u/old/v1",
    }


def test_pis_own_commands_stay_as_they_are() -> None:
    """They call no model, and take no extension."""
    assert told(situation("pi", "install", "x")) == Child({}, ("install", "x"))


def test_every_child_is_told_gateway_and_run() -> None:
    """For programs with the SDK; and loopback is kept from a proxy of the environment."""
    bases = Bases(GATEWAY, "run-1")

    assert own_variables({}, bases) == {
        "CLEW_GATEWAY": GATEWAY,
        "CLEW_PARENT": "canonical:run-1",
    }
    proxied = own_variables({"HTTP_PROXY": "http://p", "NO_PROXY": "h"}, bases)
    assert proxied["NO_PROXY"] == "h,127.0.0.1"
    assert proxied["no_proxy"] == "127.0.0.1"
    kept = own_variables({"HTTP_PROXY": "http://p", "NO_PROXY": "127.0.0.1"}, bases)
    assert "NO_PROXY" not in kept


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("canonical:run-42", "run-42"),
        ("", ""),
        ("run-42", ""),
        ("canonical:a/b", ""),
        ("canonical:..", ""),
    ],
)
def test_a_run_inside_a_run_belongs_to_it(value: str, expected: str) -> None:
    """Where its id can stand in a path."""
    assert run_above({"CLEW_PARENT": value}) == expected


def test_a_session_of_the_users_choice_is_added_to_the_headers() -> None:
    """Beside those that were there; an older choice goes."""
    case = situation("gemini", GEMINI_CLI_CUSTOM_HEADERS="A: 1,x-dynamo-session-id: old")

    assert with_session(case, "night-1") == {
        "GEMINI_CLI_CUSTOM_HEADERS": "A: 1,X-Dynamo-Session-Id: night-1"
    }
    with pytest.raises(PlanError, match="cannot be given a header"):
        with_session(situation("qwen"), "night-1")
    with pytest.raises(PlanError, match="--session takes"):
        with_session(case, "a b")
