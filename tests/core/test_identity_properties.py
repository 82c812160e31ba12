"""Whatever a client sends, identification stays in bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.claim import Claim
from clew.core.clients import ClientTable
from clew.core.errors import ClewError
from clew.core.identity import FLAGS, identify, identify_with_body
from clew.core.identity_value import MAX_ID_BYTES

TABLE = ClientTable()
KNOWN = sorted(TABLE.slots)
TWINS = sorted({name.replace(b"-", b"_") for name in KNOWN} - set(KNOWN))

values = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"", b"s", b"t", b"title-s", b"codex", b"opencode/1", b"Kilo/1", b"true"]),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "ignore")),
    st.just(b"x" * 600),
)
known_fields = st.tuples(st.sampled_from(KNOWN + TWINS), values)
unknown_fields = st.tuples(
    st.text("abcdefghijklmnopqrstuvwxyz-_", min_size=1, max_size=24)
    .map(str.encode)
    .filter(lambda name: name.replace(b"_", b"-") not in TABLE.slots),
    st.just(b"UNKNOWN"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
bodies = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(
        st.sampled_from(
            [
                "session_id",
                "litellm_session_id",
                "metadata",
                "conversation",
                "client_metadata",
                "previous_response_id",
                "prompt_cache_key",
            ]
        ),
        json_values
        | st.dictionaries(
            st.sampled_from(["session_id", "thread_id", "user_id", "id"]), json_values
        ),
    ),
)


def texts_of(claim: Claim) -> list[str]:
    """Every text of the client's that a claim carries."""
    aliases = [claim.session, claim.parent, claim.root, claim.forked_from, *claim.others]
    texts = [alias.value for alias in aliases if alias is not None]
    return [*texts, *filter(None, (claim.attach_to, claim.previous_response_id, claim.client))]


def claim_or_code(headers: list[tuple[bytes, bytes]]) -> Claim | str:
    """The claim, or the code of the error that refused the headers."""
    try:
        return identify(headers, TABLE, b"/v1/messages")
    except ClewError as error:
        return error.fault.code


@settings(max_examples=400)
@given(st.lists(st.one_of(known_fields, unknown_fields), max_size=12), bodies)
def test_arbitrary_headers_and_bodies_give_a_clean_claim_or_a_clew_error(
    headers: list[tuple[bytes, bytes]], body: object
) -> None:
    """Only ClewError is raised; no control character and no unread header gets through."""
    claim = claim_or_code(headers)
    if isinstance(claim, str):
        assert claim in ("session_id_invalid", "ambiguous_header")
        return
    claim = identify_with_body(claim, headers, b"/v1/messages", body, TABLE)

    for text in texts_of(claim):
        assert text.isprintable()
        assert len(text.encode()) <= MAX_ID_BYTES
        assert "UNKNOWN" not in text
    assert set(claim.flags) <= set(FLAGS)
    assert len(set(claim.flags)) == len(claim.flags)
    if claim.session and claim.parent:
        assert claim.parent.value != claim.session.value
    aliases = [alias for alias in (claim.session, *claim.others) if alias]
    assert len({(alias.family, alias.value) for alias in aliases}) == len(aliases)


@given(st.permutations([(b"x-session-id", b"a"), (b"x-lore-session-id", b"b"), (b"accept", b"*")]))
def test_the_order_of_headers_changes_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    """The table's order decides, never the client's."""
    claim = identify(headers, TABLE)

    assert claim.session is not None
    assert (claim.session.value, [alias.value for alias in claim.others]) == ("b", ["a"])
