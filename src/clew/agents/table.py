"""The agents `clew run` and `clew setup` know: one row each.

Facts are from the agents' own documentation and sources (November 2026): which variable or file
holds the base url, and whether headers can be added. What cannot be said in a row (an agent that
ignores the environment) is a file of its own, named by the row's ``form``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Form(StrEnum):
    """How an agent is told, beyond its variables."""

    ENVIRONMENT = "environment"
    CLAUDE = "claude"
    CODEX = "codex"
    OPENCODE = "opencode"
    PI = "pi"


class Variable(msgspec.Struct, frozen=True):
    """A variable that holds a base url, and what the client expects after the origin."""

    name: str
    path: str = ""


class HeaderVariable(msgspec.Struct, frozen=True):
    """A variable that adds headers, ``Name: value`` each."""

    name: str
    separator: str


class SettingForm(StrEnum):
    """How a settings file is written."""

    JSON = "json"
    TOML = "toml"
    DOTENV = "dotenv"
    PROFILE = "profile"


class Setting(msgspec.Struct, frozen=True):
    """One value `clew setup` writes."""

    form: SettingForm
    key: tuple[str, ...]
    path: str = ""
    """What stands after the gateway's origin."""
    root: str = ""
    """Below the home; empty: the home itself."""
    directory: str = ""
    """A variable that names another place for ``root``."""
    file: str = ""
    """Below ``root``; empty: the profile of the user's shell."""
    fallbacks: tuple[str, ...] = ()
    """Files that the agent reads instead where they exist and ``file`` does not."""


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One agent, or one kind of client."""

    name: str
    title: str
    commands: tuple[str, ...] = ()
    """Names of its program, the first found is started, further words are its first arguments;
    none: the user names the command."""
    form: Form = Form.ENVIRONMENT
    variables: tuple[Variable, ...] = ()
    headers: HeaderVariable | None = None
    defaults: tuple[tuple[str, str], ...] = ()
    """Variables set where they are not."""
    bare_with: tuple[str, str] = ("", "")
    """A variable and its value with which the client adds the whole path itself."""
    needs: tuple[tuple[str, ...], ...] = ()
    """Variables without which it would not reach a model; of each group one suffices."""
    dotenv: tuple[str, ...] = ()
    """Files, from the project upwards and in the home, in which it finds variables too."""
    refused: tuple[tuple[str, str], ...] = ()
    """Variables with which it does not use its base url, and what to do."""
    refused_arguments: tuple[str, ...] = ()
    """Arguments that outrank what it is told here."""
    may_chain: bool = True
    """Whether a base url that was set can become an upstream."""
    settings: tuple[Setting, ...] = ()
    note: str = ""
    """What its user should know; a sentence."""


def _profile(*variables: Variable) -> tuple[Setting, ...]:
    return tuple(Setting(SettingForm.PROFILE, (one.name,), one.path) for one in variables)


_ANTHROPIC: Final = Variable("ANTHROPIC_BASE_URL")
_OPENAI: Final = Variable("OPENAI_BASE_URL", "/v1")
_OPENAI_LEGACY: Final = Variable("OPENAI_API_BASE", "/v1")
_GOOGLE: Final = Variable("GOOGLE_GEMINI_BASE_URL")
_COPILOT: Final = Variable("COPILOT_PROVIDER_BASE_URL", "/v1")
_DOCKER: Final = (Variable("DOCKER_AGENT_MODELS_GATEWAY"), Variable("CAGENT_MODELS_GATEWAY"))
_CLOUDS: Final = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")

AGENTS: Final[tuple[Agent, ...]] = (
    Agent(
        name="claude",
        title="Claude Code",
        commands=("claude",),
        form=Form.CLAUDE,
        variables=(_ANTHROPIC,),
        headers=HeaderVariable("ANTHROPIC_CUSTOM_HEADERS", "\n"),
        refused=tuple(
            (name, "its calls would go to a cloud that Clew does not speak to; unset it")
            for name in _CLOUDS
        ),
        settings=(
            Setting(
                SettingForm.JSON,
                ("env", "ANTHROPIC_BASE_URL"),
                root=".claude",
                directory="CLAUDE_CONFIG_DIR",
                file="settings.json",
            ),
        ),
    ),
    Agent(
        name="codex",
        title="Codex",
        commands=("codex",),
        form=Form.CODEX,
        variables=(_OPENAI,),
        settings=(
            Setting(
                SettingForm.TOML,
                ("openai_base_url",),
                "/v1",
                root=".codex",
                directory="CODEX_HOME",
                file="config.toml",
            ),
        ),
    ),
    Agent(
        name="opencode",
        title="OpenCode",
        commands=("opencode",),
        form=Form.OPENCODE,
        settings=(
            Setting(
                SettingForm.JSON,
                ("provider", "*", "options", "baseURL"),
                root=".config",
                directory="XDG_CONFIG_HOME",
                file="opencode/opencode.json",
                fallbacks=("opencode/opencode.jsonc",),
            ),
        ),
    ),
    Agent(
        name="docker-agent",
        title="docker-agent",
        commands=("docker-agent", "cagent", "docker agent"),
        variables=_DOCKER,
        # It asks for a Docker token before any call to a models gateway; Clew does not read it.
        defaults=(("DOCKER_TOKEN", "clew"),),
        refused_arguments=("--models-gateway",),
        may_chain=False,
        settings=_profile(_DOCKER[0]),
        note="docker-agent sends no provider key to a models gateway: give each upstream one "
        "with api_key_env.",
    ),
    Agent(
        name="gemini",
        title="Gemini CLI",
        commands=("gemini",),
        variables=(_GOOGLE,),
        headers=HeaderVariable("GEMINI_CLI_CUSTOM_HEADERS", ","),
        dotenv=(".gemini/.env", ".env"),
        settings=(
            Setting(
                SettingForm.DOTENV,
                (_GOOGLE.name,),
                file=".gemini/.env",
                fallbacks=(".env",),
            ),
        ),
        note="With a Google login instead of an API key, Gemini CLI calls Code Assist past any "
        "base url: set GEMINI_API_KEY.",
    ),
    Agent(
        name="qwen",
        title="Qwen Code",
        commands=("qwen",),
        variables=(_OPENAI,),
        dotenv=(".qwen/.env", ".env"),
        refused_arguments=("--openai-base-url", "--openaiBaseUrl"),
        settings=(
            Setting(
                SettingForm.DOTENV,
                (_OPENAI.name,),
                "/v1",
                file=".qwen/.env",
                fallbacks=(".env",),
            ),
        ),
    ),
    Agent(
        name="copilot",
        title="Copilot CLI",
        commands=("copilot",),
        variables=(_COPILOT,),
        headers=HeaderVariable("COPILOT_PROVIDER_HEADERS", "\n"),
        bare_with=("COPILOT_PROVIDER_TYPE", "anthropic"),
        needs=(
            ("COPILOT_MODEL", "COPILOT_PROVIDER_MODEL_ID", "COPILOT_PROVIDER_WIRE_MODEL"),
            (
                "COPILOT_PROVIDER_API_KEY",
                "COPILOT_PROVIDER_API_KEY_COMMAND",
                "COPILOT_PROVIDER_BEARER_TOKEN",
            ),
        ),
        settings=_profile(_COPILOT),
        note="A GitHub login calls GitHub past any base url; Clew sees Copilot CLI with a key of "
        "your own only.",
    ),
    Agent(
        name="pi",
        title="pi",
        commands=("pi",),
        form=Form.PI,
        settings=(
            Setting(
                SettingForm.JSON,
                ("providers", "*", "baseUrl"),
                root=".pi/agent",
                directory="PI_CODING_AGENT_DIR",
                file="models.json",
            ),
        ),
    ),
    Agent(
        name="openai",
        title="any OpenAI client",
        variables=(_OPENAI, _OPENAI_LEGACY),
        headers=HeaderVariable("OPENAI_CUSTOM_HEADERS", "\n"),
        settings=_profile(_OPENAI),
    ),
    Agent(
        name="anthropic",
        title="any Anthropic client",
        variables=(_ANTHROPIC,),
        headers=HeaderVariable("ANTHROPIC_CUSTOM_HEADERS", "\n"),
        settings=_profile(_ANTHROPIC),
    ),
)
BY_NAME: Final = {agent.name: agent for agent in AGENTS}
CLIENTS: Final = tuple(agent.name for agent in AGENTS if not agent.commands)
"""Rows without a program of their own: ``--env`` names them."""


class Provider(msgspec.Struct, frozen=True):
    """A provider built into OpenCode and pi, and what they expect after its origin."""

    name: str
    path: str
    pi_path: str
    keys: tuple[str, ...]
    """Variables that hold its key."""


PROVIDERS: Final = (
    Provider("anthropic", "/v1", "", ("ANTHROPIC_API_KEY",)),
    Provider("openai", "/v1", "/v1", ("OPENAI_API_KEY",)),
    Provider(
        "google",
        "/v1beta",
        "/v1beta",
        ("GOOGLE_GENERATIVE_AI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
    ),
)
