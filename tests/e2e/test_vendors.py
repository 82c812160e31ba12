"""The built-in upstreams for real: a proxy that ends their TLS sees what each vendor would get.

The gateway has no ``[[upstream]]``; it reaches the vendors through ``HTTPS_PROXY`` and trusts the
authority made here by ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.installation import Installation
from tests.e2e.plain import Answer, Fields, Received, Upstream, ask, upstream

ANTHROPIC = "api.anthropic.com"
OPENAI = "api.openai.com"
CHATGPT = "chatgpt.com"
GOOGLE = "generativelanguage.googleapis.com"
HOSTS = (ANTHROPIC, OPENAI, CHATGPT, GOOGLE)
COMPANY = {ANTHROPIC: "anthropic", OPENAI: "openai", CHATGPT: "openai", GOOGLE: "google"}
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
CODEX_BASE = "/backend-api/codex"


@dataclass(frozen=True, slots=True)
class Credential:
    """One way to authenticate, and what it says of where to go."""

    name: str
    headers: Fields
    company: str
    """Whose secret it is; empty: nobody's that is known."""
    sign: str = ""
    """The host it leads to whatever the path; empty: the path decides."""


CREDENTIALS = (
    Credential("none", [], ""),
    Credential("anthropic key", [("X-Api-Key", "sk-ant-api03-secret")], "anthropic", ANTHROPIC),
    Credential(
        "anthropic login",
        [("Authorization", "Bearer sk-ant-oat01-secret")],
        "anthropic",
        ANTHROPIC,
    ),
    Credential("openai project key", [("Authorization", "Bearer sk-proj-secret")], "openai"),
    Credential("openai key", [("authorization", "Bearer sk-secret")], "openai"),
    Credential(
        "chatgpt login",
        [("Authorization", "Bearer eyJhbGci.secret"), ("ChatGPT-Account-ID", "account-secret")],
        "openai",
        CHATGPT,
    ),
    Credential("google key", [("x-goog-api-key", "AIzasecret")], "google", GOOGLE),
    Credential("google login", [("Authorization", "Bearer ya29.secret")], "google"),
)
PATHS = {
    "/v1/messages": ANTHROPIC,
    "/v1/messages/count_tokens?beta=true": ANTHROPIC,
    "/v1/chat/completions": OPENAI,
    "/v1/responses": OPENAI,
    "/v1/embeddings": OPENAI,
    "/v1beta/models/gemini-2.5-pro:generateContent": GOOGLE,
    "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse": GOOGLE,
    "/v1beta/openai/chat/completions": GOOGLE,
}
WORLD: Fields = [
    ("X-Dynamo-Session-ID", "world"),
    ("X-Dynamo-Trace", "world"),
    ("X-Cagent-Session-Id", "world"),
    ("X-Lore-Session-Id", "world"),
    ("X-Clew-Kind", "turn"),
    ("x-litellm-session-id", "world"),
    ("Helicone-Session-Id", "world"),
    ("X-BF-Session-Id", "world"),
]
"""Identity between gateways: no vendor's business."""
CLAUDE: Fields = [("X-Claude-Code-Session-Id", "own"), ("x-claude-code-agent-id", "own")]
CODEX: Fields = [("X-Codex-Turn-Metadata", '{"turn_id":"own"}'), ("x-codex-window-id", "own:0")]
MAKER = {"x-claude-code": "anthropic", "x-codex": "openai"}
OTHER: Fields = [
    ("User-Agent", "test/1.0 (as it is)"),
    ("X-StAiNlEsS-Lang", "js"),
    ("Accept-Encoding", "gzip, br"),
    ("x-empty", ""),
    ("X-Twice", "one"),
    ("X-Twice", "two"),
    ("Content-Type", "application/json"),
]


def make_authority(directory: Path) -> ssl.SSLContext:
    """An authority (``ca.pem``) and a server context with its certificate for every vendor."""
    names = directory / "names"
    names.write_text(
        "subjectAltName={}\nauthorityKeyIdentifier=keyid\nextendedKeyUsage=serverAuth\n".format(
            ",".join(f"DNS:{host}" for host in HOSTS)
        )
    )
    authority = ["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority"]
    authority += ["-addext", "keyUsage=critical,keyCertSign"]
    request = ["-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=vendors"]
    sign = ["-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    for command in (
        ["req", *KEY, *authority, "-days", "2"],
        ["req", *KEY, *request],
        ["x509", *sign, "-days", "2", "-extfile", "names", "-out", "leaf.pem"],
    ):
        subprocess.run(["openssl", *command], cwd=directory, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "leaf.pem", directory / "leaf.key")
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """The authority's certificate file and the vendors' server context."""
    directory = tmp_path_factory.mktemp("authority")
    return directory / "ca.pem", make_authority(directory)


@pytest.fixture(scope="module")
def vendors(authority: tuple[Path, ssl.SSLContext]) -> Iterator[Upstream]:
    """All vendors behind one proxy."""
    with upstream(tls=authority[1]) as running:
        yield running


def through(proxy: Upstream, trusted: Path | None) -> dict[str, str]:
    """The environment of a gateway behind the proxy."""
    direct = dict.fromkeys(("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy"), "")
    trust = {"SSL_CERT_FILE": str(trusted)} if trusted else {}
    return {**direct, "HTTPS_PROXY": proxy.url, **trust}


@pytest.fixture(scope="module")
def installation(
    vendors: Upstream,
    authority: tuple[Path, ssl.SSLContext],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """A gateway without configuration, behind the proxy."""
    directory = tmp_path_factory.mktemp("vendors")
    with Installation(directory, "", through(vendors, authority[0])) as running:
        yield running


def send(
    installation: Installation, vendors: Upstream, path: str, headers: Fields, method: str = "POST"
) -> tuple[Answer, Received]:
    """The answer, and the one request that arrived at a vendor."""
    vendors.received.clear()
    body = b'{"model":"some-model" , "messages":[]}' if method == "POST" else None
    answer = ask(installation.gateway.url, method, path, headers, body)
    assert answer.status == 200, answer
    (received,) = vendors.received
    assert received.body == (body or b"")
    assert received.get("host") == received.host
    return answer, received


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda credential: credential.name)
def test_signs_come_before_the_path_and_no_vendor_gets_anothers_credential(
    installation: Installation, vendors: Upstream, credential: Credential
) -> None:
    """Each path leads where the credential's sign or else the path says, its secret only home."""
    for path, by_path in PATHS.items():
        _, received = send(installation, vendors, path, credential.headers)
        host = credential.sign or by_path
        assert received.host == host, (path, received)
        expected = path
        if host == CHATGPT:
            expected = CODEX_BASE + (path[3:] if path.startswith("/v1/") else path)
        assert received.target == expected
        arrived = [pair for pair in received.headers if "secret" in pair[1]]
        is_home = credential.company == COMPANY[host]
        assert arrived == (credential.headers if is_home else []), (path, received)


def test_the_version_header_is_anthropics_sign(
    installation: Installation, vendors: Upstream
) -> None:
    """``anthropic-version`` leads to Anthropic from any path, also for a list of models."""
    sign = ("anthropic-version", "2023-06-01")
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/responses")):
        _, received = send(installation, vendors, path, [sign], method)

        assert (received.host, received.target) == (ANTHROPIC, path)
        assert received.get("anthropic-version") == "2023-06-01"


def test_googles_key_in_a_query_stays_with_google(
    installation: Installation, vendors: Upstream
) -> None:
    """``key=`` passes to Google and is cut out of what another vendor gets."""
    path = "/v1beta/models/g:generateContent?alt=sse&key=AIzasecret"
    _, at_home = send(installation, vendors, path, [])
    _, abroad = send(installation, vendors, "/v1/chat/completions?key=AIzasecret&a=b", [])

    assert (at_home.host, at_home.target) == (GOOGLE, path)
    assert (abroad.host, abroad.target) == (OPENAI, "/v1/chat/completions?a=b")


@pytest.mark.parametrize("host", HOSTS)
def test_a_vendor_gets_its_own_agents_headers_no_others_and_everything_else_as_sent(
    installation: Installation, vendors: Upstream, host: str
) -> None:
    """Names, values and order arrive as sent, but for identity that is none of its business."""
    path, signs = {
        ANTHROPIC: ("/v1/messages", []),
        OPENAI: ("/v1/responses", []),
        CHATGPT: ("/v1/responses", [("ChatGPT-Account-Id", "account")]),
        GOOGLE: ("/v1beta/models/g:generateContent", []),
    }[host]
    sent = [*OTHER[:3], *WORLD, *CLAUDE, *OTHER[3:], *CODEX, *signs]
    _, received = send(installation, vendors, path, sent)

    assert received.host == host
    kept = [pair for pair in sent if pair not in WORLD and _may_see(pair[0], host)]
    framing = {"host", "content-length"}
    assert [pair for pair in received.headers if pair[0].lower() not in framing] == kept


def _may_see(name: str, host: str) -> bool:
    return all(
        COMPANY[host] == maker for prefix, maker in MAKER.items() if name.lower().startswith(prefix)
    )


def test_a_named_vendor_is_called_without_the_others_credential(
    installation: Installation, vendors: Upstream
) -> None:
    """``/u/NAME/`` decides before the signs do, and the credential still stays at home."""
    key = ("X-Api-Key", "sk-ant-api03-secret")
    _, abroad = send(installation, vendors, "/u/openai/v1/chat/completions", [key])
    _, at_home = send(installation, vendors, "/u/anthropic/v1/messages", [key])

    assert (abroad.host, abroad.target, abroad.get("x-api-key")) == (
        OPENAI,
        "/v1/chat/completions",
        None,
    )
    assert (at_home.host, at_home.get("x-api-key")) == (ANTHROPIC, key[1])


def test_probes_of_the_base_url_are_answered_here(
    installation: Installation, vendors: Upstream
) -> None:
    """``HEAD /`` and ``HEAD /api/hello`` get 200 and reach no vendor."""
    vendors.received.clear()
    for path in ("/", "/api/hello"):
        answer = ask(installation.gateway.url, "HEAD", path, [("x-api-key", "sk-ant-secret")])
        assert (answer.status, answer.body) == (200, b"")

    assert vendors.received == []


def test_a_vendor_whose_certificate_is_not_trusted_is_not_spoken_to(
    vendors: Upstream, tmp_path: Path
) -> None:
    """Without the authority the TLS fails: 502, and not a byte of the request has left."""
    vendors.received.clear()
    with Installation(tmp_path, "", through(vendors, None)) as installation:
        answer = ask(
            installation.gateway.url,
            "POST",
            "/v1/messages",
            [("x-api-key", "sk-ant-secret")],
            b"{}",
        )

    assert (answer.status, answer.get("x-clew-error")) == (502, "upstream_unreachable")
    assert "secret" not in json.dumps(json.loads(answer.body))
    assert vendors.received == []
