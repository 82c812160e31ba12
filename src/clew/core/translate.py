"""Which of a client's headers an upstream gets, and which identity Clew adds.

Everything a client sends goes on byte for byte, except:

* hop-by-hop fields, ``host`` and what ``Connection`` lists (RFC 9110 7.6.1);
* Clew's key, wherever it stands;
* identity headers of the gateway world (``x-dynamo-*``, ``x-cagent-*`` …), unless the upstream's
  ``identity_out`` names them: then Clew's values stand in for the client's;
* an agent's own identity headers, before a vendor that is not the agent's maker;
* a recognised vendor's credential, before another vendor or an engine; every credential, where
  Clew supplies its own.

A header's fate depends on its name (and, for credentials, its value) and on the upstream alone,
so each upstream has one `HeaderPolicy` that remembers names: one look-up a header.

``identity_out`` names (value: the session id), each from its reader's public documentation:

* ``dynamo``: ``X-Dynamo-Session-ID``, with parent and final (NVIDIA Dynamo, "Session IDs");
* ``cagent``: ``X-Cagent-Session-Id`` (docker-agent, pull request 2631);
* ``openrouter``: ``x-session-id``, the sticky-routing key, at most 256 characters (OpenRouter API
  reference, ``session_id``);
* ``smg``: ``x-smg-routing-key`` (SGLang Model Gateway, "Sticky Sessions and Routing Keys");
* ``vllm-router``: ``x-session-id``, first in its hash-key priority (vLLM Router,
  ``docs/load_balancing/README.md``);
* ``litellm``: ``x-litellm-session-id`` (LiteLLM, ``get_chain_id_from_headers``, "Session Logs");
* ``opencode``: ``x-opencode-session`` (OpenCode's gateway refuses calls without one).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

from clew import headers as h
from clew.core.billing import (
    ANTHROPIC,
    CREDENTIAL_HEADERS,
    GOOGLE,
    MAKER,
    OPENAI,
    Certainty,
    is_gateway_key,
    owner_of,
)
from clew.core.claim import Headers
from clew.core.clients import BUILT_IN

IDENTITY_OUT: Final[dict[str, str]] = {
    "none": "",
    "dynamo": h.SESSION_ID,
    "cagent": h.CAGENT_SESSION_ID,
    "openrouter": h.X_SESSION_ID,
    "smg": h.SMG_ROUTING_KEY,
    "vllm-router": h.X_SESSION_ID,
    "litellm": h.LITELLM_SESSION_ID,
    "opencode": h.OPENCODE_SESSION,
}
"""``identity_out`` to the header that carries the session id; any other value is a header name."""

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

REMOVED_PREFIXES: Final = (b"x-dynamo-", b"x-cagent-", b"x-lore-", b"x-clew-")
REMOVED_NAMES: Final = frozenset(
    name.encode() for name in (h.LITELLM_SESSION_ID, h.HELICONE_SESSION_ID, h.BIFROST_SESSION_ID)
)

_FAMILY_PREFIX: Final = {"dynamo": b"x-dynamo-", "cagent": b"x-cagent-"}
"""``identity_out`` names whose whole header family then passes, but for what Clew sets itself."""

_REPLACED: Final = {
    "dynamo": (h.SESSION_ID, h.PARENT_SESSION_ID, h.SESSION_FINAL),
}
"""Headers that carry Clew's values beside the session id, so that the client's never do."""

MAKER_PREFIXES: Final = ((b"x-claude-code-", ANTHROPIC), (b"x-codex-", OPENAI))
_ROW_MAKER: Final = {"claude-code": ANTHROPIC, "codex": OPENAI}

_FORBIDDEN_OUT: Final = (
    HOP_BY_HOP | CREDENTIAL_HEADERS | {b"host", b"content-length", b"cookie", b"set-cookie"}
)
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE_VALUE: Final = re.compile(rb"[\x00-\x1f\x7f]")

MEMO_NAMES: Final = 512
"""Names a policy remembers; a client that invents more only pays the slow path for them."""
MEMO_NAME_BYTES: Final = 64

_EPOCH: Final = h.CLEW_EPOCH.encode()
_ACCOUNT_ID: Final = h.CHATGPT_ACCOUNT_ID.encode()
_HOST: Final = h.HOST.encode()
_NONE: Final[frozenset[bytes]] = frozenset()


class Verdict(IntEnum):
    """A header's fate at one upstream."""

    DROP = 0
    KEEP = 1
    CREDENTIAL = 2
    """Depends on the value."""


_DROP: Final = Verdict.DROP
_KEEP: Final = Verdict.KEEP


class Outgoing(msgspec.Struct, frozen=True):
    """The identity that goes with one request, as far as it is known."""

    session_id: str = ""
    """The stable external id; empty when unattributed: then no identity is added."""
    parent_id: str = ""
    is_final: bool = False
    epoch: int | None = None
    """Set for engines with affinity."""


NOBODY: Final = Outgoing()


def _makers() -> dict[bytes, str]:
    """Agent-native header → its maker's company, empty where that is no built-in vendor."""
    found: dict[bytes, str] = {}
    for row in BUILT_IN:
        if row.order.rstrip("b") not in ("3", "4", "5", "6"):
            continue
        maker = _ROW_MAKER.get(row.source, "")
        names = [item.header for item in row.session] + [row.agent, row.parent]
        for name in filter(None, names):
            found.setdefault(name.encode(), maker)
    return found


AGENT_NATIVE: Final = _makers()


class HeaderPolicy:
    """What one upstream gets. Raises ValueError when ``identity_out`` is no usable header name.

    ``vendor`` and ``kind`` as in the route; ``api_key``: Clew's own credential for it, or empty.
    """

    __slots__ = (
        "_credential",
        "_family",
        "_identity",
        "_replaced",
        "adds_nothing",
        "kind",
        "maker",
        "verdicts",
    )

    def __init__(
        self, vendor: str, kind: str, identity_out: str = "none", api_key: str = ""
    ) -> None:
        self.maker = MAKER.get(vendor, "")
        self.kind = kind
        header = IDENTITY_OUT.get(identity_out, identity_out).lower().encode()
        if header and (_TOKEN.fullmatch(header) is None or header in _FORBIDDEN_OUT):
            raise ValueError(f"identity_out: {identity_out!r} cannot carry a session id")
        self._identity = header
        self._family = _FAMILY_PREFIX.get(identity_out, b"")
        replaced = {name.encode() for name in _REPLACED.get(identity_out, ())}
        self._replaced = frozenset(replaced | ({header} if header else set()))
        self._credential = _credential_line(vendor, api_key) if api_key else b""
        self.adds_nothing = not header and not api_key
        """Whether `additions` is empty for a request without an epoch."""
        self.verdicts: dict[bytes, Verdict] = {}

    def decide(self, name: bytes) -> Verdict:
        """The fate of a lower-cased header name, remembered (at most `MEMO_NAMES` short ones)."""
        verdict = self._decide(name.replace(b"_", b"-"))
        if len(self.verdicts) < MEMO_NAMES and len(name) <= MEMO_NAME_BYTES:
            self.verdicts[name] = verdict
        return verdict

    def _decide(self, name: bytes) -> Verdict:
        if name in CREDENTIAL_HEADERS or name == _ACCOUNT_ID:
            return Verdict.DROP if self._credential else Verdict.CREDENTIAL
        if name in HOP_BY_HOP or name == _HOST or name in self._replaced:
            return Verdict.DROP
        if self._family and name.startswith(self._family):
            return Verdict.KEEP
        if name.startswith(REMOVED_PREFIXES) or name in REMOVED_NAMES:
            return Verdict.DROP
        return Verdict.KEEP if self._may_see(name) else Verdict.DROP

    def _may_see(self, name: bytes) -> bool:
        """Whether an agent's own header may go here: to its maker, or to no vendor at all."""
        if not self.maker:
            return True
        for prefix, maker in MAKER_PREFIXES:
            if name.startswith(prefix):
                return maker == self.maker
        return AGENT_NATIVE.get(name, self.maker) == self.maker

    def may_carry(self, name: bytes, value: bytes, *, has_account_id: bool) -> bool:
        """Whether a credential field may go here: never Clew's key, never another vendor's."""
        if name == _ACCOUNT_ID:
            return self.maker == OPENAI or (not self.maker and self.kind != "engine")
        if is_gateway_key(name, value):
            return False
        owner, certainty = owner_of(name, value, has_account_id=has_account_id)
        if not owner or MAKER[owner] == self.maker:
            return True
        if self.maker:
            return False
        return self.kind != "engine" or certainty is not Certainty.CERTAIN

    def additions(self, outgoing: Outgoing) -> list[bytes]:
        """The lines Clew adds: its credential, the session's identity, the epoch."""
        lines = [self._credential] if self._credential else []
        if self._identity and outgoing.session_id:
            lines += _line(self._identity, outgoing.session_id)
            if self._family == _FAMILY_PREFIX["dynamo"]:
                if outgoing.parent_id:
                    lines += _line(h.PARENT_SESSION_ID.encode(), outgoing.parent_id)
                if outgoing.is_final:
                    lines += _line(h.SESSION_FINAL.encode(), "true")
        if outgoing.epoch is not None:
            lines += _line(_EPOCH, str(outgoing.epoch))
        return lines


def _line(name: bytes, value: str) -> list[bytes]:
    """One field line, or none when the value could break out of it."""
    text = value.encode()
    return [] if _UNSAFE_VALUE.search(text) else [b"%b: %b\r\n" % (name, text)]


def _credential_line(vendor: str, api_key: str) -> bytes:
    """A provider key in its vendor's form. Raises ValueError when it is not one line."""
    key = api_key.strip()
    forms = {ANTHROPIC: (h.X_API_KEY, key), GOOGLE: (h.GOOGLE_API_KEY, key)}
    name, value = forms.get(vendor, (h.AUTHORIZATION, f"Bearer {key}"))
    lines = _line(name.encode(), value)
    if not lines:
        raise ValueError("the upstream's key holds control characters; one line, please")
    return lines[0]


def upstream_fields(
    names: Sequence[bytes],
    headers: Headers,
    policy: HeaderPolicy,
    host: bytes,
    *,
    outgoing: Outgoing = NOBODY,
    without: frozenset[bytes] = frozenset(),
) -> list[bytes]:
    """The field lines for the upstream, each ``name: value`` and CRLF, ``host`` first.

    ``names`` are the fields' names as received, parallel to ``headers``; ``host`` is the
    destination's authority; ``without``: further lower-cased names to leave out (a framing field
    that the caller writes itself).
    """
    kept = kept_fields(names, headers, policy, without)
    return [b"host: %b\r\n" % host, *kept, *policy.additions(outgoing)]


def kept_fields(
    names: Sequence[bytes],
    headers: Headers,
    policy: HeaderPolicy,
    without: frozenset[bytes] = frozenset(),
) -> list[bytes]:
    """The client's own field lines that go upstream: they follow from the head and the policy."""
    lines: list[bytes] = []
    verdicts = policy.verdicts
    dropped = without | _listed_in_connection(headers)
    for raw, (name, value) in zip(names, headers, strict=True):
        verdict = verdicts.get(name)
        if verdict is None:
            verdict = policy.decide(name)
        if verdict is not _KEEP and (
            verdict is _DROP or not _may_carry(policy, name, value, headers)
        ):
            continue
        if dropped and name in dropped:
            continue
        lines.append(raw + b": " + value + b"\r\n")
    return lines


def _may_carry(policy: HeaderPolicy, name: bytes, value: bytes, headers: Headers) -> bool:
    has_account_id = any(other == _ACCOUNT_ID for other, _ in headers)
    return policy.may_carry(name.replace(b"_", b"-"), value, has_account_id=has_account_id)


def _listed_in_connection(headers: Headers) -> frozenset[bytes]:
    """Names that ``Connection`` makes hop-by-hop."""
    listed = [value for name, value in headers if name == b"connection"]
    if not listed:
        return _NONE
    return frozenset(token.strip().lower() for token in b",".join(listed).split(b","))
