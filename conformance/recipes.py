"""How each agent is installed and driven without a terminal: one row an agent.

``{url}`` is the provider's address, ``{home}`` the agent's own empty home, ``{work}`` its project
directory, ``{session}`` the agent's own id of the session it used last before the scenario
(`Recipe.session_files`).
Credentials are dummies. What a scenario must look like afterwards is in `expectations.py`; a
scenario an agent cannot be brought to without a terminal stands in `Recipe.cannot` with its reason,
an agent that cannot be run at all in `NOT_RUN`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done in it: ``runs`` one after the other, each a fresh process."""

    runs: tuple[tuple[str, ...], ...]
    stdin: str = ""
    """What each process reads; nothing by default."""
    replies: tuple[str, ...] = ()
    """What the model says first, where an agent accepts a form only (a summary)."""


def _once(*arguments: str, stdin: str = "", replies: tuple[str, ...] = ()) -> Scenario:
    return Scenario((arguments,), stdin, replies)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One agent. ``scenarios`` run in this order in one home."""

    name: str
    package: str
    command: str
    source: str
    """The source name `docs/identity.md` gives its sessions."""
    environment: Mapping[str, str]
    scenarios: Mapping[str, Scenario]
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Scenario to the reason why it cannot be had here."""
    leaves_children: bool = False
    """Its process may end while a child still waits for its answer: no tokens then."""
    latency_ms: int = 0
    """Of the model. Where a process would end before its child has said anything."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path below the home to content."""
    session_files: str = ""
    """A pattern below the home; the last UUID in the newest one's name is ``{session}``."""


WITHOUT_ID: Final = "lineage"
"""The source of agents that send no id: their sessions are found by content."""
SCENARIOS: Final = ("new", "continue", "fork", "subagent", "compact", "clear")
"""Every scenario there is, in the order of the table."""
NOT_RUN: Final[Mapping[str, str]] = {
    "amp": "asks for a login, and with a key for its maker's server, before the first request",
    "crush": "its npm package has no program in it; that is downloaded from elsewhere",
}
"""Agents that cannot be run with a dummy key and npm alone."""
_NO_HEADLESS: Final = "its headless mode has no option for it"
_NO_RESUME: Final = "resuming ends with status 1 and no word; a fork of the session works"
_NO_SUBAGENT: Final = "has no subagents of its own"
QUIET: Final = {
    # Nothing but loopback: every other host is behind a proxy that is not there.
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "CI": "1",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "DO_NOT_TRACK": "1",
}

_CLAUDE: Final = ("--model", "claude-sonnet-4-5", "--dangerously-skip-permissions")
_STREAM: Final = ("--input-format", "stream-json", "--output-format", "stream-json", "--verbose")
_CODEX: Final = ("--skip-git-repo-check",)
_SOON_FULL: Final = ("-c", "model_auto_compact_token_limit=10")
_GEMINI: Final = ("--yolo", "--model", "gemini-2.5-pro")
_OPENCODE: Final = ("--model", "sim/gpt-5")
_CN: Final = ("--config", "{home}/.continue/config.yaml", "--auto")
_COPILOT: Final = ("--allow-all-tools", "--no-auto-update")
_DROID: Final = ("exec", "--skip-permissions-unsafe", "--model", "custom:sim-0")

SUMMARY: Final = "<analysis>short</analysis>\n<summary>They greeted one another.</summary>"
_SNAPSHOT: Final = "<analysis>short</analysis><state_snapshot><goal>greet</goal></state_snapshot>"


def _said(*texts: str) -> str:
    """User messages as Claude Code's stream-json input takes them."""
    rows = ({"type": "user", "message": {"role": "user", "content": text}} for text in texts)
    return "".join(json.dumps(row) + "\n" for row in rows)


def _like_opencode() -> str:
    """The configuration that OpenCode and its descendant Kilo share."""
    model = {"name": "gpt-5", "limit": {"context": 200_000, "output": 8_000}}
    provider: dict[str, Any] = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "sim",
        "options": {"baseURL": "{url}/v1", "apiKey": "sk-conformance"},
        "models": {"gpt-5": model},
    }
    more = {"permission": "allow", "autoupdate": False, "share": "disabled"}
    return json.dumps({"provider": {"sim": provider}, **more})


_XDG: Final = {
    "XDG_CONFIG_HOME": "{home}/.config",
    "XDG_DATA_HOME": "{home}/.local/share",
    "XDG_STATE_HOME": "{home}/.local/state",
    "XDG_CACHE_HOME": "{home}/.cache",
}
_LIKE_GEMINI: Final = {
    "privacy": {"usageStatisticsEnabled": False},
    "general": {"enableAutoUpdate": False, "disableAutoUpdate": True},
}

RECIPES: Final = (
    Recipe(
        name="claude-code",
        package="@anthropic-ai/claude-code",
        command="claude",
        source="claude-code",
        environment={
            "ANTHROPIC_BASE_URL": "{url}",
            "ANTHROPIC_API_KEY": "sk-ant-conformance",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
        },
        scenarios={
            "new": _once("-p", "hi", *_CLAUDE),
            "continue": _once("-p", "hi again", "--continue", *_CLAUDE),
            "fork": _once("-p", "hi elsewhere", "--continue", "--fork-session", *_CLAUDE),
            "subagent": _once("-p", "SPAWNSUB please", *_CLAUDE),
            "compact": _once("-p", "/compact", "--continue", *_CLAUDE, replies=(SUMMARY,)),
            "clear": _once("-p", *_STREAM, *_CLAUDE, stdin=_said("hi", "/clear", "hi afresh")),
        },
    ),
    Recipe(
        name="codex",
        package="@openai/codex",
        command="codex",
        source="codex",
        leaves_children=True,
        latency_ms=1_000,
        environment={"CODEX_HOME": "{home}/.codex", "SIM_API_KEY": "sk-conformance"},
        files={
            ".codex/config.toml": (
                'model = "gpt-5"\n'
                'model_provider = "sim"\n'
                'approval_policy = "never"\n'
                'sandbox_mode = "danger-full-access"\n'
                "[model_providers.sim]\n"
                'name = "sim"\n'
                'base_url = "{url}/v1"\n'
                'env_key = "SIM_API_KEY"\n'
                'wire_api = "responses"\n'
                "[features]\n"
                "multi_agent = true\n"
            )
        },
        session_files=".codex/sessions/*/*/*/rollout-*.jsonl",
        scenarios={
            "new": _once("exec", *_CODEX, "hi"),
            "continue": _once("exec", "resume", "--last", *_CODEX, "hi again"),
            "fork": _once("exec", "fork", *_CODEX, "{session}", "hi elsewhere"),
            "subagent": _once("exec", *_CODEX, "SPAWNSUB please"),
            "compact": _once("exec", "resume", "--last", *_CODEX, *_SOON_FULL, "hi compacted"),
        },
        cannot={"clear": _NO_HEADLESS},
    ),
    Recipe(
        name="opencode",
        package="opencode-ai",
        command="opencode",
        source="opencode",
        environment={
            **_XDG,
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        },
        files={".config/opencode/opencode.json": _like_opencode()},
        scenarios={
            "new": _once("run", *_OPENCODE, "hi"),
            "continue": _once("run", *_OPENCODE, "--continue", "hi again"),
            "fork": _once("run", *_OPENCODE, "--continue", "--fork", "hi elsewhere"),
            "subagent": _once("run", *_OPENCODE, "SPAWNSUB please"),
        },
        cannot={"compact": _NO_HEADLESS, "clear": _NO_HEADLESS},
    ),
    Recipe(
        name="kilo",
        package="@kilocode/cli",
        command="kilo",
        source="kilo",
        environment={
            **_XDG,
            "KILO_DISABLE_AUTOUPDATE": "1",
            "KILO_DISABLE_MODELS_FETCH": "1",
            "KILO_DISABLE_LSP_DOWNLOAD": "1",
            "KILO_TELEMETRY_LEVEL": "off",
        },
        files={".config/kilo/kilo.json": _like_opencode()},
        scenarios={
            "new": _once("run", *_OPENCODE, "hi"),
            "continue": _once("run", *_OPENCODE, "--continue", "hi again"),
            "fork": _once("run", *_OPENCODE, "--continue", "--fork", "hi elsewhere"),
            "subagent": _once("run", *_OPENCODE, "SPAWNSUB please"),
        },
        cannot={"compact": _NO_HEADLESS, "clear": _NO_HEADLESS},
    ),
    Recipe(
        name="pi",
        package="@mariozechner/pi-coding-agent",
        command="pi",
        source="pi",
        environment={"PI_OFFLINE": "1", "PI_SKIP_VERSION_CHECK": "1"},
        files={
            ".pi/agent/models.json": json.dumps(
                {
                    "providers": {
                        "sim": {
                            "baseUrl": "{url}/v1",
                            "api": "openai-responses",
                            "apiKey": "sk-conformance",
                            "models": [{"id": "gpt-5", "contextWindow": 200_000}],
                        }
                    }
                }
            )
        },
        session_files=".pi/agent/sessions/*/*.jsonl",
        scenarios={
            "new": _once("-p", *_OPENCODE, "hi"),
            "continue": _once("-p", *_OPENCODE, "--continue", "hi again"),
            "fork": _once("-p", *_OPENCODE, "--fork", "{session}", "hi elsewhere"),
        },
        cannot={"subagent": _NO_SUBAGENT, "compact": _NO_HEADLESS, "clear": _NO_HEADLESS},
    ),
    Recipe(
        name="gemini-cli",
        package="@google/gemini-cli",
        command="gemini",
        source=WITHOUT_ID,
        environment={
            "GOOGLE_GEMINI_BASE_URL": "{url}",
            "GEMINI_API_KEY": "conformance",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        },
        files={
            ".gemini/settings.json": json.dumps(
                {"security": {"auth": {"selectedType": "gemini-api-key"}}, **_LIKE_GEMINI}
            )
        },
        scenarios={
            "new": _once(*_GEMINI, "-p", "hi"),
            "continue": _once(*_GEMINI, "--resume", "latest", "-p", "hi again"),
            "subagent": _once(*_GEMINI, "-p", "SPAWNSUB:generalist please"),
        },
        cannot={
            "fork": _NO_HEADLESS,
            "compact": _NO_HEADLESS,
            "clear": _NO_HEADLESS,
        },
    ),
    Recipe(
        name="qwen-code",
        package="@qwen-code/qwen-code",
        command="qwen",
        source=WITHOUT_ID,
        environment={
            "OPENAI_BASE_URL": "{url}/v1",
            "OPENAI_API_KEY": "sk-conformance",
            "OPENAI_MODEL": "gpt-5",
        },
        files={
            ".qwen/settings.json": json.dumps(
                {"security": {"auth": {"selectedType": "openai"}}, **_LIKE_GEMINI}
            )
        },
        scenarios={
            "new": _once("--yolo", "-p", "hi"),
            "continue": _once("--yolo", "--continue", "-p", "hi again"),
            "fork": Scenario(
                (
                    ("--yolo", "--resume", "{session}", "--fork-session", "-p", "hi elsewhere"),
                    ("--yolo", "--resume", "{session}", "--fork-session", "-p", "hi otherwise"),
                )
            ),
            "subagent": _once("--yolo", "-p", "SPAWNSUB please"),
            "compact": _once("--yolo", "--continue", "-p", "/compress", replies=(_SNAPSHOT,)),
        },
        session_files=".qwen/projects/*/chats/*.jsonl",
        cannot={"clear": _NO_HEADLESS},
    ),
    Recipe(
        name="continue-cn",
        package="@continuedev/cli",
        command="cn",
        source=WITHOUT_ID,
        environment={"CONTINUE_TELEMETRY_ENABLED": "0", "CONTINUE_CLI_ENABLE_TELEMETRY": "0"},
        files={
            ".continue/config.yaml": (
                "name: sim\n"
                "version: 0.0.1\n"
                "schema: v1\n"
                "models:\n"
                "  - name: sim\n"
                "    provider: openai\n"
                "    model: gpt-5\n"
                '    apiBase: "{url}/v1"\n'
                "    apiKey: sk-conformance\n"
                "    roles: [chat]\n"
                "    capabilities: [tool_use]\n"
            )
        },
        session_files=".continue/sessions/*-*.json",
        scenarios={
            "new": _once("-p", *_CN, "hi"),
            "continue": _once("-p", *_CN, "--resume", "hi again"),
            # Without an id the first to go on from a turn is that session; the second forks it.
            "fork": Scenario(
                (
                    ("-p", *_CN, "--fork", "{session}", "hi elsewhere"),
                    ("-p", *_CN, "--fork", "{session}", "hi otherwise"),
                )
            ),
            "compact": _once("-p", *_CN, "--resume", "/compact"),
        },
        cannot={
            "subagent": "its tool says that no session is active when it runs headless",
            "clear": _NO_HEADLESS,
        },
    ),
    Recipe(
        name="cline",
        package="cline",
        command="cline",
        source=WITHOUT_ID,
        environment={"CLINE_TELEMETRY_DISABLED": "1", "CLINE_NO_AUTO_UPDATE": "1"},
        files={
            ".cline/data/settings/providers.json": json.dumps(
                {
                    "version": 1,
                    "lastUsedProvider": "openai-compatible",
                    "modes": {},
                    "providers": {
                        "openai-compatible": {
                            "settings": {
                                "provider": "openai-compatible",
                                "apiKey": "sk-conformance",
                                "model": "gpt-5",
                                "baseUrl": "{url}/v1",
                            },
                            "updatedAt": "2026-11-22T00:00:00.000Z",
                            "tokenSource": "manual",
                        }
                    },
                }
            )
        },
        scenarios={
            "new": _once("hi there"),
            "subagent": _once("SPAWNSUB please"),
        },
        cannot=dict.fromkeys(
            ("continue", "fork", "compact", "clear"), "resuming a session needs a terminal"
        ),
    ),
    Recipe(
        name="copilot-cli",
        package="@github/copilot",
        command="copilot",
        source="prompt-cache-key",
        environment={
            "COPILOT_OFFLINE": "true",
            "COPILOT_AUTO_UPDATE": "false",
            "COPILOT_PROVIDER_BASE_URL": "{url}/v1",
            "COPILOT_PROVIDER_API_KEY": "sk-conformance",
            "COPILOT_PROVIDER_WIRE_API": "responses",
            "COPILOT_MODEL": "gpt-5",
        },
        scenarios={
            "new": _once(*_COPILOT, "-p", "hi"),
            "continue": _once(*_COPILOT, "--continue", "-p", "hi again"),
            "subagent": _once(*_COPILOT, "-p", "SPAWNSUB please"),
            "compact": _once(*_COPILOT, "--continue", "-p", "/compact"),
        },
        cannot={"fork": _NO_HEADLESS, "clear": _NO_HEADLESS},
    ),
    Recipe(
        name="droid",
        package="droid",
        command="droid",
        source=WITHOUT_ID,
        environment={"FACTORY_API_KEY": "fk-conformance"},
        files={
            ".factory/settings.json": json.dumps(
                {
                    "customModels": [
                        {
                            "model": "sim-model",
                            "id": "custom:sim-0",
                            "index": 0,
                            "displayName": "sim",
                            "baseUrl": "{url}/v1",
                            "apiKey": "sk-conformance",
                            "provider": "generic-chat-completion-api",
                            "maxOutputTokens": 8000,
                        }
                    ]
                }
            )
        },
        session_files=".factory/sessions/*/*.jsonl",
        scenarios={
            "new": _once(*_DROID, "hi"),
            "fork": Scenario(
                (
                    (*_DROID, "--fork", "{session}", "hi elsewhere"),
                    (*_DROID, "--fork", "{session}", "hi otherwise"),
                )
            ),
        },
        cannot={
            "continue": _NO_RESUME,
            "subagent": "its tool says that it cannot reach its daemon",
            "compact": _NO_RESUME,
            "clear": _NO_HEADLESS,
        },
    ),
)
