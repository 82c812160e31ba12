"""Which upstream a request goes to, and that no client can choose the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.config.schema import Upstream
from clew.core.errors import ClewError
from clew.core.routing import (
    Route,
    RouteTable,
    choose_route,
    compose_target,
    is_answered_here,
    is_count_tokens,
    is_inference,
    needs_model,
    split_url,
    without_name,
)

BUILT_IN = RouteTable()
Field = tuple[bytes, bytes]


def route(
    table: RouteTable,
    target: bytes,
    *headers: Field,
    model: str = "",
    method: bytes = b"POST",
) -> Route:
    """The chosen route."""
    return choose_route(table, method, target, list(headers), model)


def route_or_code(table: RouteTable, target: bytes, *headers: Field) -> Route | str:
    """The chosen route, or the code of the error that refused it."""
    try:
        return route(table, target, *headers)
    except ClewError as error:
        return error.fault.code


def refused(table: RouteTable, target: bytes, *headers: Field, method: bytes = b"POST") -> str:
    """The code of the error that refuses a request."""
    with pytest.raises(ClewError) as caught:
        choose_route(table, method, target, list(headers))
    return caught.value.fault.code


# Built-in upstreams.


@pytest.mark.parametrize(
    ("target", "headers", "name", "url"),
    [
        (b"/v1/messages?beta=true", [], "anthropic", "api.anthropic.com/v1/messages?beta=true"),
        (b"/v1/messages/batches", [], "anthropic", "api.anthropic.com/v1/messages/batches"),
        (b"/v1/chat/completions", [], "openai", "api.openai.com/v1/chat/completions"),
        (b"/v1/responses", [], "openai", "api.openai.com/v1/responses"),
        (b"/v1/messagesx", [], "openai", "api.openai.com/v1/messagesx"),
        (
            b"/v1beta/models/g:generateContent?alt=sse",
            [],
            "google",
            "generativelanguage.googleapis.com/v1beta/models/g:generateContent?alt=sse",
        ),
        (b"/v1/models", [(b"anthropic-version", b"1")], "anthropic", "api.anthropic.com/v1/models"),
        (b"/v1/models", [(b"x-api-key", b"sk-ant-x")], "anthropic", "api.anthropic.com/v1/models"),
        (
            b"/v1/models",
            [(b"authorization", b"bearer sk-ant-x")],
            "anthropic",
            "api.anthropic.com/v1/models",
        ),
        (
            b"/v1/responses",
            [(b"chatgpt-account-id", b"a"), (b"authorization", b"Bearer eyJ")],
            "chatgpt",
            "chatgpt.com/backend-api/codex/responses",
        ),
        (
            b"/responses",
            [(b"chatgpt-account-id", b"a")],
            "chatgpt",
            "chatgpt.com/backend-api/codex/responses",
        ),
        (
            b"/v1/models/g:generateContent",
            [(b"x-goog-api-key", b"k")],
            "google",
            "generativelanguage.googleapis.com/v1/models/g:generateContent",
        ),
        (
            b"/v1/responses",
            [(b"chatgpt-account-id", b"a"), (b"anthropic-version", b"1")],
            "anthropic",
            "api.anthropic.com/v1/responses",
        ),
    ],
)  # fmt: skip
def test_a_vendors_sign_comes_before_the_path(
    target: bytes, headers: list[Field], name: str, url: str
) -> None:
    """Headers decide first, then /v1beta/, /v1/messages, /v1/."""
    found = route(BUILT_IN, target, *headers)

    assert (found.name, found.vendor, found.scheme, found.port) == (name, name, "https", 443)
    assert found.host + found.target.decode() == url


@pytest.mark.parametrize("target", [b"/", b"/v1", b"/api/show", b"/clew", b"*", b"host:443", b""])
def test_a_path_without_sign_has_no_upstream(target: bytes) -> None:
    """Nothing is guessed."""
    assert refused(BUILT_IN, target) == "no_upstream"


@pytest.mark.parametrize(
    ("url", "vendor"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://API.Anthropic.com.", "anthropic"),
        ("https://chatgpt.com/backend-api/codex", "chatgpt"),
        ("https://api.openai.com.evil.example", ""),
        ("https://eu.api.openai.com", ""),
        ("http://127.0.0.1:8000", ""),
    ],
)
def test_an_upstreams_vendor_is_the_built_in_host_in_its_url(url: str, vendor: str) -> None:
    """The whole host, in any case; nothing that merely looks like it."""
    assert route(RouteTable([Upstream(name="u", url=url)]), b"/v1/x").vendor == vendor


# Configured upstreams.


CONFIGURED = RouteTable(
    [
        Upstream(name="mine", url="http://10.0.0.1:8000/v1", models=("my-*", "other")),
        Upstream(name="gemini", url="https://g.example/x/", paths=("/v1beta/*",)),
        Upstream(name="rest", url="https://rest.example:8443"),
    ]
)


@pytest.mark.parametrize(
    ("target", "model", "name"),
    [
        (b"/v1/chat/completions", "my-llama", "mine"),
        (b"/v1/chat/completions", "other", "mine"),
        (b"/v1/chat/completions", "others", "rest"),
        (b"/v1/chat/completions", "", "mine"),
        (b"/v1beta/models/g:generateContent", "gemini-2.5", "gemini"),
        (b"/v1/files?x=/v1beta/", "gpt", "rest"),
    ],
)
def test_the_first_upstream_whose_patterns_fit_wins(target: bytes, model: str, name: str) -> None:
    """Path and model both fit; a request without model fits every model."""
    assert route(CONFIGURED, target, model=model).name == name


def test_a_pattern_knows_the_star_only() -> None:
    """Question marks, brackets and dots stand for themselves."""
    table = RouteTable([Upstream(name="u", url="http://h", models=("a.b[1]*",))])

    assert route(table, b"/v1/x", model="a.b[1]-large").name == "u"
    with pytest.raises(ClewError, match="no_upstream"):
        route(table, b"/v1/x", model="aXb1")


def test_the_configuration_replaces_the_built_in_upstreams() -> None:
    """A vendor's sign does not reach a host nobody configured."""
    table = RouteTable([Upstream(name="u", url="http://h", paths=("/only",))])

    assert refused(table, b"/v1/messages", (b"anthropic-version", b"1")) == "no_upstream"


def test_the_model_is_needed_only_where_patterns_ask_for_it() -> None:
    """A path whose first upstream takes every model needs no look at the body."""
    assert not needs_model(BUILT_IN, b"/v1/chat/completions")
    assert needs_model(CONFIGURED, b"/v1/chat/completions?x=1")
    assert not needs_model(CONFIGURED, b"/u/rest/v1/chat/completions")
    assert not needs_model(RouteTable([Upstream(name="u", url="http://h")]), b"/v1/x")


def test_a_name_in_the_path_selects_its_upstream_and_is_dropped() -> None:
    """/u/NAME/… ignores patterns; an unknown name is no route."""
    found = route(CONFIGURED, b"/u/gemini/v1/chat/completions?a=b", model="my-llama")

    assert (found.name, found.target) == ("gemini", b"/x/v1/chat/completions?a=b")
    assert route(CONFIGURED, b"/u/rest").target == b"/"
    assert route(BUILT_IN, b"/u/openai/v1/messages").host == "api.openai.com"
    assert refused(CONFIGURED, b"/u/nobody/v1/x") == "no_upstream"


def test_a_path_is_matched_without_its_upstreams_name() -> None:
    """What APIs and inference rules see."""
    assert without_name(b"/u/rest/v1/messages") == b"/v1/messages"
    assert without_name(b"/v1/messages") == b"/v1/messages"
    assert without_name(b"/u/rest") == b"/"


# X-Cagent-Forward.


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"http://10.0.0.1:8000", "mine"),
        (b"http://10.0.0.1:8000/v1", "mine"),
        (b"HTTP://10.0.0.1:8000/v1/", "mine"),
        (b"https://g.example/x", "gemini"),
        (b"https://g.example:443/x/v1/", "gemini"),
        (b"https://rest.example:8443/", "rest"),
    ],
)
def test_forward_selects_the_upstream_of_equal_origin_and_base_path(
    value: bytes, name: str
) -> None:
    """A trailing slash or /v1 is ignored on both sides."""
    found = route(CONFIGURED, b"/v1/chat/completions", (b"x-cagent-forward", value))

    assert found.name == name


@pytest.mark.parametrize(
    "value",
    [
        b"https://evil.example",
        b"https://10.0.0.1:8000",
        b"http://10.0.0.1:8001",
        b"http://10.0.0.1:8000/other",
        b"https://g.example",
        b"http://user@10.0.0.1:8000",
        b"http://10.0.0.1:8000@evil.example",
        b"http://10.0.0.1:8000?x=1",
        b"http://10.0.0.1:8000#x",
        b"http://10.0.0.1:99999",
        b"file:///etc/passwd",
        b"//10.0.0.1:8000",
        b"10.0.0.1:8000",
        b"http://",
        "http://10.0.0.1:8000\u3002".encode(),
        b"\xff",
    ],
)
def test_forward_to_anything_else_is_refused(value: bytes) -> None:
    """An allow-list, never an open proxy."""
    assert refused(CONFIGURED, b"/v1/x", (b"x-cagent-forward", value)) == "forward_not_allowed"


def test_two_words_on_the_destination_are_refused() -> None:
    """Two forward headers, or one against /u/NAME, name no single upstream."""
    one, two = b"https://rest.example:8443", b"https://g.example/x"
    forward = b"x-cagent-forward"

    assert refused(CONFIGURED, b"/v1/x", (forward, one), (forward, two)) == "forward_not_allowed"
    assert refused(CONFIGURED, b"/u/gemini/v1/x", (forward, one)) == "forward_not_allowed"
    assert route(CONFIGURED, b"/u/rest/v1/x", (forward, one), (forward, one)).name == "rest"


# Targets.


@pytest.mark.parametrize(
    ("base", "path", "vendor", "target"),
    [
        (b"", b"/v1/x", "", b"/v1/x"),
        (b"/v1", b"/v1/x", "", b"/v1/x"),
        (b"/v1", b"/x", "", b"/v1/x"),
        (b"/v1", b"/v1?a", "", b"/v1?a"),
        (b"/v1", b"/v1beta/x", "", b"/v1/v1beta/x"),
        (b"/api/v1", b"/v1/x?y=/v1", "", b"/api/v1/x?y=/v1"),
        (b"/backend-api/codex", b"/v1/responses", "chatgpt", b"/backend-api/codex/responses"),
    ],
)
def test_a_version_is_never_doubled(base: bytes, path: bytes, vendor: str, target: bytes) -> None:
    """The path goes below the url's; ChatGPT's endpoint has no version."""
    assert compose_target(base, path, vendor) == target


@given(st.binary(max_size=40).filter(lambda text: b"key=" not in text))
def test_a_query_is_kept_byte_for_byte(query: bytes) -> None:
    """Whatever stands behind the question mark."""
    assert route(BUILT_IN, b"/v1/responses?" + query).target == b"/v1/responses?" + query


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"?key=AIzaX", b""),
        (b"?alt=sse&key=AIzaX", b"?alt=sse"),
        (b"?key=AIzaX&alt=sse", b"?alt=sse"),
        (b"?a=1&key=AIzaX&b=2", b"?a=1&b=2"),
        (b"?monkey=1", b"?monkey=1"),
    ],
)
def test_googles_key_in_a_query_reaches_google_alone(query: bytes, left: bytes) -> None:
    """It is a credential: removed before other vendors, engines, and where Clew has its own."""
    path = b"/v1/chat/completions"
    engine = RouteTable([Upstream(name="e", url="http://h", kind="engine")])

    assert route(BUILT_IN, path + query).target == path + left
    assert route(engine, path + query).target == path + left
    assert route(BUILT_IN, b"/u/google" + path + query).target == path + query


SSRF = [
    b"//evil.example/v1/messages",
    b"//evil.example:80/",
    b"///evil.example/",
    b"http://evil.example/v1/chat/completions",
    b"https://evil.example/v1/chat/completions",
    b"HTTP://evil.example:1/v1/chat/completions",
    b"http://user:pass@evil.example/v1/chat/completions",
    b"http://evil.example",
    b"http://evil.example//other.example/v1/",
    b"ftp://evil.example/v1/x",
    b"gopher://evil.example:70/_x",
    b"file:///etc/passwd",
    b"evil.example:443",
    b"@evil.example/v1/chat/completions",
    b"/@evil.example/v1/messages",
    b"/v1/@evil.example",
    b"/v1/http://evil.example/",
    b"/v1/..//evil.example",
    b"/../../evil",
    b"/v1/../../evil",
    b"/v1/%2e%2e/evil",
    b"/v1/%2E./evil",
    b"/v1/./evil",
    b"/v1/x/..",
    b"/\\evil.example/v1/",
    b"\\\\evil.example\\v1",
    b"/v1\\@evil.example",
    b"/v1/x#@evil.example/",
    b"#@evil.example/",
    b"?@evil.example/",
    b"/v1/x?@evil.example/",
    b"/v1/x?url=http://evil.example",
    b"/u/openai/../evil",
    b"/u/openai//evil.example/v1/",
    b"/u/openai@evil.example/v1/",
    b"/u/evil.example/v1/",
    b"/u//v1/x",
    b"/u/http://evil.example/",
    b"/v1/x\r\nHost: evil.example",
    b"/v1/x y",
    b"/v1/\x00",
]


@pytest.mark.parametrize("target", SSRF)
def test_no_target_chooses_the_host(target: bytes) -> None:
    """Every trick either has no route or goes to the configured origin, on one line."""
    origins = {(item.scheme, item.host, item.port) for item in BUILT_IN.destinations}
    for headers in ([], [(b"host", b"evil.example")], [(b"anthropic-version", b"1")]):
        found = route_or_code(BUILT_IN, target, *headers)
        if isinstance(found, str):
            assert found == "no_upstream"
            continue
        assert (found.scheme, found.host, found.port) in origins
        assert b"evil.example" not in found.authority
        assert found.target.startswith(b"/")
        assert not found.target.startswith(b"//")
        assert not {b"\r", b"\n", b" "} & set(found.target.partition(b"?")[0])


@given(st.binary(max_size=60))
def test_any_target_has_one_of_the_configured_origins_or_none(target: bytes) -> None:
    """Arbitrary bytes never raise anything but ClewError and never change the origin."""
    found = route_or_code(CONFIGURED, target)
    if isinstance(found, str):
        assert found == "no_upstream"
        return
    assert found.host in ("10.0.0.1", "g.example", "rest.example")


# Restrictions.


RESTRICTED = [
    RouteTable([Upstream(name="e", url="http://h:1", kind="engine")]),
    RouteTable([Upstream(name="k", url="https://api.openai.com", api_key_env="KEY")]),
    RouteTable([Upstream(name="f", url="https://h", api_key_file="/run/key")]),
]


@pytest.mark.parametrize("table", RESTRICTED)
@pytest.mark.parametrize(
    ("method", "target", "passes"),
    [
        (b"POST", b"/v1/chat/completions", True),
        (b"POST", b"/v1/messages/count_tokens", True),
        (b"POST", b"/v1/responses/compact", True),
        (b"POST", b"/v1beta/models/g:streamGenerateContent?alt=sse", True),
        (b"POST", b"/v1beta/models/g:countTokens", True),
        (b"GET", b"/v1/models", True),
        (b"GET", b"/v1/models/my-model", True),
        (b"GET", b"/v1beta/models", True),
        (b"POST", b"/v1/files", False),
        (b"GET", b"/v1/files", False),
        (b"DELETE", b"/v1/models/my-model", False),
        (b"GET", b"/v1/responses/resp_1", False),
        (b"DELETE", b"/v1/responses/resp_1", False),
        (b"GET", b"/v1/chat/completions", False),
        (b"GET", b"/v1/messages/batches", False),
        (b"POST", b"/v1/threads/t/messages", False),
        (b"POST", b"/v1/embeddings", False),
        (b"GET", b"/metrics", False),
        (b"POST", b"/v1/chat/completions/..%2f..%2ffiles", False),
        (b"POST", b"/v1/messages/%2e%2e/files", False),
        (b"POST", b"/v1/messages//files", False),
    ],
)
def test_engines_and_lent_credentials_serve_inference_only(
    table: RouteTable, method: bytes, target: bytes, passes: bool
) -> None:
    """Where Clew answers for the caller, nobody reads or changes what another left there."""
    if passes:
        assert route(table, target, method=method).target == target
    else:
        assert refused(table, target, method=method) == "no_upstream"


def test_a_websocket_handshake_on_an_inference_path_may_pass() -> None:
    """It is the one GET that infers; the websocket mode decides on it afterwards."""
    upgrade = (b"upgrade", b"websocket")

    assert route(RESTRICTED[0], b"/v1/responses", upgrade, method=b"GET").name == "e"


def test_with_the_clients_own_credential_everything_passes() -> None:
    """A provider is reached with the client's key: what it may do is between those two."""
    assert route(BUILT_IN, b"/v1/files/f", method=b"DELETE").target == b"/v1/files/f"


# Predicates, origins.


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        (b"POST", b"/v1/chat/completions", True),
        (b"POST", b"/v1/responses", True),
        (b"POST", b"/v1/messages", True),
        (b"POST", b"/v1/messages/count_tokens", True),
        (b"POST", b"/openai/v1/chat/completions", True),
        (b"POST", b"/v1beta/openai/chat/completions", True),
        (b"POST", b"/chat/completions", True),
        (b"POST", b"/v1beta/models/g:generateContent", True),
        (b"POST", b"/v1beta/models/g:embedContent", False),
        (b"POST", b"/v1/completionsx", False),
        (b"POST", b"/v1/messagesx", False),
        (b"POST", b"/v1/threads/t/messages", False),
        (b"POST", b"/api/show", False),
        (b"GET", b"/v1/responses/resp_1", False),
        (b"HEAD", b"/v1/messages", False),
    ],
)
def test_only_posts_to_inference_paths_belong_to_a_session(
    method: bytes, path: bytes, expected: bool
) -> None:
    """Chat completions, responses, messages and below, and Gemini's three verbs."""
    assert is_inference(method, path) is expected


def test_token_counts_are_known_by_path() -> None:
    """Anthropic's, Gemini's and OpenAI's."""
    assert is_count_tokens(b"/v1/messages/count_tokens")
    assert is_count_tokens(b"/v1beta/models/g:countTokens")
    assert is_count_tokens(b"/v1/responses/input_tokens")
    assert not is_count_tokens(b"/v1/messages")


def test_a_probe_of_the_base_url_is_answered_here() -> None:
    """HEAD / and HEAD /api/hello, as Claude Code sends them."""
    assert is_answered_here(b"HEAD", b"/")
    assert is_answered_here(b"HEAD", b"/api/hello?x")
    assert not is_answered_here(b"GET", b"/")
    assert not is_answered_here(b"HEAD", b"/v1/models")


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://h", b"h"),
        ("https://h:443", b"h"),
        ("http://h:443", b"h:443"),
        ("http://[::1]:8000", b"[::1]:8000"),
    ],
)
def test_the_authority_shows_a_port_only_where_it_is_unusual(url: str, authority: bytes) -> None:
    """What the Host field says upstream."""
    table = RouteTable([Upstream(name="u", url=url)])

    assert route(table, b"/v1/x").authority == authority


@pytest.mark.parametrize(
    "url", ["", "h:1", "ftp://h", "http://", "http://u@h", "http://h?x", "http://h#x", "http://h:x"]
)
def test_a_url_that_is_none_is_refused_at_start(url: str) -> None:
    """Scheme, host and path, nothing else."""
    with pytest.raises(ValueError, match=r"url|[Pp]ort"):
        split_url(url)


def test_an_upstream_of_workers_has_no_host_of_its_own() -> None:
    """The worker's url is chosen later; the path waits for its base."""
    table = RouteTable([Upstream(name="fleet", kind="engine", workers=("http://h:1/v1",))])
    found = route(table, b"/u/fleet/v1/chat/completions?a=1")

    assert (found.host, found.path) == ("", b"/v1/chat/completions?a=1")
    assert compose_target(b"/v1", found.path) == b"/v1/chat/completions?a=1"
