"""The table of clients: which headers name a session, for whom, how far and for how long.

One row a client, in the order of `docs/identity.md`; the first row that finds an id names the
session, later rows only add aliases. A row is data: a new client is one row here and one capture
in `conformance/`. Orders 8 (`previous_response_id`) and 12 (lineage) are look-ups made elsewhere;
they stand in `client_list` so that the list is whole.

What a row's columns mean:

* ``session``: the headers that name the thread, strongest first; all are one *family*.
* ``agent``: a narrower header. Present, it is the thread, and ``session`` only names the run,
  because several agents share it.
* ``needs_agent``: without ``agent`` the row does not apply at all.
* ``parent``: who spawned the thread; ``root_is_parent``: the run's root did, where no header says.
* ``sign``: the client the row is for, from the user agent or ``originator``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from clew import headers as h
from clew.config.schema import Client
from clew.core.claim import Kind, Lifetime, Scope


class Id(msgspec.Struct, frozen=True):
    """One header of a row. ``also`` is a second spelling that counts as the same header."""

    header: str
    lifetime: Lifetime = Lifetime.DURABLE
    also: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One client's headers."""

    order: str
    source: str
    session: tuple[Id, ...]
    family: str = ""
    agent: str = ""
    needs_agent: bool = False
    parent: str = ""
    root_is_parent: bool = False
    gate: str = ""
    """Only beside this header."""
    sign: str = ""
    equals: str = ""
    """Without the sign, the row still applies when the session header equals this one."""
    title_prefix: str = ""
    """An id behind this prefix is the same session's title call."""
    note: str = ""


class BodyRow(msgspec.Struct, frozen=True, kw_only=True):
    """What only a body tells, or nobody: for the list; the reading is in `core.identity_body`."""

    order: str
    source: str
    fields: tuple[str, ...]
    scope: Scope = Scope.THREAD
    lifetime: Lifetime = Lifetime.DURABLE
    note: str = ""


def _one(order: str, source: str, header: str, **columns: str) -> Row:
    return Row(order=order, source=source, session=(Id(header),), **columns)  # type: ignore[arg-type]  # columns are the text ones of Row


_SHARED_IDS: Final = (
    Id(h.X_SESSION_ID),
    Id(h.BARE_SESSION_ID, also=h.BARE_SESSION_ID_TWIN),
    Id(h.SESSION_AFFINITY, Lifetime.RESTART),
)


def _shared(source: str, *, sign: str = "", equals: str = "", title: str = "", note: str) -> Row:
    return Row(
        order="6",
        source=source,
        session=_SHARED_IDS,
        parent=h.X_PARENT_SESSION_ID,
        sign=sign,
        equals=equals,
        title_prefix=title,
        note=note,
    )


CANONICAL: Final = Row(
    order="1",
    source="canonical",
    session=(Id(h.SESSION_ID),),
    parent=h.PARENT_SESSION_ID,
    note="wins over every other, with its own parent only; invalid is refused, blank is absent",
)

BUILT_IN: Final[tuple[Row, ...]] = (
    _one(
        "2",
        "cagent",
        h.CAGENT_SESSION_ID,
        gate=h.CAGENT_FORWARD,
        note="docker-agent; only beside x-cagent-forward",
    ),
    _one("2", "lore", h.LORE_SESSION_ID),
    _one("2", "litellm", h.LITELLM_SESSION_ID),
    _one("2", "helicone", h.HELICONE_SESSION_ID),
    _one("2", "bifrost", h.BIFROST_SESSION_ID),
    Row(
        order="3",
        source="claude-code",
        session=(Id(h.CLAUDE_CODE_SESSION_ID),),
        agent=h.CLAUDE_CODE_AGENT_ID,
        parent=h.CLAUDE_CODE_PARENT_AGENT_ID,
        root_is_parent=True,
        note="since 2.1.86; subagents share the session id, so beside an agent id it is the root",
    ),
    Row(
        order="4",
        source="codex",
        session=(Id(h.BARE_SESSION_ID, also=h.BARE_SESSION_ID_TWIN),),
        agent=h.CODEX_THREAD_ID,
        needs_agent=True,
        parent=h.CODEX_PARENT_THREAD_ID,
        note="0.131 and later: thread-id is the thread, session-id its root",
    ),
    Row(
        order="4b",
        source="codex",
        session=(Id(h.BARE_SESSION_ID, also=h.BARE_SESSION_ID_TWIN),),
        sign="codex",
        note="older Codex, known by originator or user agent: session-id is the thread",
    ),
    _one(
        "5",
        "opencode",
        h.OPENCODE_SESSION,
        note="sent by OpenCode to its own gateway and by its plugin",
    ),
    _one("5", "kilo", h.KILO_TASK_ID, title_prefix="title-"),
    _one("5", "amp", h.AMP_THREAD_ID),
    _one("5", "grok", h.GROK_SESSION_ID),
    _one("5", "goose", h.GOOSE_SESSION_ID, note="repeats across machines: one per principal"),
    _one("5", "copilot", h.COPILOT_SESSION_ID),
    _one(
        "5",
        "deepseek-harness",
        h.DEEPSEEK_SESSION_ID,
        parent=h.DEEPSEEK_PARENT_SESSION_ID,
    ),
    _one("5", "task", h.TASK_ID),
    _shared("opencode", sign="opencode", note="user agent opencode/…"),
    _shared(
        "kilo",
        sign="kilo",
        title="title-",
        note="user agent Kilo…; title-<id> is the same session's title call",
    ),
    _shared(
        "pi",
        sign="pi",
        equals=h.CLIENT_REQUEST_ID,
        note="user agent pi, or session_id equal to x-client-request-id",
    ),
    _shared("generic", note="any other client; x-session-affinity may be new after a restart"),
)

CLIENT_REQUEST: Final = Row(
    order="11",
    source="client-request",
    session=(Id(h.CLIENT_REQUEST_ID),),
    note="only from Codex and pi, whose value is the session's; elsewhere one per request",
)
CLIENT_REQUEST_SIGNS: Final = frozenset({"codex", "pi"})

BODY_FIELDS: Final = (
    "session_id",
    "litellm_session_id",
    "metadata.session_id",
    "metadata.cursorConversationId",
    "metadata.conversation_id",
    "conversation",
    "conversation.id",
)
"""Order 7, strongest first."""

BODY_ROWS: Final[tuple[BodyRow, ...]] = (
    BodyRow(
        order="3b",
        source="claude-code",
        fields=("metadata.user_id",),
        note="JSON with session_id; the older user_…_session_<uuid> names the root only",
    ),
    BodyRow(
        order="4c",
        source="codex",
        fields=("client_metadata.thread_id",),
        note="the headers' twins in the body: session_id, x-codex-parent-thread-id, turn metadata",
    ),
    BodyRow(order="7", source="body", fields=BODY_FIELDS, note="read without changing the body"),
    BodyRow(
        order="8",
        source="response-chain",
        fields=("previous_response_id",),
        note="the session that got that response; two children of one response are a fork",
    ),
    BodyRow(
        order="9",
        source="prompt-cache-key",
        fields=("prompt_cache_key",),
        scope=Scope.TREE,
        note="shared by a parent and its subagents: names the root, lineage the thread",
    ),
    BodyRow(
        order="10",
        source="metadata-user",
        fields=("metadata.user_id",),
        note="only from Kimi, which puts its session there; elsewhere the end user",
    ),
)
LINEAGE: Final = BodyRow(
    order="12",
    source="lineage",
    fields=(),
    note="content; the only way for clients that send no id at all",
)

KIND_HEADERS: Final[tuple[tuple[str, dict[bytes, Kind]], ...]] = (
    (h.CAGENT_GENERATING_TITLE, {b"1": Kind.TITLE}),
    (h.CAGENT_COMPACTING, {b"1": Kind.COMPACTION}),
    (h.DEEPSEEK_COMPACT, {b"1": Kind.COMPACTION}),
    # Its other values say nothing here: a subagent sends its own with its first call only.
    (h.COPILOT_INTERACTION, {b"conversation-compaction": Kind.COMPACTION}),
    (
        h.CLAUDE_CODE_REQUEST_CLASS,
        {
            b"main": Kind.TURN,
            b"subagent": Kind.SUBAGENT,
            b"workflow": Kind.SUBAGENT,
            b"compaction": Kind.COMPACTION,
            b"auxiliary": Kind.SIDE,
        },
    ),
)
"""Headers that say what a call is for, first found wins; other values count as absent."""

CODEX_KINDS: Final = {
    "turn": Kind.TURN,
    "compaction": Kind.COMPACTION,
    "title": Kind.TITLE,
    "prewarm": Kind.SIDE,
    "memory": Kind.SIDE,
}
"""``request_kind`` of Codex's turn metadata; a later one counts as ``other``."""

SIGNS: Final[tuple[tuple[str, tuple[bytes, ...]], ...]] = (
    ("codex", (b"codex",)),
    ("opencode", (b"opencode/",)),
    ("kilo", (b"kilo",)),
    ("pi", (b"pi/", b"pi (")),
    ("kimi", (b"kimi",)),
)
"""How a user agent begins, lower-cased, and whose it then is."""

UNMARKED_TITLES: Final = frozenset({"opencode"})
"""Products that ask for a session's title under its id, before its first turn, with no sign of it
but that no tools are offered (`conformance/captures/opencode-1.18.33.jsonl`)."""

ORIGINATOR_SIGNS: Final = (("codex", b"codex"), ("pi", b"pi"))

STRICT: Final = frozenset(
    name.encode()
    for name in (
        h.SESSION_ID,
        h.PARENT_SESSION_ID,
        h.SESSION_FINAL,
        h.CLEW_PARENT,
        h.CLEW_KIND,
        h.CLEW_KEY,
        h.AUTHORIZATION,
        h.X_API_KEY,
        h.GOOGLE_API_KEY,
    )
)
"""Canonical identity and credentials: twice, or beside the underscore twin, is refused."""

_ALSO_READ: Final = (
    h.USER_AGENT,
    h.ORIGINATOR,
    h.CLIENT_REQUEST_ID,
    h.CAGENT_FORWARD,
    h.CODEX_TURN_METADATA,
)

MEMO_AGENTS: Final = 1024
"""User agents remembered by a table; an installation sees a handful, an attacker gains nothing."""
MEMO_AGENT_BYTES: Final = 256


class Agent(msgspec.Struct, frozen=True):
    """What the user agent (and Codex's ``originator``) says."""

    client: str = ""
    """Product and version, printable ASCII, at most 64 characters."""
    sign: str = ""


class ClientEntry(msgspec.Struct, frozen=True):
    """One line of the public list (``clew clients``, ``/api/v1/clients``)."""

    name: str
    order: str
    headers: tuple[str, ...]
    """Header names; for rows read from the body, dotted field names."""
    where: str
    """header, body or content."""
    scope: str
    lifetime: str
    note: str


_PRODUCT: Final = re.compile(rb"[!-~]+")
_VERSION: Final = re.compile(rb"v?\d")


def client_of(user_agent: bytes) -> str:
    """Product and version of a user agent, ``claude-cli/2.1.330``; the rest is left out.

    The official SDKs write ``OpenAI/Python 2.24.0``; that becomes ``OpenAI/Python/2.24.0``.
    """
    words = _PRODUCT.findall(user_agent[:256])
    if not words:
        return ""
    parts = words[0].split(b"/")[:3]
    for index, part in enumerate(parts):
        if _VERSION.match(part):
            parts = parts[: index + 1]
            break
    else:
        parts = parts[:2]
        if len(words) > 1 and _VERSION.match(words[1]):
            parts.append(words[1])
    return b"/".join(parts)[:64].decode("ascii")


def product_of(client: str) -> str:
    """The product alone, ``claude-cli``: what a restart or an update does not change."""
    name, _, version = client.rpartition("/")
    return name if name and version.lstrip("v")[:1].isdigit() else client


def _sign_of(user_agent: bytes, originator: bytes) -> str:
    lowered = user_agent[:64].lower()
    for sign, prefix in ORIGINATOR_SIGNS:
        if originator == prefix or (sign == "codex" and originator.startswith(prefix)):
            return sign
    for sign, prefixes in SIGNS:
        if lowered.startswith(prefixes):
            return sign
    return ""


class CompiledRow:
    """A row with its header names as bytes, ready for the request path."""

    __slots__ = (
        "agent",
        "equals",
        "family",
        "gate",
        "lifetimes",
        "needs_agent",
        "parent",
        "root_is_parent",
        "session",
        "sign",
        "source",
        "title_prefix",
    )

    def __init__(self, row: Row) -> None:
        self.source = row.source
        self.family = row.family or row.source
        self.session = tuple(item.header.encode() for item in row.session)
        self.lifetimes = tuple(item.lifetime for item in row.session)
        self.agent = row.agent.encode()
        self.needs_agent = row.needs_agent
        self.parent = row.parent.encode()
        self.root_is_parent = row.root_is_parent
        self.gate = row.gate.encode()
        self.sign = row.sign
        self.equals = row.equals.encode()
        self.title_prefix = row.title_prefix


class ClientTable:
    """The rows of one configuration, indexed by header so that absent clients cost nothing.

    Raises ValueError when a user's row reads a credential or a canonical header.
    """

    __slots__ = ("_agents", "by_header", "compiled", "rows", "shared_families", "slots")

    def __init__(self, clients: Iterable[Client] = ()) -> None:
        self.rows: tuple[Row, ...] = tuple(_user_row(client) for client in clients) + BUILT_IN
        self.compiled = tuple(CompiledRow(row) for row in self.rows)
        self.slots = _slots(self.rows)
        """Every header read, by every spelling → the name it counts as."""
        self.by_header = _index(self.compiled)
        """Header → numbers of the rows it can trigger."""
        self.shared_families = frozenset(row.source for row in self.rows if row.order == "6")
        """Families whose ids a body's explicit id outranks when they last until a restart."""
        self._agents: dict[tuple[bytes, bytes], Agent] = {}

    def agent(self, user_agent: bytes, originator: bytes) -> Agent:
        """What the two fields say, remembered (at most `MEMO_AGENTS` short ones)."""
        key = (user_agent, originator)
        found = self._agents.get(key)
        if found is None:
            found = Agent(client_of(user_agent), _sign_of(user_agent, originator))
            if len(user_agent) + len(originator) <= MEMO_AGENT_BYTES:
                if len(self._agents) >= MEMO_AGENTS:
                    self._agents.clear()
                self._agents[key] = found
        return found


_NEVER_AN_ID: Final = STRICT | {b"cookie", b"host", b"user-agent", b"proxy-authorization"}
"""Headers no user row may read: credentials must not become ids, the canonical ones have a row."""


def _user_row(client: Client) -> Row:
    for name in (client.session, client.parent, client.agent):
        if name.lower().encode() in _NEVER_AN_ID:
            raise ValueError(f"sessions.client {client.name!r}: {name} cannot name a session")
    return Row(
        order="1u",
        source=client.name,
        session=(Id(client.session.lower(), Lifetime(client.lifetime)),),
        agent=client.agent.lower(),
        parent=client.parent.lower(),
        root_is_parent=bool(client.agent),
        note="from [[sessions.client]]",
    )


def _slots(rows: tuple[Row, ...]) -> dict[bytes, bytes]:
    names = {name.encode() for name in _ALSO_READ} | set(STRICT)
    names |= {name.encode() for name, _ in KIND_HEADERS}
    spelled: dict[bytes, bytes] = {}
    for row in rows:
        names |= {name.encode() for name in (row.agent, row.parent, row.gate) if name}
        for item in row.session:
            names.add(item.header.encode())
            if item.also:
                spelled[item.also.encode()] = item.header.encode()
    return {name: name for name in names} | spelled


def _index(rows: tuple[CompiledRow, ...]) -> dict[bytes, tuple[int, ...]]:
    found: dict[bytes, list[int]] = {}
    for number, row in enumerate(rows):
        triggers = (row.agent,) if row.needs_agent else (row.agent, *row.session)
        for name in triggers:
            if name:
                found.setdefault(name, []).append(number)
    return {name: tuple(numbers) for name, numbers in found.items()}


def client_list(table: ClientTable) -> tuple[ClientEntry, ...]:
    """Every client Clew recognises, strongest first, as the public list shows it."""
    ordered = [_header_entry(CANONICAL)]
    ordered += [_header_entry(row) for row in table.rows]
    ordered += [_body_entry(row, "body") for row in BODY_ROWS]
    ordered += [_header_entry(CLIENT_REQUEST), _body_entry(LINEAGE, "content")]
    return tuple(sorted(ordered, key=lambda entry: _order_key(entry.order)))


def _order_key(order: str) -> tuple[int, str]:
    digits = order.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits), order[len(digits) :]


def _header_entry(row: Row) -> ClientEntry:
    names = [name for item in row.session for name in (item.header, item.also) if name]
    lifetimes = dict.fromkeys(item.lifetime.value for item in row.session)
    return ClientEntry(
        name=row.source,
        order=row.order,
        headers=tuple(name for name in (row.agent, *names, row.parent) if name),
        where="header",
        scope=Scope.THREAD.value,
        lifetime="/".join(lifetimes),
        note=row.note,
    )


def _body_entry(row: BodyRow, where: str) -> ClientEntry:
    return ClientEntry(
        row.source, row.order, row.fields, where, row.scope.value, row.lifetime.value, row.note
    )
