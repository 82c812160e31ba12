"""The rules by which headers name a session (`docs/identity.md`)."""

from __future__ import annotations

import pytest

from clew.config.schema import Client
from clew.core.claim import Alias, Claim, Kind, Lifetime, Scope
from clew.core.clients import ClientTable
from clew.core.errors import ClewError
from clew.core.identity import FLAGS, identify

TABLE = ClientTable()
Field = tuple[bytes, bytes]

OPENCODE: Field = (b"user-agent", b"opencode/1.18.33 ai-sdk/x")
KILO: Field = (b"user-agent", b"Kilo-Code/4.2.0")
CODEX: Field = (b"user-agent", b"codex_exec/0.120.0 (Debian 12.0.0)")
CURL: Field = (b"user-agent", b"curl/8.7.1")


def claim_of(*headers: Field, path: bytes = b"/v1/messages", table: ClientTable = TABLE) -> Claim:
    """The claim of some headers; every flag it sets is in the table of flags."""
    claim = identify(list(headers), table, path)
    assert set(claim.flags) <= set(FLAGS)
    return claim


def named(claim: Claim) -> tuple[str, str] | None:
    """Source and value of a claim's session."""
    return (claim.session.source, claim.session.value) if claim.session else None


# Canonical headers.


def test_a_canonical_id_outranks_every_native_one() -> None:
    """With X-Dynamo-Session-ID, native ids only become further aliases, and no parent of theirs."""
    claim = claim_of(
        (b"x-claude-code-session-id", b"root"),
        (b"x-claude-code-agent-id", b"agent"),
        (b"x-dynamo-session-id", b"mine"),
    )

    assert named(claim) == ("canonical", "mine")
    assert claim.parent is None
    assert claim.root is None
    assert [alias.value for alias in claim.others] == ["agent"]


def test_a_canonical_parent_belongs_to_a_canonical_session_only() -> None:
    """A canonical parent beside a native id is not that native session's parent."""
    claim = claim_of((b"x-dynamo-parent-session-id", b"p"), (b"x-session-id", b"s"), OPENCODE)

    assert named(claim) == ("opencode", "s")
    assert claim.parent is None
    assert claim.flags == ("parent_without_session",)


@pytest.mark.parametrize("blank", [b"", b" ", b"\t "])
def test_a_blank_canonical_id_counts_as_absent(blank: bytes) -> None:
    """Blank falls through to the native id."""
    claim = claim_of((b"x-dynamo-session-id", blank), (b"x-session-id", b"s"))

    assert named(claim) == ("generic", "s")


@pytest.mark.parametrize(
    "value", [b"a b", b"x" * 257, "sé".encode(), b"a\x00b", b"a,b", b'"a"', b"a\nb", b"\xff"]
)
@pytest.mark.parametrize("name", [b"x-dynamo-session-id", b"x-dynamo-parent-session-id"])
def test_an_invalid_canonical_id_is_refused_and_never_falls_through(
    name: bytes, value: bytes
) -> None:
    """A canonical id or parent outside its charset or length fails with session_id_invalid."""
    with pytest.raises(ClewError, match="session_id_invalid"):
        claim_of((name, value), (b"x-session-id", b"s"))


@pytest.mark.parametrize("value", [b"a", b"x" * 256, b"A.z_9:/@+=~-"])
def test_every_allowed_canonical_id_is_taken_verbatim(value: bytes) -> None:
    """1 to 256 bytes of the allowed set, outer blanks trimmed."""
    assert named(claim_of((b"x-dynamo-session-id", b" " + value + b"\t"))) == (
        "canonical",
        value.decode(),
    )


def test_a_canonical_parent_makes_a_child() -> None:
    """The parent is an alias of the same family; the call counts as a subagent's."""
    claim = claim_of((b"x-dynamo-session-id", b"c"), (b"x-dynamo-parent-session-id", b"p"))

    assert claim.parent == Alias("canonical", "p", "canonical")
    assert claim.is_subagent
    assert claim.kind is Kind.SUBAGENT


def test_a_parent_equal_to_the_session_is_dropped_and_flagged() -> None:
    """Nobody is his own parent, canonical or native."""
    for headers in (
        [(b"x-dynamo-session-id", b"s"), (b"x-dynamo-parent-session-id", b"s")],
        [(b"x-session-id", b"s"), (b"x-parent-session-id", b"s")],
        [(b"x-session-id", b"s"), (b"x-clew-parent", b"s")],
    ):
        claim = claim_of(*headers)
        assert claim.parent is None
        assert claim.attach_to == ""
        assert claim.flags == ("parent_is_self",)


@pytest.mark.parametrize(
    ("value", "is_final", "flags"),
    [
        (b"true", True, ()),
        (b"YES", True, ()),
        (b"On", True, ()),
        (b"1", True, ()),
        (b"false", False, ()),
        (b"NO", False, ()),
        (b"off", False, ()),
        (b"0", False, ()),
        (b"", False, ()),
        (b"maybe", False, ("final_invalid",)),
    ],
)
def test_final_is_read_in_any_case_and_with_any_identity(
    value: bytes, is_final: bool, flags: tuple[str, ...]
) -> None:
    """Session-Final counts beside a native id too; anything else is ignored and flagged."""
    claim = claim_of((b"x-session-id", b"s"), (b"x-dynamo-session-final", value))

    assert claim.final is is_final
    assert claim.flags == flags


# Twice, and underscore twins.


@pytest.mark.parametrize(
    "name",
    [
        b"x-dynamo-session-id",
        b"x-dynamo-parent-session-id",
        b"x-dynamo-session-final",
        b"authorization",
        b"x-api-key",
        b"x-goog-api-key",
        b"x-clew-key",
    ],
)
@pytest.mark.parametrize("second", ["same", "twin", "twin first"])
def test_a_canonical_or_credential_header_twice_is_refused(name: bytes, second: str) -> None:
    """Two values, even equal ones, or one beside its underscore twin: ambiguous_header."""
    twin = name.replace(b"-", b"_") if b"-" in name else name
    fields = {"same": [name, name], "twin": [name, twin], "twin first": [twin, name]}[second]
    with pytest.raises(ClewError, match="ambiguous_header"):
        claim_of(*((field, b"v") for field in fields))


def test_a_native_id_twice_counts_once_when_equal() -> None:
    """Equal values in both spellings are one id."""
    claim = claim_of((b"session-id", b"s"), (b"session_id", b"s"), (b"session-id", b"s"))

    assert named(claim) == ("generic", "s")
    assert claim.flags == ()


@pytest.mark.parametrize("second", [b"x-session-id", b"x_session_id", b"x-session_id"])
def test_a_native_id_with_two_values_is_ignored_and_flagged(second: bytes) -> None:
    """Different values, in one spelling or two, name nothing; the call goes on."""
    claim = claim_of((b"x-session-id", b"a"), (second, b"b"), OPENCODE)

    assert claim.session is None
    assert claim.flags == ("native_id_conflict",)


def test_an_underscore_twin_alone_names_nothing() -> None:
    """A header that some proxy may rewrite into a known one is not taken for it."""
    claim = claim_of((b"x_dynamo_session_id", b"a"), (b"x_claude_code_session_id", b"b"))

    assert claim.session is None
    assert claim.flags == ("underscore_twin_ignored",)


# Native ids.


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 513,
        b"a b",
        b"a\x07b",
        b"a\x7f",
        b"\xff\xfe",
        "a\u2028b".encode(),
        "a\x85b".encode(),
        "a\u202eb".encode(),
        b"a\x1b[31m",
    ],
)
def test_an_unusable_native_id_is_ignored_and_flagged(value: bytes) -> None:
    """Too long, blank inside, control or format characters, no UTF-8: no id, no failure."""
    claim = claim_of((b"x-opencode-session", value))

    assert claim.session is None
    assert claim.flags == ("native_id_invalid",)


def test_a_native_id_may_be_any_visible_text() -> None:
    """512 bytes of ASCII, or UTF-8 without control characters, verbatim."""
    for value in ("x" * 512, "sitzung-größe", "会话"):
        assert named(claim_of((b"x-opencode-session", value.encode()))) == ("opencode", value)


def test_claude_code_without_an_agent_is_its_own_root() -> None:
    """The session id is thread and root in one alias."""
    claim = claim_of((b"x-claude-code-session-id", b"s"))

    assert named(claim) == ("claude-code", "s")
    assert claim.root == claim.session
    assert claim.names_durable_thread


def test_a_nested_claude_code_agent_names_its_parent_agent() -> None:
    """From depth 2 the parent is the agent that spawned it, the root stays the session."""
    claim = claim_of(
        (b"x-claude-code-session-id", b"s"),
        (b"x-claude-code-agent-id", b"a2"),
        (b"x-claude-code-parent-agent-id", b"a1"),
    )

    assert named(claim) == ("claude-code", "a2")
    assert claim.parent is not None
    assert claim.parent.value == "a1"
    assert claim.root is not None
    assert claim.root.value == "s"


def test_a_claude_code_agent_named_as_its_own_parent_belongs_to_the_root() -> None:
    """The self-parent is dropped and flagged; what spawned it is then the session."""
    claim = claim_of(
        (b"x-claude-code-session-id", b"s"),
        (b"x-claude-code-agent-id", b"a"),
        (b"x-claude-code-parent-agent-id", b"a"),
    )

    assert claim.parent is not None
    assert claim.parent.value == "s"
    assert claim.flags == ("parent_is_self",)


def test_a_claude_code_agent_alone_is_a_session_without_parent() -> None:
    """An agent id without session id names a session; nothing is made up."""
    claim = claim_of((b"x-claude-code-agent-id", b"a"))

    assert named(claim) == ("claude-code", "a")
    assert (claim.parent, claim.root) == (None, None)


def test_an_agent_id_equal_to_the_session_id_is_the_root() -> None:
    """Equal ids are no subagent."""
    claim = claim_of((b"x-claude-code-session-id", b"s"), (b"x-claude-code-agent-id", b"s"))

    assert named(claim) == ("claude-code", "s")
    assert claim.parent is None
    assert not claim.is_subagent


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-claude-code-session-id", b"s"), (b"x-claude-code-agent-id", b"a\x01")],
        [
            (b"x-claude-code-session-id", b"s"),
            (b"x-claude-code-agent-id", b"a"),
            (b"x-claude-code-agent-id", b"b"),
        ],
        [(b"session-id", b"s"), (b"thread-id", b"a b")],
    ],
)
def test_a_shared_id_beside_an_unusable_narrower_one_names_the_run_only(
    headers: list[Field],
) -> None:
    """A subagent whose own id is broken is not taken for its parent."""
    claim = claim_of(*headers, CODEX)

    assert claim.session is not None
    assert (claim.session.value, claim.session.scope) == ("s", Scope.TREE)
    assert not claim.names_durable_thread


def test_session_id_is_the_root_in_new_codex_and_the_thread_in_old() -> None:
    """The same header has two scopes: beside thread-id it is the run, without it the thread."""
    new = claim_of((b"session-id", b"run"), (b"thread-id", b"t"), CODEX)
    old = claim_of((b"session-id", b"run"), CODEX)
    older = claim_of((b"session_id", b"run"), (b"originator", b"codex_cli_rs"), CURL)

    assert (named(new), new.root and new.root.value) == (("codex", "t"), "run")
    assert new.is_subagent
    assert named(old) == named(older) == ("codex", "run")
    assert old.root is None


def test_session_id_of_another_client_is_not_codex() -> None:
    """Without Codex's sign a bare session-id is a generic client's thread."""
    assert named(claim_of((b"session-id", b"s"), CURL)) == ("generic", "s")


def test_one_family_per_client_over_its_headers() -> None:
    """OpenCode's and Kilo's own and shared headers with one value are one alias."""
    for agent, own, source in (
        (OPENCODE, b"x-opencode-session", "opencode"),
        (KILO, b"x-kilocode-taskid", "kilo"),
    ):
        claim = claim_of(agent, (own, b"s"), (b"x-session-id", b"s"), (b"x-session-affinity", b"s"))
        assert claim.session == Alias(source, "s", source)
        assert claim.others == ()


def test_a_stable_id_outranks_a_rotating_one() -> None:
    """A client that sends both is named by the id that survives its restart."""
    claim = claim_of((b"x-session-affinity", b"n1"), (b"x-session-id", b"s1"), OPENCODE)

    assert named(claim) == ("opencode", "s1")
    assert claim.others == (Alias("opencode", "n1", "opencode", lifetime=Lifetime.RESTART),)


def test_an_affinity_id_alone_lasts_until_a_restart() -> None:
    """x-session-affinity does not name a durable thread: the body is then read too."""
    claim = claim_of((b"x-session-affinity", b"n1"), OPENCODE)

    assert claim.session is not None
    assert claim.session.lifetime is Lifetime.RESTART
    assert not claim.names_durable_thread


def test_a_plugin_header_beside_an_affinity_id_gives_two_aliases() -> None:
    """The plugin's stable id wins; the affinity id is kept to find the session it was."""
    claim = claim_of((b"x-session-affinity", b"n1"), (b"x-lore-session-id", b"l1"), OPENCODE)

    assert named(claim) == ("lore", "l1")
    assert [(alias.family, alias.value) for alias in claim.others] == [("opencode", "n1")]


def test_kilos_title_call_is_the_same_session() -> None:
    """The prefix title- marks the kind and is no part of the id; only Kilo's is cut."""
    claim = claim_of(KILO, (b"x-session-id", b"title-abc"), (b"x-session-affinity", b"title-abc"))

    assert named(claim) == ("kilo", "abc")
    assert claim.kind is Kind.TITLE
    assert claim.others == ()
    assert named(claim_of(OPENCODE, (b"x-session-id", b"title-abc"))) == ("opencode", "title-abc")


def test_pi_is_known_by_two_equal_ids() -> None:
    """session_id equal to x-client-request-id is pi's; different ones are a generic client's."""
    equal = claim_of((b"session_id", b"s"), (b"x-client-request-id", b"s"), CURL)
    other = claim_of((b"session_id", b"s"), (b"x-client-request-id", b"r"), CURL)

    assert named(equal) == ("pi", "s")
    assert named(other) == ("generic", "s")


def test_a_client_request_id_names_a_session_only_for_codex_and_pi() -> None:
    """Elsewhere it is new with every request."""
    assert named(claim_of((b"x-client-request-id", b"r"), CURL)) is None
    codex = claim_of((b"x-client-request-id", b"r"), CODEX)
    assert codex.session == Alias("codex", "r", "client-request")
    pi = claim_of((b"x-client-request-id", b"r"), (b"user-agent", b"pi (linux; x64)"))
    assert pi.session == Alias("pi", "r", "client-request")


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"x-lore-session-id", "lore"),
        (b"x-litellm-session-id", "litellm"),
        (b"helicone-session-id", "helicone"),
        (b"x-bf-session-id", "bifrost"),
        (b"x-opencode-session", "opencode"),
        (b"x-kilocode-taskid", "kilo"),
        (b"x-amp-thread-id", "amp"),
        (b"x-grok-session-id", "grok"),
        (b"agent-session-id", "goose"),
        (b"x-client-session-id", "copilot"),
        (b"x-deepseek-harness-session-id", "deepseek-harness"),
        (b"x-task-id", "task"),
    ],
)
def test_a_header_of_one_client_names_its_session(header: bytes, source: str) -> None:
    """Orders 2 and 5: one header, one source, durable."""
    assert claim_of((header, b"v")).session == Alias(source, "v", source)


def test_cagent_counts_only_beside_its_forward_header() -> None:
    """X-Cagent-Session-Id without X-Cagent-Forward is ignored and flagged."""
    alone = claim_of((b"x-cagent-session-id", b"c"))
    forwarded = claim_of(
        (b"x-cagent-session-id", b"c"), (b"x-cagent-forward", b"https://api.openai.com/v1")
    )

    assert (named(alone), alone.flags) == (None, ("cagent_without_forward",))
    assert named(forwarded) == ("cagent", "c")


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-id",
        b"traceparent",
        b"vscode-sessionid",
        b"x-interaction-id",
        b"x-agent-task-id",
        b"x-session-token",
        b"x-stainless-helper",
    ],
)
def test_headers_that_are_never_identity_name_nothing(name: bytes) -> None:
    """Request, trace, window, turn and token headers are no session."""
    assert claim_of((name, b"v")).session is None


# Kinds, attachment, user rows, user agents.


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ((b"x-cagent-generatingtitle", b"1"), Kind.TITLE),
        ((b"x-cagent-compacting", b"1"), Kind.COMPACTION),
        ((b"x-interaction-type", b"conversation-compaction"), Kind.COMPACTION),
        ((b"x-interaction-type", b"conversation-subagent"), Kind.TURN),
        ((b"x-claude-code-request-class", b"auxiliary"), Kind.SIDE),
        ((b"x-claude-code-request-class", b"workflow"), Kind.SUBAGENT),
        ((b"x-claude-code-request-class", b"unheard-of"), Kind.TURN),
        ((b"x-codex-turn-metadata", b'{"request_kind":"memory"}'), Kind.SIDE),
        ((b"x-codex-turn-metadata", b'{"request_kind":"later"}'), Kind.OTHER),
        ((b"x-clew-kind", b"Summary"), Kind.SUMMARY),
    ],
)
def test_a_header_names_the_kind(header: Field, kind: Kind) -> None:
    """Each client's own mark, and X-Clew-Kind for everybody else."""
    assert claim_of(header).kind is kind


def test_the_path_tells_a_token_count() -> None:
    """count_tokens needs no header; an X-Clew-Kind that names no kind is flagged."""
    assert claim_of(path=b"/v1/messages/count_tokens").kind is Kind.COUNT_TOKENS
    assert claim_of(path=b"/v1beta/models/g:countTokens").kind is Kind.COUNT_TOKENS
    unknown = claim_of((b"x-clew-kind", b"nonsense"))
    assert (unknown.kind, unknown.flags) == (Kind.TURN, ("kind_invalid",))


def test_no_header_makes_a_call_free() -> None:
    """Counting tokens is free, so the path alone says that a call does nothing else."""
    found = claim_of((b"x-clew-kind", b"count_tokens"))

    assert (found.kind, found.flags) == (Kind.TURN, ("kind_invalid",))


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"request_kind":5}', b"[" * 5000, b"\xff"])
def test_broken_turn_metadata_is_ignored_and_flagged(value: bytes) -> None:
    """Codex's metadata never fails a call and never takes the id away."""
    claim = claim_of((b"thread-id", b"t"), (b"x-codex-turn-metadata", value))

    assert named(claim) == ("codex", "t")
    assert claim.flags == ("metadata_invalid",)


def test_clew_parent_attaches_a_native_root() -> None:
    """X-Clew-Parent hangs a session without parent below another; else it is ignored."""
    root = claim_of((b"x-session-id", b"s"), (b"x-clew-parent", b"cs_abc"))
    child = claim_of(
        (b"x-session-id", b"s"), (b"x-parent-session-id", b"p"), (b"x-clew-parent", b"cs_abc")
    )
    canonical = claim_of((b"x-dynamo-session-id", b"s"), (b"x-clew-parent", b"cs_abc"))

    assert root.attach_to == "cs_abc"
    assert (child.attach_to, child.flags) == ("", ("clew_parent_ignored",))
    assert (canonical.attach_to, canonical.flags) == ("", ("clew_parent_ignored",))


def test_clew_parent_can_declare_a_canonical_parent() -> None:
    """``canonical:ID`` names the parent as its own header would; the attached calls are turns."""
    claim = claim_of((b"x-claude-code-session-id", b"s"), (b"x-clew-parent", b"canonical:run-42"))

    assert (claim.parent, claim.attach_to) == (Alias("canonical", "run-42", "canonical"), "")
    assert (claim.kind, claim.is_subagent, claim.flags) == (Kind.TURN, False, ())


@pytest.mark.parametrize("value", [b"canonical:", b"canonical:a,b", b"canonical:" + b"x" * 257])
def test_a_declared_parent_that_no_canonical_id_can_be_is_ignored(value: bytes) -> None:
    """It is flagged, and never fails a call."""
    claim = claim_of((b"x-session-id", b"s"), (b"x-clew-parent", value))

    assert (claim.parent, claim.attach_to) == (None, "")
    assert claim.flags == ("clew_parent_ignored",)


def test_a_users_client_ranks_after_canonical_and_before_all_others() -> None:
    """Its agent header works as Claude Code's: present, it is the thread, the session its root."""
    table = ClientTable(
        (Client(name="mytool", session="X-My-Session", parent="X-My-Parent", agent="X-My-Agent"),)
    )
    root = claim_of((b"x-my-session", b"s"), (b"x-session-id", b"other"), table=table)
    agent = claim_of((b"x-my-session", b"s"), (b"x-my-agent", b"a"), table=table)
    nested = claim_of(
        (b"x-my-session", b"s"), (b"x-my-agent", b"b"), (b"x-my-parent", b"a"), table=table
    )
    canonical = claim_of((b"x-my-session", b"s"), (b"x-dynamo-session-id", b"c"), table=table)

    assert named(root) == ("mytool", "s")
    assert named(agent) == ("mytool", "a")
    assert agent.parent == agent.root == Alias("mytool", "s", "mytool")
    assert nested.parent is not None
    assert nested.parent.value == "a"
    assert named(canonical) == ("canonical", "c")


def test_an_id_that_lasts_one_request_names_no_session() -> None:
    """A user's row of request lifetime is recognised, flagged, and never a session."""
    table = ClientTable((Client(name="t", session="x-my-request", lifetime="request"),))
    claim = claim_of((b"x-my-request", b"r"), (b"x-session-id", b"s"), table=table)

    assert named(claim) == ("generic", "s")
    assert claim.flags == ("request_lifetime_id",)
