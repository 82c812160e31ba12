"""How each agent is installed and driven without a terminal: one row an agent.

``{url}`` is the gateway, ``{home}`` the agent's own empty home, ``{work}`` its project directory.
Credentials are dummies. What a scenario must look like afterwards is in `expectations.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Recipe:
    """One agent. ``scenarios`` run in this order in one home, each a fresh process."""

    name: str
    package: str
    command: str
    source: str
    """The source name `docs/identity.md` gives its sessions."""
    environment: Mapping[str, str]
    scenarios: Mapping[str, tuple[str, ...]]
    leaves_children: bool = False
    """Its process may end while a child still waits for its answer: no tokens then."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path below the home to content."""


WITHOUT_ID: Final = "lineage"
"""The source of agents that send no id: their sessions are found by content."""
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
_CODEX: Final = ("--skip-git-repo-check",)
_GEMINI: Final = ("--yolo", "--model", "gemini-2.5-pro")
_OPENCODE: Final = ("--model", "sim/gpt-5")

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
            "new": ("-p", "hi", *_CLAUDE),
            "continue": ("-p", "hi again", "--continue", *_CLAUDE),
            "fork": ("-p", "hi elsewhere", "--continue", "--fork-session", *_CLAUDE),
            "subagent": ("-p", "SPAWNSUB please", *_CLAUDE),
        },
    ),
    Recipe(
        name="codex",
        package="@openai/codex",
        command="codex",
        source="codex",
        leaves_children=True,
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
        scenarios={
            "new": ("exec", *_CODEX, "hi"),
            "continue": ("exec", "resume", "--last", *_CODEX, "hi again"),
            "subagent": ("exec", *_CODEX, "SPAWNSUB please"),
        },
    ),
    Recipe(
        name="opencode",
        package="opencode-ai",
        command="opencode",
        source="opencode",
        environment={
            "XDG_CONFIG_HOME": "{home}/.config",
            "XDG_DATA_HOME": "{home}/.local/share",
            "XDG_STATE_HOME": "{home}/.local/state",
            "XDG_CACHE_HOME": "{home}/.cache",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        },
        files={
            ".config/opencode/opencode.json": json.dumps(
                {
                    "provider": {
                        "sim": {
                            "npm": "@ai-sdk/openai-compatible",
                            "name": "sim",
                            "options": {"baseURL": "{url}/v1", "apiKey": "sk-conformance"},
                            "models": {
                                "gpt-5": {
                                    "name": "gpt-5",
                                    "limit": {"context": 200_000, "output": 8_000},
                                }
                            },
                        }
                    },
                    "permission": "allow",
                    "autoupdate": False,
                    "share": "disabled",
                }
            )
        },
        scenarios={
            "new": ("run", *_OPENCODE, "hi"),
            "continue": ("run", *_OPENCODE, "--continue", "hi again"),
            "subagent": ("run", *_OPENCODE, "SPAWNSUB please"),
        },
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
                {
                    "security": {"auth": {"selectedType": "gemini-api-key"}},
                    "privacy": {"usageStatisticsEnabled": False},
                    "general": {"enableAutoUpdate": False, "disableAutoUpdate": True},
                }
            )
        },
        scenarios={
            "new": (*_GEMINI, "-p", "hi"),
            "continue": (*_GEMINI, "--resume", "latest", "-p", "hi again"),
            "subagent": (*_GEMINI, "-p", "SPAWNSUB:generalist please"),
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
                {
                    "security": {"auth": {"selectedType": "openai"}},
                    "privacy": {"usageStatisticsEnabled": False},
                    "general": {"enableAutoUpdate": False, "disableAutoUpdate": True},
                }
            )
        },
        scenarios={
            "new": ("--yolo", "-p", "hi"),
            "continue": ("--yolo", "--continue", "-p", "hi again"),
            "subagent": ("--yolo", "-p", "SPAWNSUB please"),
        },
    ),
)
