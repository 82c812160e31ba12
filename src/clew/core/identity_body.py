"""Which session a request belongs to, from its body: read only where headers leave it open.

The body is skimmed: only the few fields below are kept, the conversation is passed over. Orders
as in `docs/identity.md`: Claude Code's ``user_id`` (3b) and Codex's ``client_metadata`` (4c) are
as good as those clients' headers and outrank an id that lasts until a restart; the others (7 to
10) count only when no header named anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from clew.core.claim import Alias, Claim, Kind, Lifetime, Scope
from clew.core.clients import BODY_FIELDS, CODEX_KINDS
from clew.core.identity_value import (
    MAX_USER_ID_CHARS,
    body_id,
    read_turn_metadata,
    read_user_id,
)


class _Envelope(msgspec.Struct, frozen=True):
    """The fields of a body that may name a session; decoding skips all others."""

    session_id: Any = None
    litellm_session_id: Any = None
    metadata: Any = None
    conversation: Any = None
    client_metadata: Any = None
    previous_response_id: Any = None
    prompt_cache_key: Any = None


_decode: Final = msgspec.json.Decoder(_Envelope).decode
_NAMES: Final = _Envelope.__struct_fields__
_FIELD_PATHS: Final = tuple(tuple(field.split(".")) for field in BODY_FIELDS)

Fields = Mapping[str, Any]


class _Finding:
    """What the body names so far."""

    __slots__ = ("flags", "forked_from", "is_subagent", "kind", "parent", "root", "session")

    def __init__(self, flags: list[str]) -> None:
        self.flags = flags
        self.session: Alias | None = None
        self.parent: Alias | None = None
        self.root: Alias | None = None
        self.forked_from: Alias | None = None
        self.kind: Kind | None = None
        self.is_subagent = False


def add_body_ids(claim: Claim, body: object, sign: str, shared_families: frozenset[str]) -> Claim:
    """The claim, completed from the body; unchanged when it names nothing.

    ``sign`` is the client by its user agent; ``shared_families`` are those of order 6.
    """
    fields = _fields_of(body)
    if not fields:
        return claim
    named = claim.session
    flags: list[str] = []
    strong = _first(fields, sign, _AS_GOOD_AS_HEADERS, flags)
    if strong.session is not None and _outranks(strong.session, named, shared_families):
        return _with(claim, strong, flags)
    weak = _first(fields, sign, _ORDER_7, flags)
    if named is not None:
        return _with_others(claim, (strong, weak), flags)
    chain = body_id(fields.get("previous_response_id"))
    if weak.session is None:
        weak = _first(fields, sign, _ORDERS_9_AND_10, flags)
    if chain and (weak.session is None or weak.session.scope is Scope.TREE):
        claim = msgspec.structs.replace(claim, previous_response_id=chain)
    return _with(claim, weak, flags)


def _outranks(said: Alias, named: Alias | None, shared_families: frozenset[str]) -> bool:
    """Whether a body's id of order 3b or 4c comes before what the headers named."""
    if named is None:
        return True
    if named.scope is Scope.TREE:  # its narrower header was not usable; the body repeats it
        return said.family == named.family and said.value != named.value
    return named.lifetime is Lifetime.RESTART and named.family in shared_families


def _fields_of(body: object) -> Fields:
    """The relevant fields of JSON text or of a decoded document, as a mapping."""
    if isinstance(body, (bytes, bytearray, memoryview, str)):
        try:
            envelope = _decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return {}
        return {name: getattr(envelope, name) for name in _NAMES}
    return body if isinstance(body, dict) else {}


def _object(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


Reader = Callable[[Fields, str, _Finding], None]


def _first(fields: Fields, sign: str, readers: tuple[Reader, ...], flags: list[str]) -> _Finding:
    """What the first reader that finds a session found; odd things are added to ``flags``."""
    finding = _Finding(flags)
    for read in readers:
        read(fields, sign, finding)
        if finding.session is not None:
            break
    return finding


def _read_claude_code(fields: Fields, _: str, finding: _Finding) -> None:
    """Order 3b."""
    value = _object(fields.get("metadata")).get("user_id")
    if not isinstance(value, str):
        return
    if len(value) > MAX_USER_ID_CHARS:
        finding.flags.append("user_id_oversize")
        return
    found = read_user_id(value)
    if found is not None:
        scope = Scope.TREE if found.is_tree else Scope.THREAD
        finding.session = Alias("claude-code", found.session, "claude-code", scope)
        finding.root = finding.session


def _read_codex(fields: Fields, _: str, finding: _Finding) -> None:
    """Order 4c: what Codex's headers say, said again in the body."""
    said = _object(fields.get("client_metadata"))
    thread = body_id(said.get("thread_id"))
    if not thread:
        return
    finding.session = Alias("codex", thread, "codex")
    root = body_id(said.get("session_id"))
    parent = body_id(said.get("x-codex-parent-thread-id"))
    finding.root = Alias("codex", root, "codex") if root else None
    if parent == thread:
        finding.flags.append("parent_is_self")
    elif parent:
        finding.parent = Alias("codex", parent, "codex")
    text = said.get("x-codex-turn-metadata")
    metadata = read_turn_metadata(text) if isinstance(text, str) else None
    if metadata is not None:
        finding.is_subagent = metadata.is_subagent
        if metadata.request_kind:
            finding.kind = CODEX_KINDS.get(metadata.request_kind, Kind.OTHER)
        if metadata.forked_from and metadata.forked_from != thread:
            finding.forked_from = Alias("codex", metadata.forked_from, "codex")


def _read_fields(fields: Fields, _: str, finding: _Finding) -> None:
    """Order 7: the fields by which frameworks and gateways name a conversation."""
    for path in _FIELD_PATHS:
        value: object = fields
        for name in path:
            value = _object(value).get(name)
        if value is None or isinstance(value, dict):
            continue
        session = body_id(value)
        if session:
            family = "litellm" if path[0].startswith("litellm") else "body"
            finding.session = Alias(family, session, "body")
            break
        if value != "":
            finding.flags.append("body_id_invalid")
    root = body_id(_object(fields.get("client_metadata")).get("session_id"))
    if not root:
        return
    if finding.session is None:
        finding.session = Alias("body", root, "body", Scope.TREE)
    finding.root = Alias("body", root, "body", Scope.TREE)


def _read_cache_key(fields: Fields, _: str, finding: _Finding) -> None:
    """Order 9: shared by a parent and its subagents."""
    value = body_id(fields.get("prompt_cache_key"))
    if value:
        name = "prompt-cache-key"
        finding.session = finding.root = Alias(name, value, name, Scope.TREE)


def _read_kimi(fields: Fields, sign: str, finding: _Finding) -> None:
    """Order 10: everybody else's ``user_id`` is the end user."""
    value = body_id(_object(fields.get("metadata")).get("user_id")) if sign == "kimi" else ""
    if value:
        finding.session = Alias("metadata-user", value, "metadata-user")


_AS_GOOD_AS_HEADERS: Final = (_read_claude_code, _read_codex)
_ORDER_7: Final = (_read_fields,)
_ORDERS_9_AND_10: Final = (_read_cache_key, _read_kimi)


def _with(claim: Claim, finding: _Finding, odd: list[str]) -> Claim:
    """The claim with the body's session; an id the headers named becomes a further alias."""
    flags = tuple(dict.fromkeys((*claim.flags, *odd)))
    session, root = finding.session, finding.root
    if session is None:
        return msgspec.structs.replace(claim, flags=flags)
    named = claim.session
    is_further = named is not None and named.scope is Scope.THREAD
    others = (named, *claim.others) if named and is_further else claim.others
    is_subagent = (
        claim.is_subagent
        or finding.is_subagent
        or finding.parent is not None
        or (root is not None and session.scope is Scope.THREAD and root.value != session.value)
    )
    kind = finding.kind if finding.kind and claim.kind is Kind.TURN else claim.kind
    if kind is Kind.TURN and is_subagent:
        kind = Kind.SUBAGENT
    return msgspec.structs.replace(
        claim,
        session=session,
        parent=finding.parent or claim.parent,
        root=root or claim.root,
        others=others,
        forked_from=finding.forked_from,
        attach_to="" if finding.parent else claim.attach_to,
        kind=kind,
        is_subagent=is_subagent,
        flags=flags,
    )


def _with_others(claim: Claim, findings: tuple[_Finding, ...], odd: list[str]) -> Claim:
    """The claim with the body's thread ids as further aliases."""
    known = {(alias.family, alias.value) for alias in (claim.session, *claim.others) if alias}
    others = claim.others
    for finding in findings:
        alias = finding.session
        if alias is None or alias.scope is Scope.TREE or (alias.family, alias.value) in known:
            continue
        others += (alias,)
        known.add((alias.family, alias.value))
    flags = tuple(dict.fromkeys((*claim.flags, *odd)))
    return msgspec.structs.replace(claim, others=others, flags=flags)
