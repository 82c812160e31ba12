"""What a credential says: whose it is, how its calls are paid, whether it is a person's login.

Decided from the form of the value alone; nothing is looked up and nothing is kept. A key is
recognised *for certain* by its prefix, or *likely* by the header it stands in: routing sends by
the certain ones, and `core.translate` keeps both kinds from other vendors.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from clew import headers as h
from clew.core.claim import Headers

ANTHROPIC: Final = "anthropic"
OPENAI: Final = "openai"
CHATGPT: Final = "chatgpt"
GOOGLE: Final = "google"

MAKER: Final = {ANTHROPIC: ANTHROPIC, OPENAI: OPENAI, CHATGPT: OPENAI, GOOGLE: GOOGLE}
"""Vendor to the company behind it: ChatGPT's login and OpenAI's keys are one company's."""

_AUTHORIZATION: Final = h.AUTHORIZATION.encode()
_X_API_KEY: Final = h.X_API_KEY.encode()
_GOOGLE_API_KEY: Final = h.GOOGLE_API_KEY.encode()
_ACCOUNT_ID: Final = h.CHATGPT_ACCOUNT_ID.encode()

CREDENTIAL_HEADERS: Final = frozenset({_AUTHORIZATION, _X_API_KEY, _GOOGLE_API_KEY})
"""The fields a provider's key comes in; Clew's own may stand in each of them too."""

CLEW_KEY_PREFIX: Final = b"ck_"


class Certainty(IntEnum):
    """How sure it is that a credential belongs to a vendor."""

    NONE = 0
    LIKELY = 1
    CERTAIN = 2


_PREFIXES: Final[tuple[tuple[bytes, str, Certainty, str], ...]] = (
    (b"sk-ant-oat", ANTHROPIC, Certainty.CERTAIN, "subscription"),
    (b"sk-ant-", ANTHROPIC, Certainty.CERTAIN, "api"),
    (b"sk-proj-", OPENAI, Certainty.CERTAIN, "api"),
    (b"sk-svcacct-", OPENAI, Certainty.CERTAIN, "api"),
    (b"sk-admin-", OPENAI, Certainty.CERTAIN, "api"),
    (b"sk-or-", "", Certainty.NONE, "api"),
    (b"sk-", OPENAI, Certainty.LIKELY, "api"),
    (b"AIza", GOOGLE, Certainty.CERTAIN, "api"),
    (b"ya29.", GOOGLE, Certainty.CERTAIN, "unknown"),
    (b"gsk_", "", Certainty.NONE, "api"),
    (b"xai-", "", Certainty.NONE, "api"),
)
"""Prefix, whose, how sure, how paid; the first that fits decides.

``sk-`` alone is OpenAI's oldest form but also what LiteLLM, DeepSeek and local engines give out,
so it is only likely: kept from other vendors, passed to engines.
"""

_OPENAI_MARK: Final = b"T3BlbkFJ"
"""Stands in the middle of every OpenAI key, the oldest included."""

_HEADER_VENDOR: Final = {_X_API_KEY: ANTHROPIC, _GOOGLE_API_KEY: GOOGLE}
"""The two fields only one vendor reads."""


def secret_of(name: bytes, value: bytes) -> bytes:
    """The secret inside a credential field: without the ``Bearer`` scheme, outer blanks removed."""
    if name == _AUTHORIZATION and value[:7].lower() == b"bearer ":
        return value[7:].strip()
    return value.strip()


def is_gateway_key(name: bytes, value: bytes) -> bool:
    """Whether a credential field carries Clew's own key rather than a provider's."""
    return secret_of(name, value).startswith(CLEW_KEY_PREFIX)


def owner_of(name: bytes, value: bytes, *, has_account_id: bool = False) -> tuple[str, Certainty]:
    """Whose credential this field is: (vendor or empty, certainty).

    ``has_account_id``: the request carries ``chatgpt-account-id``, so that a bearer without a
    known prefix is ChatGPT's login token.
    """
    secret = secret_of(name, value)
    for prefix, vendor, certainty, _ in _PREFIXES:
        if secret.startswith(prefix):
            is_marked = vendor == OPENAI and _OPENAI_MARK in secret
            if vendor:
                return vendor, Certainty.CERTAIN if is_marked else certainty
            break
    if name in _HEADER_VENDOR:
        certain = name == _GOOGLE_API_KEY
        return _HEADER_VENDOR[name], Certainty.CERTAIN if certain else Certainty.LIKELY
    if has_account_id and name == _AUTHORIZATION:
        return CHATGPT, Certainty.CERTAIN
    return "", Certainty.NONE


def is_subscription(headers: Headers) -> bool:
    """Whether the client calls with a person's login: Claude's OAuth or ChatGPT's account."""
    for name, value in headers:
        if name == _ACCOUNT_ID:
            return True
        if name in CREDENTIAL_HEADERS and secret_of(name, value).startswith(b"sk-ant-oat"):
            return True
    return False


def billing_of(vendor: str, kind: str, headers: Headers, *, has_own_key: bool = False) -> str:
    """How an attempt is paid: ``self_hosted``, ``subscription``, ``api`` or ``unknown``.

    ``vendor`` and ``kind`` are the route's; ``has_own_key``: Clew supplies the credential, which
    is an API key whatever the client sent (ChatGPT's endpoint takes logins only).
    """
    if kind == "engine":
        return "self_hosted"
    if vendor == CHATGPT:
        return "subscription"
    if has_own_key:
        return "api"
    if is_subscription(headers):
        return "subscription"
    for name, value in headers:
        if name in CREDENTIAL_HEADERS and not is_gateway_key(name, value):
            return _billing_of_secret(name, value)
    return "unknown"


def _billing_of_secret(name: bytes, value: bytes) -> str:
    secret = secret_of(name, value)
    for prefix, _, _, billing in _PREFIXES:
        if secret.startswith(prefix):
            return billing
    return "api" if name in _HEADER_VENDOR and secret else "unknown"
