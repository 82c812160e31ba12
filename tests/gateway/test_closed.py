"""What a gateway knows of closed and forgotten sessions, in any order of news."""

from __future__ import annotations

import msgspec

from clew.core.claim import Alias, Claim, Principal, SessionKey
from clew.gateway.sessions import MAX_CLOSED, Sessions
from clew.keeper.link import KeeperLink
from clew.keeper.protocol import Known

ALICE = Principal("alice")
OPEN = Known(
    SessionKey("cs_a"), ALICE, "a", None, "", SessionKey("cs_a"), False, (("opencode", "a"),)
)
CLOSED = msgspec.structs.replace(OPEN, is_closed=True)
CLAIM = Claim(session=Alias("opencode", "a", "opencode"))


def sessions() -> Sessions:
    """A gateway that has heard of one session."""
    found = Sessions(KeeperLink("nowhere", "gateway-0", [].append), b"s" * 32, "proof")
    found.learn(OPEN)
    return found


def test_a_close_here_is_known_at_once() -> None:
    """Before anything is projected."""
    found = sessions()
    found.close(OPEN.key)

    assert found.is_closed(OPEN)


def test_older_news_does_not_open_it_again() -> None:
    """What the keeper says before it has read of the close."""
    found = sessions()
    found.close(OPEN.key)
    found.learn(OPEN)

    assert found.is_closed(OPEN)


def test_the_keepers_word_takes_over() -> None:
    """Then nothing is held here any more."""
    found = sessions()
    found.close(OPEN.key)
    found.learn(CLOSED)
    resolved = found.find(ALICE, CLAIM)

    assert resolved is not None
    assert resolved.known is not None
    assert found.is_closed(resolved.known)
    assert not found.is_closed(OPEN)


def test_what_is_held_is_bounded() -> None:
    """The oldest gives way; the keeper knows it."""
    found = sessions()
    found.close(OPEN.key)
    for number in range(MAX_CLOSED):
        found.close(SessionKey(f"cs_{number}"))

    assert not found.is_closed(OPEN)
    assert found.is_closed(msgspec.structs.replace(OPEN, key=SessionKey("cs_0")))


def test_a_forgotten_id_names_nothing_here() -> None:
    """The next request asks, also where the session was closed here."""
    found = sessions()
    found.close(OPEN.key)
    found.learn(msgspec.structs.replace(OPEN, aliases=(), gone=OPEN.aliases))

    assert found.find(ALICE, CLAIM) is None
    assert not found.is_closed(OPEN)


def test_an_id_that_went_to_another_session_stays_there() -> None:
    """The news of what it left may come later."""
    found = sessions()
    survivor = msgspec.structs.replace(OPEN, key=SessionKey("cs_b"), session_id="b")
    found.learn(survivor)
    found.learn(msgspec.structs.replace(OPEN, aliases=(), gone=OPEN.aliases))
    resolved = found.find(ALICE, CLAIM)

    assert resolved is not None
    assert resolved.known == survivor
