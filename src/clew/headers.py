"""Every header name Clew reads or writes, lower-cased; nothing else (the SDK imports this).

What each means, and which wins, is `core.clients`; what leaves again is `core.translate`.
"""

from __future__ import annotations

from typing import Final

# The canonical identity, which every harness may send.
SESSION_ID: Final = "x-dynamo-session-id"
PARENT_SESSION_ID: Final = "x-dynamo-parent-session-id"
SESSION_FINAL: Final = "x-dynamo-session-final"

# Clew's own, from the client.
CLEW_KEY: Final = "x-clew-key"
CLEW_PARENT: Final = "x-clew-parent"
CLEW_KIND: Final = "x-clew-kind"

# Clew's own, to the client (and the epoch also to engines with affinity).
CLEW_REQUEST_ID: Final = "x-clew-request-id"
CLEW_RESOLUTION: Final = "x-clew-resolution"
CLEW_SOURCE: Final = "x-clew-source"
CLEW_SESSION: Final = "x-clew-session"
CLEW_SESSION_ID: Final = "x-clew-session-id"
CLEW_WORKER: Final = "x-clew-worker"
CLEW_BINDING: Final = "x-clew-binding"
CLEW_EPOCH: Final = "x-clew-epoch"
CLEW_ERROR: Final = "x-clew-error"
SHOULD_RETRY: Final = "x-should-retry"
RETRY_AFTER: Final = "retry-after"

# Gateways and harnesses with an explicit session header.
CAGENT_SESSION_ID: Final = "x-cagent-session-id"
CAGENT_FORWARD: Final = "x-cagent-forward"
CAGENT_GENERATING_TITLE: Final = "x-cagent-generatingtitle"
CAGENT_COMPACTING: Final = "x-cagent-compacting"
LORE_SESSION_ID: Final = "x-lore-session-id"
LITELLM_SESSION_ID: Final = "x-litellm-session-id"
HELICONE_SESSION_ID: Final = "helicone-session-id"
BIFROST_SESSION_ID: Final = "x-bf-session-id"

# Claude Code.
CLAUDE_CODE_SESSION_ID: Final = "x-claude-code-session-id"
CLAUDE_CODE_AGENT_ID: Final = "x-claude-code-agent-id"
CLAUDE_CODE_PARENT_AGENT_ID: Final = "x-claude-code-parent-agent-id"
CLAUDE_CODE_REQUEST_CLASS: Final = "x-claude-code-request-class"

# Codex.
CODEX_THREAD_ID: Final = "thread-id"
CODEX_PARENT_THREAD_ID: Final = "x-codex-parent-thread-id"
CODEX_TURN_METADATA: Final = "x-codex-turn-metadata"
CODEX_WINDOW_ID: Final = "x-codex-window-id"
ORIGINATOR: Final = "originator"

# One header, one client.
OPENCODE_SESSION: Final = "x-opencode-session"
KILO_TASK_ID: Final = "x-kilocode-taskid"
AMP_THREAD_ID: Final = "x-amp-thread-id"
GROK_SESSION_ID: Final = "x-grok-session-id"
GOOSE_SESSION_ID: Final = "agent-session-id"
COPILOT_SESSION_ID: Final = "x-client-session-id"
DEEPSEEK_SESSION_ID: Final = "x-deepseek-harness-session-id"
DEEPSEEK_PARENT_SESSION_ID: Final = "x-deepseek-harness-parent-session-id"
COPILOT_INTERACTION: Final = "x-interaction-type"
DEEPSEEK_COMPACT: Final = "x-deepseek-harness-compact"
TASK_ID: Final = "x-task-id"

# Names that several clients share; the user agent tells them apart.
X_SESSION_ID: Final = "x-session-id"
BARE_SESSION_ID: Final = "session-id"
BARE_SESSION_ID_TWIN: Final = "session_id"
SESSION_AFFINITY: Final = "x-session-affinity"
X_PARENT_SESSION_ID: Final = "x-parent-session-id"
CLIENT_REQUEST_ID: Final = "x-client-request-id"

# What inference routers read.
SMG_ROUTING_KEY: Final = "x-smg-routing-key"

# Credentials and the vendors' signs.
AUTHORIZATION: Final = "authorization"
X_API_KEY: Final = "x-api-key"
GOOGLE_API_KEY: Final = "x-goog-api-key"
CHATGPT_ACCOUNT_ID: Final = "chatgpt-account-id"
ANTHROPIC_VERSION: Final = "anthropic-version"
USER_AGENT: Final = "user-agent"
HOST: Final = "host"
CONNECTION: Final = "connection"
