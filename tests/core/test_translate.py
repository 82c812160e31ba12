"""Which headers and which identity an upstream gets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.billing import MAKER
from clew.core.errors import ClewError
from clew.core.routing import BUILT_IN, RouteTable, choose_route
from clew.core.translate import (
    HOP_BY_HOP,
    IDENTITY_OUT,
    MEMO_NAMES,
    HeaderPolicy,
    Outgoing,
    upstream_fields,
)

Field = tuple[bytes, bytes]
SOMEBODY = Outgoing(session_id="s1", parent_id="p1", is_final=True)


def sent(
    policy: HeaderPolicy,
    *fields: Field,
    outgoing: Outgoing = SOMEBODY,
    without: frozenset[bytes] = frozenset(),
) -> list[bytes]:
    """The lines after host, for fields given with names as received."""
    names = [name for name, _ in fields]
    headers = [(name.lower(), value) for name, value in fields]
    lines = upstream_fields(names, headers, policy, b"up", outgoing=outgoing, without=without)
    assert lines[0] == b"host: up\r\n"
    return lines[1:]


VENDORLESS = HeaderPolicy("", "provider")
ENGINE = HeaderPolicy("", "engine")
ANTHROPIC = HeaderPolicy("anthropic", "provider")
OPENAI = HeaderPolicy("openai", "provider")
CHATGPT = HeaderPolicy("chatgpt", "provider")
GOOGLE = HeaderPolicy("google", "provider")


def test_a_clients_headers_go_on_byte_for_byte() -> None:
    """Names as received, values untouched, order kept, repeats kept."""
    lines = sent(
        OPENAI,
        (b"Accept", b"*/*"),
        (b"X-Custom", b"a  b"),
        (b"X-Custom", "größe".encode()),
        (b"x-request-id", b"r"),
        (b"Content-Length", b"5"),
    )

    assert lines == [
        b"Accept: */*\r\n",
        b"X-Custom: a  b\r\n",
        "X-Custom: größe\r\n".encode(),
        b"x-request-id: r\r\n",
        b"Content-Length: 5\r\n",
    ]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {b"host"}))
def test_hop_by_hop_headers_and_host_stay_here(name: bytes) -> None:
    """RFC 9110 7.6.1; the destination's own host is written instead."""
    assert sent(OPENAI, (name.title(), b"v")) == []


def test_what_connection_lists_stays_here() -> None:
    """A header named by Connection belongs to this hop only."""
    lines = sent(OPENAI, (b"Connection", b"close, X-Once"), (b"X-Once", b"1"), (b"X-Always", b"2"))

    assert lines == [b"X-Always: 2\r\n"]


def test_the_caller_may_leave_out_framing() -> None:
    """A field the caller writes itself is not sent twice."""
    assert sent(OPENAI, (b"Content-Length", b"5"), without=frozenset({b"content-length"})) == []


@pytest.mark.parametrize(
    "field",
    [
        (b"x-clew-key", b"ck_a"),
        (b"authorization", b"Bearer ck_a"),
        (b"authorization", b"ck_a"),
        (b"x-api-key", b"ck_a"),
        (b"x-goog-api-key", b"ck_a"),
        (b"x_api_key", b"ck_a"),
    ],
)
@pytest.mark.parametrize("policy", [VENDORLESS, ENGINE, ANTHROPIC, OPENAI, GOOGLE])
def test_clews_key_never_leaves(field: Field, policy: HeaderPolicy) -> None:
    """In whichever field it came, to whichever upstream."""
    assert sent(policy, field) == []


@pytest.mark.parametrize(
    "name",
    [
        b"X-Dynamo-Session-ID",
        b"X-Dynamo-Other",
        b"X-Cagent-Forward",
        b"X-Cagent-Model-Name",
        b"x-lore-session-id",
        b"X-Clew-Parent",
        b"X-Clew-Anything",
        b"x-litellm-session-id",
        b"Helicone-Session-Id",
        b"x-bf-session-id",
        b"x_dynamo_session_id",
        b"helicone_session_id",
    ],
)
@pytest.mark.parametrize("policy", [VENDORLESS, ENGINE, ANTHROPIC, OPENAI])
def test_identity_headers_stay_here_unless_configured(name: bytes, policy: HeaderPolicy) -> None:
    """The canonical and the gateways' identity is not given to upstreams nobody named."""
    assert sent(policy, (name, b"v")) == []


NATIVE = {
    b"x-claude-code-session-id": "anthropic",
    b"x-claude-code-agent-id": "anthropic",
    b"x-claude-code-some-hint": "anthropic",
    b"x-codex-turn-metadata": "openai",
    b"x-codex-parent-thread-id": "openai",
    b"thread-id": "openai",
    b"session-id": "openai",
    b"session_id": "openai",
    b"x-opencode-session": "",
    b"x-kilocode-taskid": "",
    b"agent-session-id": "",
    b"x-session-id": "",
    b"x-session-affinity": "",
    b"x-parent-session-id": "",
    b"x-task-id": "",
}


@pytest.mark.parametrize("name", list(NATIVE))
def test_an_agents_own_headers_go_to_its_maker_or_to_no_vendor(name: bytes) -> None:
    """Anthropic sees Claude Code's, OpenAI (and ChatGPT) Codex's, nobody's upstream all of them."""
    maker = NATIVE[name]
    line = [name + b": v\r\n"]

    assert sent(VENDORLESS, (name, b"v")) == line
    assert sent(ENGINE, (name, b"v")) == line
    for policy, vendor in ((ANTHROPIC, "anthropic"), (OPENAI, "openai"), (CHATGPT, "chatgpt")):
        assert sent(policy, (name, b"v")) == (line if MAKER[vendor] == maker else [])
    assert sent(GOOGLE, (name, b"v")) == []


@pytest.mark.parametrize(("choice", "header"), [*IDENTITY_OUT.items(), ("X-My-Id", "x-my-id")])
def test_identity_out_adds_the_session_id_under_the_chosen_header(choice: str, header: str) -> None:
    """The client's own header of that name gives way to Clew's value."""
    policy = HeaderPolicy("", "provider", choice)
    lines = sent(policy, *([(header.encode(), b"forged")] if header else []))

    expected = [f"{header}: s1\r\n".encode()] if header else []
    if choice == "dynamo":
        expected += [b"x-dynamo-parent-session-id: p1\r\n", b"x-dynamo-session-final: true\r\n"]
    assert lines == expected


def test_an_unattributed_call_carries_no_identity_out() -> None:
    """Without session nothing is added, and the client's word is not passed off as Clew's."""
    policy = HeaderPolicy("", "provider", "dynamo")
    lines = sent(policy, (b"X-Dynamo-Session-ID", b"forged"), outgoing=Outgoing())

    assert lines == []


def test_identity_out_lets_the_rest_of_its_family_pass() -> None:
    """With dynamo, other x-dynamo-* headers go on; with another choice they do not."""
    fields = ((b"X-Dynamo-Session-Final", b"true"), (b"X-Dynamo-Trace", b"1"))
    lines = sent(HeaderPolicy("", "provider", "dynamo"), *fields, outgoing=Outgoing("s1"))

    assert lines == [b"X-Dynamo-Trace: 1\r\n", b"x-dynamo-session-id: s1\r\n"]
    assert sent(HeaderPolicy("", "provider", "smg"), *fields) == [b"x-smg-routing-key: s1\r\n"]


@pytest.mark.parametrize(
    "choice", ["authorization", "Host", "content-length", "bad name", "x:y", "connection", "a\r\nb"]
)
def test_identity_out_must_be_a_usable_header(choice: str) -> None:
    """Credentials, framing and what is no header name are refused at start."""
    with pytest.raises(ValueError, match="identity_out"):
        HeaderPolicy("", "provider", choice)


def test_an_engine_with_affinity_learns_the_epoch() -> None:
    """x-clew-epoch is Clew's own number, never the client's."""
    lines = sent(ENGINE, (b"X-Clew-Epoch", b"9"), outgoing=Outgoing(epoch=4))

    assert lines == [b"x-clew-epoch: 4\r\n"]


def test_a_session_id_cannot_break_out_of_its_line() -> None:
    """A value with a line break is left out whatever let it in."""
    policy = HeaderPolicy("", "provider", "smg")

    assert sent(policy, outgoing=Outgoing("a\r\nx-evil: 1")) == []


@pytest.mark.parametrize(
    ("vendor", "line"),
    [
        ("anthropic", b"x-api-key: KEY\r\n"),
        ("google", b"x-goog-api-key: KEY\r\n"),
        ("openai", b"authorization: Bearer KEY\r\n"),
        ("", b"authorization: Bearer KEY\r\n"),
    ],
)
def test_clews_own_credential_replaces_every_one_of_the_clients(vendor: str, line: bytes) -> None:
    """One credential, in the vendor's form."""
    policy = HeaderPolicy(vendor, "provider", api_key=" KEY\n")
    lines = sent(
        policy,
        (b"Authorization", b"Bearer mine"),
        (b"X-Api-Key", b"mine"),
        (b"x-goog-api-key", b"mine"),
        (b"chatgpt-account-id", b"mine"),
        (b"x_api_key", b"mine"),
    )

    assert lines == [line]


def test_a_key_of_two_lines_is_refused() -> None:
    """A key file with a line break inside would inject a header."""
    with pytest.raises(ValueError, match="one line"):
        HeaderPolicy("", "provider", api_key="a\r\nx-evil: 1")


# Credentials and vendors.

CREDENTIALS: dict[str, list[list[Field]]] = {
    "anthropic": [
        [(b"x-api-key", b"sk-ant-api03-SECRET")],
        [(b"authorization", b"Bearer sk-ant-oat01-SECRET")],
        [(b"authorization", b"Bearer sk-ant-api03-SECRET"), (b"anthropic-version", b"2023-06-01")],
        [(b"x-api-key", b"other-SECRET"), (b"anthropic-version", b"2023-06-01")],
        [(b"x_api_key", b"sk-ant-api03-SECRET")],
    ],
    "openai": [
        [(b"authorization", b"Bearer sk-proj-SECRET")],
        [(b"authorization", b"bearer sk-SECRET")],
        [(b"authorization", b"Bearer sk-SECRET"), (b"anthropic-version", b"2023-06-01")],
        [(b"authorization", b"Bearer sk-svcacct-SECRET"), (b"x-goog-api-key", b"ck_a")],
        [(b"authorization", b"Bearer eyJSECRET"), (b"chatgpt-account-id", b"SECRET")],
        [
            (b"authorization", b"Bearer eyJSECRET"),
            (b"chatgpt-account-id", b"SECRET"),
            (b"anthropic-version", b"2023-06-01"),
        ],
    ],
    "google": [
        [(b"x-goog-api-key", b"AIzaSECRET")],
        [(b"x-goog-api-key", b"AIzaSECRET"), (b"anthropic-version", b"2023-06-01")],
        [(b"authorization", b"Bearer AIzaSECRET")],
        [(b"authorization", b"Bearer ya29.SECRET")],
        [(b"x_goog_api_key", b"AIzaSECRET")],
    ],
}
PATHS = [
    b"/v1/messages?beta=true",
    b"/v1/messages/count_tokens",
    b"/v1/chat/completions",
    b"/v1/responses",
    b"/v1/models",
    b"/v1beta/models/g:generateContent?key=AIzaSECRET",
    b"/v1/chat/completions?a=1&key=AIzaSECRET&b=2",
    *(b"/u/%b/v1/messages" % item.name.encode() for item in BUILT_IN),
]


@pytest.mark.parametrize(
    ("owner", "credential", "path"),
    [
        (owner, credential, path)
        for owner, credentials in CREDENTIALS.items()
        for credential, path in itertools.product(credentials, PATHS)
    ],
)
def test_a_vendors_credential_never_reaches_another_vendor(
    owner: str, credential: list[Field], path: bytes
) -> None:
    """Over every credential, path and built-in upstream, selected by sign, path or name."""
    route = choose_route(RouteTable(), b"POST", path, credential)
    policy = HeaderPolicy(route.vendor, route.kind)
    lines = b"".join(sent(policy, *credential, (b"accept", b"*/*")))

    assert b"accept: */*" in lines
    assert (b"SECRET" in lines) is (MAKER[route.vendor] == owner)
    assert b"SECRET" not in route.target or route.vendor == "google"


@pytest.mark.parametrize("credentials", CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_recognised_credential_never_reaches_an_engine(credentials: list[list[Field]]) -> None:
    """What is certainly a vendor's is removed; a key that may be the engine's own passes."""
    for credential in credentials:
        lines = b"".join(sent(ENGINE, *credential))
        is_ambiguous = any(value[-9:] == b"sk-SECRET" for _, value in credential) or any(
            value == b"other-SECRET" for _, value in credential
        )
        assert (b"SECRET" in lines) is is_ambiguous


def test_an_unknown_upstream_gets_the_clients_credential() -> None:
    """A provider that is no built-in vendor may well take any key: it is the user's choice."""
    field = (b"Authorization", b"Bearer sk-ant-api03-x")

    assert sent(VENDORLESS, field) == [b"Authorization: Bearer sk-ant-api03-x\r\n"]
    assert sent(HeaderPolicy("", "gateway"), field) != []


def test_remembered_names_are_bounded() -> None:
    """A client that invents header names cannot grow a policy, nor change its verdicts."""
    policy = HeaderPolicy("", "provider")
    for number in range(MEMO_NAMES + 50):
        sent(policy, (b"x-made-up-%d" % number, b"v"))
    sent(policy, (b"x" * 3000, b"v"))

    assert len(policy.verdicts) <= MEMO_NAMES
    assert sent(policy, (b"x-clew-new", b"v")) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"X-Api-Key", b"authorization", b"X-Dynamo-A", b"Accept", b"x-a_b"]),
            st.binary(max_size=8).filter(lambda v: b"\r" not in v and b"\n" not in v),
        ),
        max_size=8,
    )
)
def test_every_kept_line_is_a_line_of_the_client(fields: list[Field]) -> None:
    """Nothing is reordered or rewritten: what is kept is a subsequence of what came."""
    lines = sent(OPENAI, *fields)
    came = iter(name + b": " + value + b"\r\n" for name, value in fields)

    assert all(line in came for line in lines)


def test_a_route_that_is_refused_sends_nothing() -> None:
    """No upstream, no translation: the error comes first."""
    with pytest.raises(ClewError, match="no_upstream"):
        choose_route(RouteTable(), b"POST", b"/nothing", [])
