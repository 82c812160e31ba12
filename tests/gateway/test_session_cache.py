"""What a gateway keeps of many sessions, and which it lets go."""

from __future__ import annotations

from clew.core.claim import Alias, Claim, Principal, SessionKey
from clew.gateway.sessions import GENERATION_ALIASES, Sessions
from clew.keeper.link import KeeperLink
from clew.keeper.protocol import Delta, Known, decode_from_keeper, encode
from clew.keeper.server import SNAPSHOT_SESSIONS

ALICE = Principal("alice")


def known(name: str, *more: tuple[str, str]) -> Known:
    """A session as it comes from the keeper's socket."""
    key = SessionKey(f"cs_{name}")
    ids = (("opencode", name), *more)
    told = Known(key, ALICE, name, None, "", key, False, ids, families=("opencode",))
    found = decode_from_keeper(encode(Delta(1, told)))
    assert isinstance(found, Delta)
    return found.known


def sessions() -> Sessions:
    """A gateway that knows nothing."""
    return Sessions(KeeperLink("nowhere", "gateway-0", [].append), b"s" * 32, "proof")


def is_known(found: Sessions, name: str) -> bool:
    """Whether it is answered here."""
    return found.find(ALICE, Claim(session=Alias("opencode", name, "opencode"))) is not None


def test_each_text_of_a_session_is_in_memory_once() -> None:
    """The cache is as small as it says; what it holds is what it was told."""
    found = sessions()
    told = known("one")
    found.learn(told)
    resolved = found.find(ALICE, Claim(session=Alias("opencode", "one", "opencode")))

    assert resolved is not None
    kept = resolved.known
    assert kept is not None
    assert kept == told
    assert kept.root is kept.key
    assert kept.aliases[0][1] is kept.session_id
    assert kept.families[0] is kept.aliases[0][0]


def test_after_a_start_the_newest_sessions_are_known() -> None:
    """They are told first, and all that is told fits, also where sessions have two ids."""
    found = sessions()
    for number in range(SNAPSHOT_SESSIONS):
        found.learn(known(f"s{number}", ("canonical", f"c{number}")))

    assert is_known(found, "s0")
    assert is_known(found, f"s{SNAPSHOT_SESSIONS - 1}")


def test_ids_without_end_are_let_go() -> None:
    """Two generations are held, whatever is told."""
    found = sessions()
    for number in range(3 * GENERATION_ALIASES):
        found.learn(known(f"s{number}"))

    assert not is_known(found, "s0")
    assert len(found._young) + len(found._old) <= 2 * GENERATION_ALIASES
