"""When a session whose id is known shows the keeper a turn all the same."""

from __future__ import annotations

import pytest

from clew.core.claim import Alias, Claim, Kind, Principal, SessionKey
from clew.gateway import unshown
from clew.gateway.unshown import Unshown
from clew.keeper.protocol import Answer, Known

KEY = SessionKey("cs_one")
KNOWN = Known(
    key=KEY,
    principal=Principal("local"),
    session_id="s1",
    parent=None,
    parent_id="",
    root=KEY,
    is_closed=False,
    aliases=(("cagent", "s1"),),
    families=("cagent",),
)
ALIAS = Alias("cagent", "s1", "cagent")


def asked(kind: Kind, resolution: str, *, is_side: bool = False) -> tuple[Claim, Answer]:
    """A call of this kind and what the keeper made of it."""
    return Claim(session=ALIAS, kind=kind), Answer(1, KNOWN, resolution, is_side=is_side)


def test_a_title_that_comes_first_leaves_the_turn_to_be_shown() -> None:
    """The session's first exchange is that of its first turn, once."""
    noted = Unshown()
    noted.note(*asked(Kind.TITLE, "new"), is_weighed=True)
    turn = asked(Kind.TURN, "exact")

    assert noted.wants(KNOWN, turn[0])
    assert not noted.wants(KNOWN, asked(Kind.TITLE, "exact")[0])
    noted.note(*turn, is_weighed=True)
    assert not noted.keys


def test_the_turn_after_a_compaction_is_shown() -> None:
    """What a compaction under a foreign id was attached to begins anew."""
    noted = Unshown()
    noted.note(*asked(Kind.COMPACTION, "exact", is_side=True), is_weighed=True)

    assert noted.wants(KNOWN, asked(Kind.TURN, "exact")[0])


@pytest.mark.parametrize(
    ("kind", "resolution", "is_side", "is_weighed"),
    [
        (Kind.TURN, "new", False, True),
        (Kind.TITLE, "exact", True, True),
        (Kind.TITLE, "new", False, False),
        (Kind.COMPACTION, "exact", False, True),
    ],
    ids=["first-turn", "later-title", "resume-off", "own-id"],
)
def test_nothing_else_is_shown_again(
    kind: Kind, resolution: str, is_side: bool, is_weighed: bool
) -> None:
    """A known session costs no question."""
    noted = Unshown()
    noted.note(*asked(kind, resolution, is_side=is_side), is_weighed=is_weighed)

    assert not noted.keys


def opened_by(client: str, *, has_tools: bool) -> Unshown:
    """What is noted of a session whose first call is marked as nothing else than a turn."""
    noted = Unshown()
    claim, answer = Claim(session=ALIAS, client=client), Answer(1, KNOWN, "new")
    noted.note(claim, answer, is_weighed=True, has_tools=has_tools)
    return noted


def test_an_unmarked_title_that_comes_first_leaves_the_turn_to_be_shown() -> None:
    """OpenCode asks for a title before its first turn, and only its missing tools say so."""
    noted = opened_by("opencode/1.18.33", has_tools=False)
    turn = asked(Kind.TURN, "exact")

    assert noted.wants(KNOWN, turn[0])
    noted.note(*turn, is_weighed=True, has_tools=False)
    assert not noted.wants(KNOWN, turn[0])


@pytest.mark.parametrize(
    ("client", "has_tools"), [("opencode/1.18.33", True), ("plain-client/1.0", False)]
)
def test_a_first_turn_is_no_title(client: str, *, has_tools: bool) -> None:
    """Neither one with tools nor one of a client that offers none."""
    assert not opened_by(client, has_tools=has_tools).wants(KNOWN, Claim(kind=Kind.TURN))


def test_the_turn_after_a_failed_first_one_is_shown() -> None:
    """Nothing was answered to the first: no history will begin with it."""
    noted = opened_by("plain-client/1.0", has_tools=True)
    noted.show_next(KEY)

    assert noted.wants(KNOWN, Claim(kind=Kind.TURN))


def test_a_turn_too_large_to_be_shown_is_not_asked_again() -> None:
    """One try: bodies of this session are not read from then on."""
    noted = Unshown()
    noted.note(*asked(Kind.TITLE, "new"), is_weighed=True)
    noted.note(*asked(Kind.TURN, "exact"), is_weighed=False)

    assert not noted.keys


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who invents titles without turns pushes out the oldest, and grows nothing."""
    monkeypatch.setattr(unshown, "MAX_SESSIONS", 1)
    noted = Unshown()
    noted.note(*asked(Kind.TITLE, "new"), is_weighed=True)
    other = Known(
        **{**{name: getattr(KNOWN, name) for name in KNOWN.__struct_fields__}, "key": "x"}
    )
    noted.note(Claim(session=ALIAS, kind=Kind.TITLE), Answer(2, other, "new"), is_weighed=True)

    assert not noted.wants(KNOWN, Claim(kind=Kind.TURN))
    assert noted.wants(other, Claim(kind=Kind.TURN))
