"""Closing, merging, splitting, forgetting: what each leaves, and that no attempt is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journal.events import START_NS, alias, dispatched, key_of, settled
from tests.keeper.verbing import SECOND_NS, VerbHouse

from clew.core.claim import Alias, Claim, Lifetime
from clew.core.errors import ClewError
from clew.core.events import Dispatched, Usage
from clew.keeper.projector import Lifecycle

CANONICAL = Alias("canonical", "c1", "canonical")


@pytest.fixture
def house(tmp_path: Path) -> VerbHouse:
    """An empty installation."""
    return VerbHouse(tmp_path)


def call(number: int, session: str = "s1", **changes: object) -> list[object]:
    """An attempt from its intent to its outcome."""
    return [dispatched(number, session, **changes), settled(number)]


def types(house: VerbHouse, key: str) -> list[str]:
    """What happened to a session, in order."""
    rows = house.rows(f"SELECT type FROM session_events WHERE session = '{key}' ORDER BY id")
    return [row[0] for row in rows]


# --- close -----------------------------------------------------------------------------------


def test_a_close_is_on_record_and_told(house: VerbHouse) -> None:
    """With its time, who asked, and what gateways must know."""
    house.project(*call(1))
    done = house.do(lambda verbs: verbs.close(key_of("s1"), cascade=False))

    row = house.session(key_of("s1"))
    assert (row["closed_at_ns"], row["close_reason"]) == (house.clock_ns, "admin")
    assert done.changed == (key_of("s1"),)
    assert house.known(key_of("s1")).is_closed
    assert types(house, key_of("s1")) == ["opened", "closed"]


def test_closing_twice_changes_nothing(house: VerbHouse) -> None:
    """The first time stays."""
    house.project(*call(1))
    house.do(lambda verbs: verbs.close(key_of("s1"), cascade=False))
    house.clock_ns += SECOND_NS
    house.do(lambda verbs: verbs.close(key_of("s1"), cascade=False))

    assert house.session(key_of("s1"))["closed_at_ns"] == house.clock_ns - SECOND_NS
    assert types(house, key_of("s1")) == ["opened", "closed"]


def test_a_cascade_closes_everything_below_and_nothing_else(house: VerbHouse) -> None:
    """Also below a session that was closed before; that one keeps its time."""
    house.project(
        *call(1, "root"),
        *call(2, "child", parent="root"),
        *call(3, "grandchild", parent="child"),
        *call(4, "other"),
    )
    house.do(lambda verbs: verbs.close(key_of("child"), cascade=False))
    first_ns = house.clock_ns
    house.clock_ns += SECOND_NS
    house.do(lambda verbs: verbs.close(key_of("root"), cascade=True))

    closed = dict(house.rows("SELECT session_id, closed_at_ns FROM sessions"))
    assert closed == {
        "root": house.clock_ns,
        "child": first_ns,
        "grandchild": house.clock_ns,
        "other": None,
    }
    assert house.session(key_of("grandchild"))["close_reason"] == "cascade"
    assert house.one("SELECT count(*) FROM cascades") == 0


def test_a_final_exchange_cascades_where_that_is_configured(house: VerbHouse) -> None:
    """`sessions.cascade_close` holds for every way of closing."""
    house.keeper = house.projector(lifecycle=Lifecycle(cascades=True))
    claim = Claim(session=alias("root"), final=True)
    house.project(*call(1, "root"), *call(2, "child", parent="root"))
    house.project(*call(3, "root", claim=claim))

    assert house.one("SELECT count(*) FROM sessions WHERE closed_at_ns IS NULL") == 0


# --- merge -----------------------------------------------------------------------------------


def test_a_merge_moves_everything_to_the_survivor(house: VerbHouse) -> None:
    """Ids, attempts, counters, responses and children; the other row is gone."""
    house.project(*call(1, "a"), *call(2, "b"), *call(3, "kid", parent="a"))
    done = house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))

    assert done.session == key_of("b")
    assert house.requests(key_of("b")) == ["req_000001", "req_000002"]
    assert {pair[1] for pair in house.known(key_of("b")).aliases} == {"a", "b"}
    assert house.known(key_of("a")) is None
    assert house.session(key_of("kid"))["parent_id"] == key_of("b")
    assert house.one(f"SELECT count(*) FROM responses WHERE session = '{key_of('b')}'") == 2
    assert types(house, key_of("b"))[-1] == "merged"
    house.check()


def test_attempts_named_for_the_merged_session_land_on_the_survivor(house: VerbHouse) -> None:
    """Intents and outcomes alike, journalled before the merge or after it."""
    house.project(*call(1, "a"), *call(2, "b"), dispatched(3, "a"))
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    house.project(settled(3), *call(4, "a"), *call(5, "kid", parent="a"))

    assert house.requests(key_of("b")) == [f"req_00000{n}" for n in (1, 2, 3, 4)]
    assert house.session(key_of("b"))["session_id"] == "b"
    assert house.session(key_of("kid"))["parent_id"] == key_of("b")
    assert house.known(key_of("a")) is None
    house.check()


def test_a_late_outcome_of_an_unsettled_attempt_counts_on_the_survivor(house: VerbHouse) -> None:
    """The row was moved; its correction finds it there."""
    journal = house.journal("gateway0-9")
    journal.append(dispatched(1, "a"))
    journal.end()
    house.keeper.run_pass()
    house.journal("gateway0-8").append(*call(2, "b"))
    house.keeper.run_pass()
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    house.journal("gateway0-7").append(settled(1))
    house.keeper.run_pass()

    assert house.session(key_of("b"))["input_tokens"] == 200
    house.check()


@pytest.mark.parametrize(("lost", "into"), [("a", "a"), ("root", "child"), ("root", "grandchild")])
def test_a_merge_that_would_be_a_circle_is_refused(house: VerbHouse, lost: str, into: str) -> None:
    """Into itself, or into something below; the other way round it is possible."""
    house.project(
        *call(1, "root"), *call(2, "child", parent="root"), *call(3, "grandchild", parent="child")
    )
    house.project(*call(4, "a"))
    with pytest.raises(ClewError, match="bad_request"):
        house.do(lambda verbs: verbs.merge(key_of(lost), key_of(into)))
    if lost != into:
        house.do(lambda verbs: verbs.merge(key_of(into), key_of(lost)))

    house.check()


def test_another_principals_session_is_not_there(house: VerbHouse) -> None:
    """The same answer as for an id that nobody has, for every verb."""
    house.project(*call(1, "a"), *call(2, "b"))
    other = "somebody-else"
    for verb in (
        lambda verbs, key: verbs.close(key, cascade=True, principal=other),
        lambda verbs, key: verbs.merge(key, key_of("b"), other),
        lambda verbs, key: verbs.split(key, "a", other),
        lambda verbs, key: verbs.forget(key, other),
    ):
        texts = set()
        for key in (key_of("a"), "cs_nobody"):
            with pytest.raises(ClewError, match="not_found") as raised:
                house.do(lambda verbs, verb=verb, key=key: verb(verbs, key))
            texts.add(str(raised.value))
        assert len(texts) == 1


def test_sessions_of_two_principals_do_not_merge(house: VerbHouse) -> None:
    """The admin is told what somebody else's client would be told."""
    house.project(*call(1, "a"), *call(2, "b", principal="other"))
    with pytest.raises(ClewError, match="not_found"):
        house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))


# --- split -----------------------------------------------------------------------------------


def test_a_split_restores_a_merge(house: VerbHouse) -> None:
    """Both are what they were, and later attempts find each."""
    house.project(*call(1, "a"), *call(2, "b"), *call(3, "kid", parent="a"))
    before = {name: house.session(key_of(name)) for name in ("a", "b", "kid")}
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    done = house.do(lambda verbs: verbs.split(key_of("b"), "a"))

    assert done.session == key_of("a")
    assert {name: house.session(key_of(name)) for name in ("a", "b", "kid")} == before
    house.project(*call(4, "a"), *call(5, "b"))
    assert house.requests(key_of("a")) == ["req_000001", "req_000004"]
    assert house.requests(key_of("b")) == ["req_000002", "req_000005"]
    assert types(house, key_of("a"))[-1] == "split"
    house.check()


def test_what_came_by_the_id_while_merged_goes_with_it(house: VerbHouse) -> None:
    """Gateways named the survivor by then; the id tells."""
    house.project(*call(1, "a"), *call(2, "b"))
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    claim = Claim(session=alias("a"))
    house.project(*call(3, "b", claim=claim), dispatched(4, "b", claim=claim))
    house.do(lambda verbs: verbs.split(key_of("b"), "a"))
    house.project(settled(4), *call(5, "b", claim=claim))

    assert house.requests(key_of("a")) == [f"req_00000{n}" for n in (1, 3, 4, 5)]
    house.check()


def test_a_split_undoes_a_migration(house: VerbHouse) -> None:
    """The id that had joined becomes a session of its own, with what came by it."""
    claim = Claim(session=CANONICAL, others=(alias("s1"),))
    house.project(*call(1, "s1"), *call(2, "s1", claim=claim, resolution="migrated"))
    done = house.do(lambda verbs: verbs.split(key_of("s1"), "c1"))

    assert done.session == key_of("c1", "canonical")
    row = house.session(done.session)
    assert (row["session_id"], row["source"], row["requests"]) == ("c1", "canonical", 1)
    assert row["opened_at_ns"] == START_NS + 2_000_000
    assert house.requests(key_of("s1")) == ["req_000001"]
    house.check()


def test_ids_that_go_on_coming_together_stay_split(house: VerbHouse) -> None:
    """A client that sends both does not undo it."""
    both = Claim(session=alias("s1"), others=(Alias("opencode", "n1", "opencode"),))
    house.project(*call(1, claim=both))
    house.do(lambda verbs: verbs.split(key_of("s1"), "n1"))
    house.project(*call(2, claim=both))

    rows = dict(house.rows("SELECT value, session FROM aliases"))
    assert rows == {"s1": key_of("s1"), "n1": key_of("n1")}
    house.check()


def test_the_id_that_opened_a_session_stays_with_it(house: VerbHouse) -> None:
    """There would be nothing to leave it to."""
    house.project(*call(1))
    with pytest.raises(ClewError, match="bad_request"):
        house.do(lambda verbs: verbs.split(key_of("s1"), "s1"))
    with pytest.raises(ClewError, match="not_found"):
        house.do(lambda verbs: verbs.split(key_of("s1"), "unknown"))


def test_a_merge_of_a_merge_is_undone_from_the_inside(house: VerbHouse) -> None:
    """Of a into b into c, a comes back alone and b stays in c."""
    house.project(*call(1, "a"), *call(2, "b"), *call(3, "c"))
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    house.do(lambda verbs: verbs.merge(key_of("b"), key_of("c")))
    house.do(lambda verbs: verbs.split(key_of("c"), "a"))
    house.project(*call(4, "a"), *call(5, "b"))

    assert house.requests(key_of("a")) == ["req_000001", "req_000004"]
    assert house.requests(key_of("c")) == ["req_000002", "req_000003", "req_000005"]
    house.check()


def test_merged_split_and_merged_the_other_way(house: VerbHouse) -> None:
    """Old rules make no circle."""
    house.project(*call(1, "a"), *call(2, "b"))
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    house.do(lambda verbs: verbs.split(key_of("b"), "a"))
    house.do(lambda verbs: verbs.merge(key_of("b"), key_of("a")))
    house.project(*call(3, "a"), *call(4, "b"))
    assert len(house.requests(key_of("a"))) == 4
    house.do(lambda verbs: verbs.split(key_of("a"), "b"))
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))

    assert len(house.requests(key_of("b"))) == 4
    house.check()


# --- forget ----------------------------------------------------------------------------------


def test_forgetting_erases_names_and_keeps_sums(house: VerbHouse) -> None:
    """No id, path, client or response id is left anywhere; the counts and the cost are."""
    house.project(*call(1, "secret-id", claim=Claim(session=alias("secret-id"), client="agent/1")))
    house.project(*call(2, "kid", parent="secret-id"))
    cost = house.one("SELECT sum(billed_nanousd) FROM attempts")
    done = house.do(lambda verbs: verbs.forget(key_of("secret-id")))

    row = house.session(done.session)
    assert (row["requests"], row["input_tokens"], row["close_reason"]) == (1, 100, "forgotten")
    assert house.one("SELECT sum(billed_nanousd) FROM attempts") == cost
    assert house.session(key_of("kid"))["parent_id"] == done.session
    said = repr({name: rows for name, rows in house.dump().items() if name != "moves"})
    left = [
        text for text in ("secret-id", "agent/1", "msg_1'", key_of("secret-id")) if text in said
    ]
    assert left == []
    assert house.rows(f"SELECT path, client FROM attempts WHERE session = '{done.session}'") == [
        ("", "")
    ]
    assert done.gone == ((key_of("secret-id"), "local", (("opencode", "secret-id"),)),)
    house.check()


def test_a_forgotten_id_opens_a_new_session(house: VerbHouse) -> None:
    """Nothing of the old one comes back with it."""
    house.project(*call(1))
    done = house.do(lambda verbs: verbs.forget(key_of("s1")))
    house.project(*call(2, at_ns=house.clock_ns + 1))

    assert house.requests(done.session) == ["req_000001"]
    assert house.requests(key_of("s1")) == ["req_000002"]
    assert house.session(key_of("s1"))["closed_at_ns"] is None
    house.check()


def test_what_was_under_way_lands_without_names(house: VerbHouse) -> None:
    """Received before, projected after: counted with the rest, and nothing is told."""
    house.project(*call(1), dispatched(2), *call(3, "kid", parent="s1"))
    done = house.do(lambda verbs: verbs.forget(key_of("s1")))
    final = Claim(session=alias("s1"), final=True)
    house.project(settled(2), *call(4, claim=final), *call(5, "kid2", parent="s1"))

    assert house.requests(done.session) == ["req_000001", "req_000002", "req_000004"]
    assert house.session(done.session)["close_reason"] == "forgotten"
    assert house.one("SELECT count(*) FROM aliases WHERE value = 's1'") == 0
    assert house.one(f"SELECT count(*) FROM responses WHERE session = '{done.session}'") == 0
    assert house.known(key_of("s1")) is None
    house.check()


def test_what_was_merged_into_a_forgotten_session_is_forgotten_with_it(house: VerbHouse) -> None:
    """Its ids were the session's."""
    house.project(*call(1, "a"), *call(2, "b"))
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    done = house.do(lambda verbs: verbs.forget(key_of("b")))
    house.project(*call(3, "a"))
    assert house.requests(done.session) == [f"req_00000{n}" for n in (1, 2, 3)]
    house.project(*call(4, "a", at_ns=house.clock_ns + 1))

    assert house.requests(key_of("a")) == ["req_000004"]
    assert "'a'" not in repr(house.rows("SELECT saved FROM moves"))
    house.check()


# --- any order ---------------------------------------------------------------------------------

NAMES = ("s0", "s1", "s2", "s3", "s4")


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[object, ...]]:
    """Intents, outcomes and verbs in any order; ids come alone, in pairs, below one another."""
    steps: list[tuple[object, ...]] = []
    for number in range(draw(st.integers(3, 16))):
        names = draw(st.permutations(NAMES))
        kinds = st.sampled_from(["call", "call", "intent", "outcome", "merge", "split", "forget"])
        flag = draw(st.booleans())
        steps.append((draw(kinds), number, names[0], names[1], flag, draw(st.integers(0, 2))))
    return steps


def play(house: VerbHouse, steps: list[tuple[object, ...]]) -> None:
    """A gateway that may know the latest verb, or not yet."""
    opened: list[int] = []
    for kind, number, one, other, flag, far in steps:
        at_ns = START_NS + number * SECOND_NS
        house.clock_ns = at_ns + SECOND_NS // 2
        if kind in ("call", "intent"):
            house.project(intent(house, number, one, other, far, knows_verbs=flag))
            opened.append(number)
            if kind == "call":
                house.project(settled(opened.pop(), usage=Usage(7 + number, 1, 0, 0, 2, 0)))
        elif kind == "outcome" and opened:
            house.project(settled(opened.pop(0), status=500 if flag else 200))
        else:
            try_verb(house, str(kind), one, other)
        house.check()


def intent(
    house: VerbHouse, number: int, one: str, other: str, far: int, *, knows_verbs: bool
) -> Dispatched:
    """A request with one id: alone, beside another one, or below another session."""
    second = Alias("opencode", other, "opencode", lifetime=Lifetime.RESTART)
    claims = (
        Claim(session=alias(one)),
        Claim(session=alias(one), others=(second,)),
        Claim(session=alias(one), parent=alias(other)),
    )
    at_ns = START_NS + number * SECOND_NS
    event = dispatched(
        number, one, parent=other if far == 2 else None, claim=claims[far], at_ns=at_ns
    )
    named = dict(house.rows("SELECT value, session FROM aliases"))
    if not knows_verbs or one not in named:
        return event
    parent = named.get(other, event.parent) if event.parent is not None else None
    session_id = house.session(named[one])["session_id"]
    return msgspec.structs.replace(event, session=named[one], session_id=session_id, parent=parent)


def try_verb(house: VerbHouse, kind: str, one: str, other: str) -> None:
    """A verb that may be refused."""
    names = dict(house.rows("SELECT value, session FROM aliases"))
    first, second = names.get(one, key_of(one)), names.get(other, key_of(other))
    try:
        if kind == "merge":
            house.do(lambda verbs: verbs.merge(first, second))
        elif kind == "split":
            house.do(lambda verbs: verbs.split(first, one))
        elif kind == "forget":
            house.do(lambda verbs: verbs.forget(first))
    except ClewError as error:
        if error.fault.code not in ("bad_request", "not_found"):
            raise


@settings(max_examples=40, deadline=None)
@given(stories())
def test_whatever_happens_every_attempt_counts_once(steps: list[tuple[object, ...]]) -> None:
    """After each step the sums are those of the attempts, and trees are trees."""
    with tempfile.TemporaryDirectory() as name:
        house = VerbHouse(Path(name))
        play(house, steps)
        calls = sum(step[0] == "call" for step in steps)
        assert house.one("SELECT count(*) FROM attempts") >= calls
        house.engine.dispose()
