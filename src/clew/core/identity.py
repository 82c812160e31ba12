"""Which session a request belongs to, from its headers alone.

The rows of `core.clients` are tried in order; the first that finds an id names the session, the
others add aliases by which an older session may be found. Rules that hold for every row:

* A canonical header that is invalid, or any canonical or credential header that comes twice or
  beside its underscore twin, refuses the request: two readers must not see two identities.
* A client's own id is never a reason to fail a call: not usable means ignored, and flagged.
* An id that several agents share names the run, never the thread. Where the narrower id came but
  is not usable, the shared one keeps tree scope, so that no subagent is taken for its parent.
* One value never fills two roles: a header read by one row is not read again by a later one.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from clew import headers as h
from clew.core.claim import Alias, Claim, Headers, Kind, Lifetime, Scope
from clew.core.clients import (
    CANONICAL,
    CLIENT_REQUEST,
    CLIENT_REQUEST_SIGNS,
    CODEX_KINDS,
    KIND_HEADERS,
    STRICT,
    Agent,
    ClientTable,
    CompiledRow,
)
from clew.core.errors import ClewError
from clew.core.identity_body import add_body_ids
from clew.core.identity_value import native_id, read_turn_metadata
from clew.core.routing import is_count_tokens

FLAGS: Final[dict[str, str]] = {
    "native_id_invalid": "A client's id is over 512 bytes or has blanks or control characters; "
    "it is ignored.",
    "native_id_conflict": "A client's id came twice, or in two spellings, with different values; "
    "all are ignored.",
    "underscore_twin_ignored": "A known header came only with underscores for hyphens, which "
    "proxies rewrite; it is ignored.",
    "parent_is_self": "The parent named is the session itself; the parent is dropped.",
    "parent_without_session": "A canonical parent came without a canonical session; it is ignored.",
    "final_invalid": "X-Dynamo-Session-Final is none of true, 1, yes, on, false, 0, no, off; it "
    "is ignored.",
    "kind_invalid": "X-Clew-Kind names no kind; it is ignored.",
    "clew_parent_ignored": "X-Clew-Parent came beside an id that brings its own parent, or is "
    "not usable; it is ignored.",
    "cagent_without_forward": "X-Cagent-Session-Id came without X-Cagent-Forward; it is ignored.",
    "request_lifetime_id": "A configured client's id lasts for one request; it names no session.",
    "metadata_invalid": "Codex's turn metadata is not the JSON it should be; it is ignored.",
    "body_id_invalid": "An id in the body is not text of 1 to 512 bytes without control "
    "characters; it is ignored.",
    "user_id_oversize": "metadata.user_id is over 64 KiB; it is not searched for a session.",
}
"""Every flag identification sets, with what it means."""

_USER_AGENT: Final = h.USER_AGENT.encode()
_ORIGINATOR: Final = h.ORIGINATOR.encode()
_SESSION: Final = h.SESSION_ID.encode()
_PARENT: Final = h.PARENT_SESSION_ID.encode()
_FINAL: Final = h.SESSION_FINAL.encode()
_CLEW_PARENT: Final = h.CLEW_PARENT.encode()
_CLEW_KIND: Final = h.CLEW_KIND.encode()
_METADATA: Final = h.CODEX_TURN_METADATA.encode()
_CLIENT_REQUEST: Final = h.CLIENT_REQUEST_ID.encode()
_KIND_HEADERS: Final = tuple((name.encode(), kinds) for name, kinds in KIND_HEADERS)

_CANONICAL_VALUE: Final = re.compile(rb"[A-Za-z0-9._:/@+=~-]{1,256}")
DECLARED_PARENT: Final = b"canonical:"
"""Before an id in ``X-Clew-Parent``: the session with this canonical id, called or not yet."""
_DECLARED_VALUE: Final = re.compile(DECLARED_PARENT + _CANONICAL_VALUE.pattern)
_TRUTH: Final = {
    **dict.fromkeys((b"true", b"1", b"yes", b"on"), True),
    **dict.fromkeys((b"false", b"0", b"no", b"off"), False),
}
_KINDS: Final = {kind.value.encode(): kind for kind in Kind}


def identify(headers: Headers, table: ClientTable, path: bytes = b"") -> Claim:
    """What the headers say of a request's session, parent, root and kind.

    ``path`` (without query) tells token counts from turns. Raises ClewError
    ``session_id_invalid`` or ``ambiguous_header``, nothing else, whatever the headers hold.
    """
    reading = _Reading(headers, table)
    present = reading.present
    agent = table.agent(present.get(_USER_AGENT, b""), present.get(_ORIGINATOR, b""))
    found = _Found()
    _read_canonical(reading, found)
    for number in sorted(reading.triggered):
        _read_row(table.compiled[number], reading, agent, found)
    if found.session is None and agent.sign in CLIENT_REQUEST_SIGNS:
        _read_client_request(reading, agent, found)
    metadata = present.get(_METADATA)
    if metadata:
        _read_metadata(metadata, reading, found)
    return _claim(reading, agent, found, path)


def identify_with_body(
    claim: Claim, headers: Headers, path: bytes, body: object, table: ClientTable
) -> Claim:
    """Complete a claim whose headers name no durable thread from the request's body.

    ``body`` is the JSON text or the decoded document; anything else adds nothing. The body is
    never changed. Never raises. The cost grows with the body, which is only skimmed.
    """
    if claim.names_durable_thread:
        return claim
    user_agent = next((value for name, value in headers if name == _USER_AGENT), b"")
    sign = table.agent(user_agent, b"").sign
    claim = add_body_ids(claim, body, sign, table.shared_families)
    if claim.kind is Kind.TURN and is_count_tokens(path):
        claim = msgspec.structs.replace(claim, kind=Kind.COUNT_TOKENS)
    return claim


def below_run(claim: Claim, run: str) -> Claim:
    """The claim with the run its path names (empty: none) as the parent it declares.

    As with ``X-Clew-Parent``: a parent that the request brings outranks it, and a canonical
    session has its own parent only.
    """
    session = claim.session
    is_own = session is not None and session.source == CANONICAL.source
    if not run or is_own or claim.parent is not None or claim.attach_to:
        return claim
    parent = Alias(CANONICAL.source, run, CANONICAL.source)
    return msgspec.structs.replace(claim, parent=parent)


class _Reading:
    """One request's relevant headers; a value that a row takes is gone for the next."""

    __slots__ = ("flags", "present", "triggered", "unusable")

    def __init__(self, headers: Headers, table: ClientTable) -> None:
        self.present: dict[bytes, bytes] = {}
        self.flags: list[str] = []
        self.unusable: set[bytes] = set()
        self.triggered: set[int] = set()
        """Numbers of the rows that a present header can trigger."""
        self._collect(headers, table)

    def _collect(self, headers: Headers, table: ClientTable) -> None:
        present, slots, by_header = self.present, table.slots, table.by_header
        twins: list[tuple[bytes, bytes]] = []
        for name, value in headers:
            slot = slots.get(name)
            if slot is None:
                if b"_" in name and (slot := slots.get(name.replace(b"_", b"-"))):
                    twins.append((slot, value))
                continue
            if slot in present:
                self._meet_again(slot, value)
                continue
            present[slot] = value
            if slot in by_header:
                self.triggered.update(by_header[slot])
        for slot, value in twins:
            if slot in present:
                self._meet_again(slot, value)
            else:
                self.flag("underscore_twin_ignored")

    def _meet_again(self, slot: bytes, value: bytes) -> None:
        if slot in STRICT:
            raise ClewError("ambiguous_header", f"{slot.decode()} came twice; send it once")
        if self.present[slot] != value:
            self.unusable.add(slot)

    def flag(self, name: str) -> None:
        if name not in self.flags:
            self.flags.append(name)

    def take(self, slot: bytes) -> str:
        """The id in a header, once; empty when absent, blank or not usable (then flagged)."""
        value = self.present.pop(slot, None)
        if not value:
            return ""
        if slot in self.unusable:
            self.flag("native_id_conflict")
            return ""
        text = native_id(value)
        if not text:
            self.unusable.add(slot)
            self.flag("native_id_invalid")
        return text


class _Found:
    """What the rows have found so far."""

    __slots__ = (
        "forked_from",
        "is_canonical",
        "is_subagent",
        "is_title",
        "kind",
        "others",
        "parent",
        "root",
        "session",
    )

    def __init__(self) -> None:
        self.session: Alias | None = None
        self.parent: Alias | None = None
        self.root: Alias | None = None
        self.others: list[Alias] = []
        self.forked_from: Alias | None = None
        self.is_canonical = False
        self.is_title = False
        self.is_subagent = False
        self.kind: Kind | None = None

    def add(self, session: Alias, parent: Alias | None = None, root: Alias | None = None) -> None:
        """The first session stays; a later thread id becomes a further alias."""
        if self.session is None:
            self.session, self.parent, self.root = session, parent, root
        elif session.scope is Scope.THREAD and not any(
            (known.family, known.value) == (session.family, session.value)
            for known in (self.session, *self.others)
        ):
            self.others.append(session)


def _read_canonical(reading: _Reading, found: _Found) -> None:
    session = _canonical_value(reading, _SESSION)
    parent = _canonical_value(reading, _PARENT)
    if not session:
        if parent:
            reading.flag("parent_without_session")
        return
    found.is_canonical = True
    if parent == session:
        reading.flag("parent_is_self")
        parent = ""
    source = CANONICAL.source
    found.add(Alias(source, session, source), Alias(source, parent, source) if parent else None)


def _canonical_value(reading: _Reading, slot: bytes) -> str:
    value = reading.present.get(slot, b"").strip()
    if not value:
        return ""
    if _CANONICAL_VALUE.fullmatch(value) is None:
        raise ClewError("session_id_invalid")
    return value.decode("ascii")


def _read_row(row: CompiledRow, reading: _Reading, agent: Agent, found: _Found) -> None:
    if not _is_for(row, reading, agent):
        return
    agent_id = reading.take(row.agent) if row.agent else ""
    has_bad_agent = row.agent in reading.unusable
    if row.needs_agent and not agent_id and not has_bad_agent:
        return
    ids = _take_ids(row, reading, found)
    if has_bad_agent:
        if ids:
            shared = Alias(row.family, ids[0].value, row.source, Scope.TREE)
            found.add(shared, root=shared)
        return
    shared_by = ids[0] if ids and row.agent else None
    if agent_id and not (ids and not row.needs_agent and agent_id == ids[0].value):
        ids = [Alias(row.family, agent_id, row.source, lifetime=row.lifetimes[0])]
    if not ids:
        return
    session = ids[0]
    if session.lifetime is Lifetime.REQUEST:
        reading.flag("request_lifetime_id")
        return
    root = shared_by
    found.add(session, _read_parent(row, reading, session, root), root)
    for alias in ids[1:]:
        found.add(alias)


def _is_for(row: CompiledRow, reading: _Reading, agent: Agent) -> bool:
    """Whether a row applies: its gate is there, and the client is the one it is for."""
    present = reading.present
    if row.gate and not present.get(row.gate):
        if any(present.pop(name, b"") for name in row.session):
            reading.flag("cagent_without_forward")
        return False
    if not row.sign or row.sign == agent.sign:
        return True
    if not row.equals:
        return False
    other = present.get(row.equals)
    return bool(other) and any(present.get(name) == other for name in row.session)


def _take_ids(row: CompiledRow, reading: _Reading, found: _Found) -> list[Alias]:
    """The usable ids of a row's session headers, strongest first, equal ones once."""
    ids: list[Alias] = []
    for name, lifetime in zip(row.session, row.lifetimes, strict=True):
        if name not in reading.present:
            continue
        value = reading.take(name)
        prefix = row.title_prefix
        if prefix and len(value) > len(prefix) and value.startswith(prefix):
            found.is_title = True
            value = value[len(prefix) :]
        if value and all(value != known.value for known in ids):
            ids.append(Alias(row.family, value, row.source, lifetime=lifetime))
    return ids


def _read_parent(
    row: CompiledRow, reading: _Reading, session: Alias, root: Alias | None
) -> Alias | None:
    """The parent a row names: its own header, else the run's root where the row says so."""
    is_agent = root is not None and root.value != session.value
    if row.parent and (is_agent or not row.root_is_parent or root is None):
        value = reading.take(row.parent)
        if value and value != session.value:
            return Alias(row.family, value, row.source)
        if value:
            reading.flag("parent_is_self")
    return root if is_agent and row.root_is_parent else None


def _read_client_request(reading: _Reading, agent: Agent, found: _Found) -> None:
    value = reading.take(_CLIENT_REQUEST)
    if value:
        found.add(Alias(agent.sign, value, CLIENT_REQUEST.source))


def _read_metadata(value: bytes, reading: _Reading, found: _Found) -> None:
    metadata = read_turn_metadata(value)
    if metadata is None:
        reading.flag("metadata_invalid")
        return
    if metadata.request_kind:
        found.kind = CODEX_KINDS.get(metadata.request_kind, Kind.OTHER)
    found.is_subagent = metadata.is_subagent
    source, session = metadata.forked_from, found.session
    if source and session is not None and session.source == "codex" and source != session.value:
        found.forked_from = Alias("codex", source, "codex")


def _claim(reading: _Reading, agent: Agent, found: _Found, path: bytes) -> Claim:
    session, root = found.session, found.root
    attach_to, declared = _read_attachment(reading, found)
    is_subagent = (
        found.is_subagent
        or found.parent is not None
        or (root is not None and session is not None and root.value != session.value)
    )
    kind = _read_kind(reading, found, path)
    if kind is Kind.TURN and is_subagent:
        kind = Kind.SUBAGENT
    return Claim(
        session=session,
        parent=found.parent or declared,
        root=root,
        others=tuple(found.others),
        forked_from=found.forked_from,
        attach_to=attach_to,
        kind=kind,
        client=agent.client,
        final=_read_final(reading),
        is_subagent=is_subagent or kind is Kind.SUBAGENT,
        flags=tuple(reading.flags),
    )


def _read_attachment(reading: _Reading, found: _Found) -> tuple[str, Alias | None]:
    """``X-Clew-Parent``: any id of a session to look up, or the parent it declares.

    An agent attached so is a root of its own kind, no subagent: its calls are turns.
    """
    value = reading.present.get(_CLEW_PARENT)
    if not value:
        return "", None
    text = native_id(value)
    if found.session is not None and text == found.session.value:
        reading.flag("parent_is_self")
        return "", None
    is_declared = value.startswith(DECLARED_PARENT)
    is_usable = bool(text) and (not is_declared or _DECLARED_VALUE.fullmatch(value) is not None)
    if not is_usable or found.is_canonical or found.parent is not None:
        reading.flag("clew_parent_ignored")
        return "", None
    if not is_declared:
        return text, None
    source = CANONICAL.source
    return "", Alias(source, text.removeprefix(DECLARED_PARENT.decode()), source)


def _read_final(reading: _Reading) -> bool:
    value = reading.present.get(_FINAL)
    if not value:
        return False
    truth = _TRUTH.get(value.strip().lower())
    if truth is None:
        reading.flag("final_invalid")
    return truth is True


def _read_kind(reading: _Reading, found: _Found, path: bytes) -> Kind:
    """What the path says, else ``X-Clew-Kind``, the client's own marks, else a turn."""
    present = reading.present
    if is_count_tokens(path):
        return Kind.COUNT_TOKENS
    value = present.get(_CLEW_KIND)
    if value:
        named = _KINDS.get(value.strip().lower())
        if named is not None and named is not Kind.COUNT_TOKENS:  # free by its path alone
            return named
        reading.flag("kind_invalid")
    if found.is_title:
        return Kind.TITLE
    for name, kinds in _KIND_HEADERS:
        value = present.get(name)
        if value is not None and value in kinds:
            return kinds[value]
    return found.kind or Kind.TURN
