"""Gateway keys and principals: places, states, verbs, and who is let in."""

from __future__ import annotations

import itertools
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.claim import Headers, Principal
from clew.core.errors import ClewError
from clew.core.keys import (
    ACCEPTED,
    KEY_LENGTH,
    LAST_NS,
    TRANSITIONS,
    Caller,
    Key,
    KeyState,
    KeyVerb,
    Order,
    authenticate,
    authenticate_by_credential,
    format_id,
    format_secret,
    hash_secret,
    key_state,
    make_key,
    revoke,
    rotate,
)

SECRET = b"s" * 32
NOW = 1_800_000_000_000_000_000
HOUR = 3_600_000_000_000
MINE = format_secret(b"m" * 32)
OTHER = format_secret(b"o" * 32)
REFUSALS = ("unauthorized", "ambiguous_header", "subscription_refused")
PLACES = ("x-clew-key", "authorization", "x-api-key", "x-goog-api-key")


def a_key(secret: str = MINE, **fields: object) -> Key:
    """Alice's key, made an hour ago."""
    given = {"team": "red", "project": "web"} | fields
    return Key(
        format_id(secret.encode()[3:13]),
        hash_secret(SECRET, secret.encode()),
        Principal("alice"),
        NOW - HOUR,
        **given,
    )


def headers(*pairs: tuple[str, str]) -> Headers:
    """Fields as the gateway reads them."""
    return [(name.encode(), value.encode()) for name, value in pairs]


def who(
    *pairs: tuple[str, str], key: Key | None = None, allow_subscription: bool = False
) -> Caller:
    """Who calls, where one key is known."""
    known = key or a_key()
    return authenticate(
        headers(*pairs), {known.hash: known}, SECRET, NOW, allow_subscription=allow_subscription
    )


def refused(*pairs: tuple[str, str], key: Key | None = None) -> str:
    """The code of the refusal."""
    with pytest.raises(ClewError) as caught:
        who(*pairs, key=key)
    return caught.value.fault.code


def caller_or_code(call: Callable[[], Caller]) -> Caller | str:
    """Who was let in, or the refusal's code."""
    try:
        return call()
    except ClewError as error:
        return error.fault.code


def by_credential(*pairs: tuple[str, str]) -> str:
    """The principal a credential names, or the refusal's code."""
    found = caller_or_code(lambda: authenticate_by_credential(headers(*pairs), SECRET))
    return found if isinstance(found, str) else found.principal


# --- form ----------------------------------------------------------------------------------------


def test_a_key_is_ck_and_43_letters() -> None:
    """256 bits of URL-safe base64 without padding."""
    assert len(format_secret(bytes(32))) == KEY_LENGTH
    assert format_secret(b"\xff" * 32).startswith("ck_")
    assert "=" not in MINE
    assert "/" not in format_secret(b"\xff" * 32)


def test_the_hash_needs_the_installations_secret() -> None:
    """A table of hashes from one installation says nothing in another."""
    assert hash_secret(b"a" * 32, MINE.encode()) != hash_secret(b"b" * 32, MINE.encode())
    assert len(hash_secret(SECRET, MINE.encode())) == 32


# --- where a key may stand -----------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["{}", "  {} "])
def test_a_key_may_stand_in_four_places(place: str, form: str) -> None:
    """With all that belongs to it."""
    found = who((place, form.format(MINE)))

    assert (found.principal, found.team, found.project) == ("alice", "red", "web")
    assert found.key_id == a_key().id


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_a_key_may_be_a_bearer(scheme: str) -> None:
    """As every SDK sends it."""
    assert who(("authorization", scheme + MINE)).principal == "alice"


@pytest.mark.parametrize("places", list(itertools.combinations(PLACES, 2)))
def test_the_same_key_in_two_places_counts_once(places: tuple[str, str]) -> None:
    """A client may be configured twice."""
    assert who(*((place, MINE) for place in places)).principal == "alice"


@pytest.mark.parametrize("places", list(itertools.permutations(PLACES, 2)))
def test_two_different_keys_are_none(places: tuple[str, str]) -> None:
    """Nobody can tell which was meant, and a wrong one must not hide behind a right one."""
    assert refused((places[0], MINE), (places[1], OTHER)) == "unauthorized"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("second", [MINE, OTHER])
def test_a_header_twice_is_ambiguous(place: str, second: str) -> None:
    """Whatever it holds: proxies pick different ones."""
    assert refused((place, MINE), (place, second)) == "ambiguous_header"


def test_a_providers_key_beside_it_is_nobodys() -> None:
    """It passes to the provider."""
    assert who(("x-clew-key", MINE), ("authorization", "Bearer sk-proj-x")).principal == "alice"


@pytest.mark.parametrize("name", ["x_clew_key", "x-clew-keys", "cookie", "api-key", "x_api_key"])
def test_a_key_elsewhere_is_not_seen(name: str) -> None:
    """An underscore twin least of all."""
    assert refused((name, MINE)) == "unauthorized"


def test_a_blank_key_is_none() -> None:
    """As for every header."""
    assert refused(("x-clew-key", "  ")) == "unauthorized"
    assert who(("x-clew-key", " "), ("x-api-key", MINE)).principal == "alice"


@pytest.mark.parametrize(
    "value",
    [
        OTHER,
        MINE[:-1],
        MINE + "A",
        MINE.upper(),
        MINE[3:],
        f"Bearer {MINE}",
        "ck_",
        "é",
        "x" * 9000,
    ],
)
def test_a_wrong_key_is_refused(value: str) -> None:
    """However near."""
    assert refused(("x-clew-key", value)) == "unauthorized"


# --- states --------------------------------------------------------------------------------------

STATES = [
    ({}, KeyState.ACTIVE),
    ({"expires_at_ns": NOW + 1}, KeyState.ACTIVE),
    ({"expires_at_ns": NOW}, KeyState.EXPIRED),
    ({"grace_until_ns": NOW + 1}, KeyState.GRACE),
    ({"grace_until_ns": NOW}, KeyState.EXPIRED),
    ({"grace_until_ns": NOW + 1, "expires_at_ns": NOW}, KeyState.EXPIRED),
    ({"revoked_at_ns": NOW + HOUR}, KeyState.REVOKED),
    ({"revoked_at_ns": NOW, "expires_at_ns": NOW - 1, "grace_until_ns": NOW + 1}, KeyState.REVOKED),
]


@pytest.mark.parametrize(("fields", "state"), STATES)
def test_the_state_follows_from_the_times(fields: dict[str, int], state: KeyState) -> None:
    """Revoked outranks expired, expired outranks grace."""
    assert key_state(a_key(**fields), NOW) is state


@pytest.mark.parametrize(("fields", "state"), STATES)
def test_only_active_and_replaced_keys_let_in(fields: dict[str, int], state: KeyState) -> None:
    """Every other state has the answer of a wrong key."""
    key = a_key(**fields)

    if state in ACCEPTED:
        assert who(("x-clew-key", MINE), key=key).principal == "alice"
    else:
        assert refused(("x-clew-key", MINE), key=key) == "unauthorized"


def test_every_refusal_says_the_same() -> None:
    """Word by word: missing, wrong, revoked and expired cannot be told apart."""
    said = set()
    for pairs, key in (
        ((), a_key()),
        ((("x-clew-key", OTHER),), a_key()),
        ((("x-clew-key", MINE),), a_key(revoked_at_ns=NOW)),
        ((("x-clew-key", MINE),), a_key(expires_at_ns=NOW)),
    ):
        with pytest.raises(ClewError) as caught:
            who(*pairs, key=key)
        said.add(str(caught.value))

    assert len(said) == 1


@pytest.mark.parametrize(
    ("state", "verb"), list(itertools.product(KeyState, KeyVerb)), ids=lambda value: value.value
)
def test_a_verb_goes_where_the_table_says(state: KeyState, verb: KeyVerb) -> None:
    """And nowhere else."""
    fields = next(fields for fields, found in STATES if found is state)
    key = a_key(**fields)

    def done() -> Key:
        if verb is KeyVerb.REVOKE:
            return revoke(key, NOW)
        return rotate(key, "key_new", b"h" * 32, NOW, HOUR)[0]

    if (state, verb) in TRANSITIONS:
        assert key_state(done(), NOW) is TRANSITIONS[state, verb]
    else:
        with pytest.raises(ClewError):
            done()


def test_a_successor_keeps_everything_but_the_key() -> None:
    """And lives as long again as the first was meant to."""
    key = a_key(expires_at_ns=NOW + HOUR, tags={"a": "b"}, name="laptop")

    replaced, successor = rotate(key, "key_new", b"h" * 32, NOW, HOUR)

    assert (replaced.replaced_by, replaced.grace_until_ns) == ("key_new", NOW + HOUR)
    assert successor.caller == Caller(Principal("alice"), "red", "web", {"a": "b"}, "key_new")
    assert (successor.created_at_ns, successor.expires_at_ns) == (NOW, NOW + 2 * HOUR)
    assert (successor.name, successor.hash) == ("laptop", b"h" * 32)


def test_a_lifetime_ends_with_the_calendar() -> None:
    """A successor's times fit the store whatever the first one's were."""
    _, successor = rotate(a_key(expires_at_ns=LAST_NS), "key_new", b"h" * 32, NOW, HOUR)

    assert successor.expires_at_ns == LAST_NS


def test_no_grace_is_the_end() -> None:
    """A grace of nothing stops the old key in the same moment."""
    replaced, _ = rotate(a_key(), "key_new", b"h" * 32, NOW, 0)

    assert key_state(replaced, NOW) is KeyState.EXPIRED


def test_the_first_revocation_counts() -> None:
    """Later ones leave its time alone."""
    assert revoke(a_key(revoked_at_ns=NOW - 5), NOW).revoked_at_ns == NOW - 5


def test_a_key_is_not_born_expired() -> None:
    """A date in the past is a slip."""
    with pytest.raises(ClewError):
        make_key(Order(principal="a", expires_at_ns=NOW), "key_a", b"h" * 32, NOW)


# --- logins --------------------------------------------------------------------------------------

LOGINS = [
    ("authorization", "Bearer sk-ant-oat01-x"),
    ("x-api-key", "sk-ant-oat01-x"),
    ("chatgpt-account-id", "a"),
]


@pytest.mark.parametrize("login", LOGINS)
def test_a_subscription_is_refused_beside_a_key(login: tuple[str, str]) -> None:
    """Unless the configuration allows it."""
    assert refused(("x-clew-key", MINE), login) == "subscription_refused"
    assert who(("x-clew-key", MINE), login, allow_subscription=True).principal == "alice"


@pytest.mark.parametrize("login", LOGINS)
def test_a_subscription_alone_is_nobody(login: tuple[str, str]) -> None:
    """What the gateway allows is told to those it knows."""
    assert refused(login) == "unauthorized"


# --- credential ----------------------------------------------------------------------------------


def test_an_api_key_names_its_principal() -> None:
    """The same one in whatever field it stands, another one for another key."""
    mine = by_credential(("x-api-key", "sk-ant-api03-mine"))

    assert mine.startswith("cr_")
    assert by_credential(("authorization", "Bearer sk-ant-api03-mine")) == mine
    assert by_credential(("x-api-key", "sk-ant-api03-other")) != mine


def test_the_principal_of_a_credential_depends_on_the_secret() -> None:
    """It is no hash that could be looked up."""
    sent = headers(("x-api-key", "k"))

    assert authenticate_by_credential(sent, b"a" * 32) != authenticate_by_credential(
        sent, b"b" * 32
    )


@pytest.mark.parametrize(
    "login",
    [
        *LOGINS,
        ("authorization", "Bearer ya29.a0AfH6"),
        ("authorization", "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
    ],
)
@pytest.mark.parametrize("beside", [(), (("x-goog-api-key", "AIzaX"),)])
def test_a_login_is_no_long_lived_key(
    login: tuple[str, str], beside: tuple[tuple[str, str], ...]
) -> None:
    """It changes at each refresh, and the principal would change with it."""
    assert by_credential(login, *beside) == "subscription_refused"


BASIC = b64encode(b"user:password").decode()


@pytest.mark.parametrize(
    "pairs",
    [
        (),
        (("x-api-key", ""),),
        (("authorization", "Bearer "),),
        (("authorization", f"Basic {BASIC}"),),
        (("x-clew-key", MINE),),
        (("x-api-key", MINE),),
        (("cookie", "k=v"),),
    ],
)
def test_without_an_api_key_there_is_nobody(pairs: tuple[tuple[str, str], ...]) -> None:
    """A gateway key, a password and a cookie are none."""
    assert by_credential(*pairs) == "unauthorized"


def test_two_api_keys_are_none() -> None:
    """The upstream would verify one of them, and the other would choose the principal."""
    two = (("x-api-key", "sk-a"), ("authorization", "Bearer sk-b"))

    assert by_credential(*two) == by_credential(*two[::-1]) == "unauthorized"
    assert by_credential(("x-api-key", "sk-a"), ("authorization", "Bearer sk-a")).startswith("cr_")


def test_a_gateway_key_beside_an_api_key_changes_nothing() -> None:
    """It is not the client's own."""
    alone = by_credential(("x-api-key", "sk-a"))

    assert by_credential(("x-api-key", "sk-a"), ("x-clew-key", MINE)) == alone


# --- whatever is sent ----------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        *(place.encode() for place in PLACES),
        b"x_clew_key",
        b"x_api_key",
        b"chatgpt-account-id",
        b"cookie",
    ]
)
KEYS = [a_key(format_secret(bytes([number]) * 32)) for number in range(4)]
SECRETS = [format_secret(bytes([number]) * 32).encode() for number in range(4)]
VALUES = st.one_of(
    st.sampled_from([*SECRETS, *(b"Bearer " + one for one in SECRETS)]),
    st.sampled_from([b"sk-ant-api03-x", b"Bearer sk-ant-oat01-x", b"ck_", b""]),
    st.binary(max_size=60),
    st.builds(
        lambda one, at, byte: one[:at] + bytes([byte]) + one[at + 1 :],
        st.sampled_from(SECRETS),
        st.integers(0, 45),
        st.integers(33, 126),
    ),
)
TIMES = st.one_of(st.none(), st.integers(NOW - 2 * HOUR, NOW + 2 * HOUR))


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.lists(st.tuples(TIMES, TIMES, st.one_of(st.none(), TIMES)), min_size=4, max_size=4),
    st.booleans(),
)
def test_nobody_is_let_in_but_the_holder_of_a_valid_key(
    sent: Headers,
    times: list[tuple[int | None, int | None, int | None]],
    allow_subscription: bool,
) -> None:
    """Whatever else is sent: every gateway key in it is one and the same, known, and in force."""
    known = {
        hash_secret(SECRET, secret): Key(
            f"key_{number}",
            hash_secret(SECRET, secret),
            Principal(f"p{number}"),
            NOW - HOUR,
            expires_at_ns=expires,
            grace_until_ns=grace,
            revoked_at_ns=revoked,
        )
        for number, (secret, (expires, grace, revoked)) in enumerate(
            zip(SECRETS, times, strict=True)
        )
    }
    caller = caller_or_code(
        lambda: authenticate(sent, known, SECRET, NOW, allow_subscription=allow_subscription)
    )
    if isinstance(caller, str):
        assert caller in REFUSALS
        return
    number = int(caller.principal[1:])
    expires, grace, revoked = times[number]
    assert revoked is None
    assert expires is None or expires > NOW
    assert grace is None or grace > NOW
    values = {
        value.strip().removeprefix(b"Bearer ").strip()
        for name, value in sent
        if name.decode() in PLACES
    }
    assert SECRETS[number] in values
    assert not any(one.startswith(b"ck_") and one != SECRETS[number] for one in values)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_a_credentials_principal_never_shows_it(sent: Headers) -> None:
    """Nor raises anything but the three refusals."""
    caller = caller_or_code(lambda: authenticate_by_credential(sent, SECRET))
    if isinstance(caller, str):
        assert caller in REFUSALS
        return
    assert caller.principal.startswith("cr_")
    assert len(caller.principal) == 29
