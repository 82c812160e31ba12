"""What the keeper knows of a session, and what it costs to ask the store for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.journal.events import LOCAL, START_NS, alias, dispatched, key_of, settled
from tests.keeper.projecting import House, derive, url_in

from clew.core.claim import Claim, Principal
from clew.core.resolve import Outcome, resolve
from clew.keeper import knowledge
from clew.keeper.knowledge import PrincipalKnowledge, Recent, load_known
from clew.store.reads_engine import open_for_reading
from clew.store.schema import aliases, bindings


class Asked:
    """One principal's knowledge over a store, and the statements it takes."""

    def __init__(self, connection: sa.Connection, principal: Principal = LOCAL) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self.recent = Recent()
        self.knowledge = PrincipalKnowledge(connection, self.recent, principal, derive)
        sa.event.listen(connection, "before_cursor_execute", self._note)

    def _note(self, _link: object, _cursor: object, statement: str, *_rest: object) -> None:
        self.statements.append(statement)


@contextmanager
def asked(data: Path, principal: Principal = LOCAL) -> Iterator[Asked]:
    """A store with the session s2 below s1; s2 has several ids and is bound in two phases."""
    house = House(data)
    journal = house.journal("gateway-0")
    journal.append(dispatched(1, "s1"), settled(1), dispatched(2, "s2", parent="s1"))
    house.projector().run_pass()
    with house.engine.begin() as connection:
        for number, lifetime in enumerate(("durable", "restart")):
            row = {
                "principal": LOCAL,
                "family": f"later-{number}",
                "value": f"other-{number}",
                "session": key_of("s2"),
                "source": "opencode",
                "scope": "thread",
                "lifetime": lifetime,
                "first_seen_ns": START_NS + 10**10 + number,
                "last_seen_ns": START_NS + 10**10 + number,
            }
            connection.execute(sa.insert(aliases), row)
        for number, phase in enumerate(("decode", "prefill")):
            place = {"session": key_of("s2"), "upstream": "fleet", "phase": phase}
            what = {"worker": f"http://{phase}", "epoch": number + 1, "bound_at_ns": START_NS}
            connection.execute(sa.insert(bindings), place | what)
    engine = open_for_reading(url_in(data), data)
    with engine.connect() as link:
        yield Asked(link, principal)
    engine.dispose()


def test_a_cold_session_is_one_look_up(tmp_path: Path) -> None:
    """Its ids, parent and bindings come with it, and nothing is asked twice."""
    with asked(tmp_path) as it:
        found = resolve(Claim(session=alias("s2"), parent=alias("s1")), it.knowledge)
        known = it.knowledge.present(key_of("s2"))

        assert found.outcome is Outcome.EXACT
        assert known is not None
        assert known.parent_id == "s1"
        named_by_parent = 1  # the parent's header is an id of its own
        assert len(it.statements) == 1 + named_by_parent


def test_one_session_reads_as_among_many(tmp_path: Path) -> None:
    """By its id, by its key and in a snapshot it is the same, however many parts it has."""
    with asked(tmp_path) as it:
        by_alias = it.knowledge.by_alias("later-1", "other-1")
        named = it.knowledge.present(key_of("s2"))
        with asked_again(it) as fresh:
            by_key = fresh.knowledge.present(key_of("s2"))
            assert len(fresh.statements) == 1
        (among_many,) = load_known(it.connection, [key_of("s2")])

        assert by_alias is not None
        assert by_alias.key == key_of("s2")
        assert named == by_key
        assert named is not None
        assert set(named.bindings) == set(among_many.bindings)
        assert len(named.bindings) == 2
        assert named.aliases == among_many.aliases
        assert named.families == among_many.families == ("opencode", "later-0")


@contextmanager
def asked_again(it: Asked) -> Iterator[Asked]:
    """The same store, nothing looked up yet."""
    yield Asked(it.connection)


def test_a_look_up_reads_no_table_through(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each step of it goes by an index, so that a million sessions cost what a few do."""
    house = House(tmp_path_factory.mktemp("house"))
    with house.engine.connect() as link:
        for query in (knowledge._BY_ALIAS, knowledge._BY_KEY):
            text = str(query.compile(house.engine))
            values = ("",) * text.count("?")
            steps = link.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
            reading = [step[3] for step in steps if "TEMP B-TREE" not in step[3]]

            assert len(reading) >= 4
            assert all(step.startswith("SEARCH") for step in reading), reading


def test_an_id_nobody_has_is_one_look_up(tmp_path: Path) -> None:
    """No session is found, and the answer is kept."""
    with asked(tmp_path) as it:
        assert it.knowledge.by_alias("opencode", "never") is None
        assert it.knowledge.by_alias("opencode", "never") is None
        assert len(it.statements) == 1


def test_somebody_elses_session_stays_unknown(tmp_path: Path) -> None:
    """Neither its id nor its key tells another principal anything."""
    with asked(tmp_path, Principal("other")) as it:
        assert it.knowledge.by_alias("opencode", "s2") is None
        assert it.knowledge.by_key(key_of("s2")) is None


def test_what_was_answered_goes_before_what_is_stored(tmp_path: Path) -> None:
    """An answer may be ahead of the store: it has an id that is not projected yet."""
    with asked(tmp_path) as it:
        (stored,) = load_known(it.connection, [key_of("s1")])
        ahead = stored.__class__(
            *(getattr(stored, name) for name in stored.__struct_fields__[:7]),
            (*stored.aliases, ("canonical", "c1")),
        )
        it.recent.remember(ahead)

        assert it.knowledge.by_alias("opencode", "s1") is not None
        assert it.knowledge.present(key_of("s1")) == ahead
