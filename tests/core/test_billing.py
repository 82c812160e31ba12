"""What a credential's form says of its owner and of how calls are paid."""

from __future__ import annotations

import pytest

from clew.core.billing import Certainty, billing_of, is_gateway_key, is_subscription, owner_of

AUTHORIZATION, X_API_KEY, GOOGLE_KEY = b"authorization", b"x-api-key", b"x-goog-api-key"


@pytest.mark.parametrize(
    ("vendor", "kind", "headers", "billing"),
    [
        ("", "engine", [(AUTHORIZATION, b"Bearer sk-ant-oat01-x")], "self_hosted"),
        ("anthropic", "provider", [(AUTHORIZATION, b"Bearer sk-ant-oat01-x")], "subscription"),
        ("anthropic", "provider", [(AUTHORIZATION, b"bearer sk-ant-api03-x")], "api"),
        ("anthropic", "provider", [(X_API_KEY, b"sk-ant-api03-x")], "api"),
        ("chatgpt", "provider", [(AUTHORIZATION, b"Bearer eyJhbGci")], "subscription"),
        (
            "openai",
            "provider",
            [(AUTHORIZATION, b"Bearer eyJ"), (b"chatgpt-account-id", b"a")],
            "subscription",
        ),
        ("openai", "provider", [(AUTHORIZATION, b"Bearer sk-proj-x")], "api"),
        ("google", "provider", [(GOOGLE_KEY, b"AIzaX")], "api"),
        ("google", "provider", [(AUTHORIZATION, b"Bearer ya29.x")], "unknown"),
        ("", "provider", [(AUTHORIZATION, b"Bearer something")], "unknown"),
        ("", "gateway", [(X_API_KEY, b"anything")], "api"),
        ("openai", "provider", [(AUTHORIZATION, b"Bearer ck_key")], "unknown"),
        ("openai", "provider", [], "unknown"),
    ],
)
def test_billing_follows_the_upstream_and_the_credential(
    vendor: str, kind: str, headers: list[tuple[bytes, bytes]], billing: str
) -> None:
    """Engines are self-hosted, logins subscriptions, keys API, everything else unknown."""
    assert billing_of(vendor, kind, headers) == billing


def test_clews_own_key_is_an_api_key_whatever_the_client_sent() -> None:
    """The upstream bills the credential it sees."""
    login = [(AUTHORIZATION, b"Bearer sk-ant-oat01-x")]

    assert billing_of("anthropic", "provider", login, has_own_key=True) == "api"
    assert billing_of("", "engine", login, has_own_key=True) == "self_hosted"


def test_a_login_is_told_from_a_key() -> None:
    """Claude's OAuth token and ChatGPT's account header are a person's login."""
    assert is_subscription([(AUTHORIZATION, b"Bearer sk-ant-oat01-x")])
    assert is_subscription([(X_API_KEY, b"sk-ant-oat01-x")])
    assert is_subscription([(b"chatgpt-account-id", b"a")])
    assert not is_subscription([(AUTHORIZATION, b"Bearer sk-ant-api03-x")])


@pytest.mark.parametrize("name", [AUTHORIZATION, X_API_KEY, GOOGLE_KEY])
@pytest.mark.parametrize("value", [b"ck_abc", b"Bearer ck_abc", b"BEARER  ck_abc"])
def test_a_gateway_key_is_known_in_every_field(name: bytes, value: bytes) -> None:
    """Any scheme spelling in authorization; bare in the others."""
    expected = name == AUTHORIZATION or not value.lower().startswith(b"bearer")

    assert is_gateway_key(name, value) is expected


@pytest.mark.parametrize(
    ("name", "value", "owner"),
    [
        (AUTHORIZATION, b"Bearer sk-ant-api03-x", ("anthropic", Certainty.CERTAIN)),
        (AUTHORIZATION, b"sk-ant-api03-x", ("anthropic", Certainty.CERTAIN)),
        (AUTHORIZATION, b"Bearer sk-proj-x", ("openai", Certainty.CERTAIN)),
        (AUTHORIZATION, b"Bearer sk-abcT3BlbkFJabc", ("openai", Certainty.CERTAIN)),
        (AUTHORIZATION, b"Bearer sk-1234", ("openai", Certainty.LIKELY)),
        (AUTHORIZATION, b"Bearer sk-or-v1-x", ("", Certainty.NONE)),
        (AUTHORIZATION, b"Bearer AIzaX", ("google", Certainty.CERTAIN)),
        (GOOGLE_KEY, b"anything", ("google", Certainty.CERTAIN)),
        (X_API_KEY, b"anything", ("anthropic", Certainty.LIKELY)),
        (AUTHORIZATION, b"Basic abc", ("", Certainty.NONE)),
    ],
)
def test_a_credentials_owner_is_known_by_its_form(
    name: bytes, value: bytes, owner: tuple[str, Certainty]
) -> None:
    """By prefix for certain, by header or a bare sk- only likely."""
    assert owner_of(name, value) == owner


def test_a_bearer_beside_an_account_id_is_chatgpts() -> None:
    """A login token has no prefix; the account header says whose it is."""
    assert owner_of(AUTHORIZATION, b"Bearer eyJ", has_account_id=True) == (
        "chatgpt",
        Certainty.CERTAIN,
    )
