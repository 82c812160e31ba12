"""The rules that name a session, one by one."""

from __future__ import annotations

from clew.core.claim import Alias, Claim, Lifetime, Principal, Scope, SessionKey
from clew.core.resolve import RULES, Found, Outcome, Resolution, Session, resolve
from clew.core.session import derive_key

LOCAL = Principal("local")


def derive(alias: Alias) -> SessionKey:
    """The key an id opens."""
    return derive_key(b"secret", LOCAL, alias.family, alias.value)


def canonical(value: str) -> Alias:
    """A canonical id."""
    return Alias("canonical", value, "canonical")


def native(value: str) -> Alias:
    """A client's own durable id."""
    return Alias("opencode", value, "opencode")


def tree(value: str) -> Alias:
    """An id that parent and subagents share."""
    return Alias("prompt-cache-key", value, "prompt-cache-key", Scope.TREE)


class Memory:
    """What is known, held in dictionaries."""

    def __init__(self) -> None:
        self.sessions: dict[SessionKey, Session] = {}
        self.ids: dict[tuple[str, str], SessionKey] = {}
        self.responses: dict[str, SessionKey] = {}

    def add(self, *aliases: Alias, **fields: object) -> Session:
        """A known session with these ids."""
        key = derive(aliases[0])
        fields.setdefault("has_canonical", any(a.family == "canonical" for a in aliases))
        fields.setdefault("root", key)
        fields.setdefault("named_by", frozenset(alias.family for alias in aliases))
        session = Session(key=key, session_id=aliases[0].value, **fields)
        self.sessions[key] = session
        self.ids |= {(alias.family, alias.value): key for alias in aliases}
        return session

    def by_alias(self, family: str, value: str) -> Session | None:
        """By external id."""
        return self.sessions.get(self.ids.get((family, value), SessionKey("")))

    def by_key(self, key: SessionKey) -> Session | None:
        """By Clew's id."""
        return self.sessions.get(key)

    def by_response(self, response_id: str) -> Session | None:
        """By a response."""
        return self.sessions.get(self.responses.get(response_id, SessionKey("")))

    def by_any_id(self, text: str) -> Session | None:
        """By whichever id."""
        found = {key for (_, value), key in self.ids.items() if value == text}
        key = found.pop() if len(found) == 1 else SessionKey(text)
        return self.sessions.get(key)

    def derive(self, alias: Alias) -> SessionKey:
        """The key an id opens."""
        return derive(alias)


def why(found: Resolution, rule: str) -> str:
    """The reason a rule gave."""
    return next(tried.reason for tried in found.tried if tried.rule == rule)


def test_a_known_id_is_exact() -> None:
    """Rule 1."""
    memory = Memory()
    known = memory.add(native("n1"))

    found = resolve(Claim(session=native("n1")), memory)

    assert (found.outcome, found.key, found.alias_writes) == (Outcome.EXACT, known.key, ())


def test_an_unknown_id_opens_the_session_derived_from_it() -> None:
    """Rule 4: any gateway gives it the same key."""
    found = resolve(Claim(session=native("n1")), Memory())

    assert (found.outcome, found.key) == (Outcome.NEW, derive(native("n1")))
    assert (found.session_id, found.source, found.root) == ("n1", "opencode", found.key)
    assert found.alias_writes == (native("n1"),)


def test_a_request_without_any_id_is_unattributed() -> None:
    """Nothing names a session, so none is made up."""
    found = resolve(Claim(), Memory())

    assert (found.outcome, found.key) == (Outcome.UNATTRIBUTED, None)


def test_a_new_id_beside_a_known_one_migrates() -> None:
    """Rule 2: the session is found under the lower header and keeps its external id."""
    memory = Memory()
    known = memory.add(native("n1"))

    found = resolve(Claim(session=canonical("c1"), others=(native("n1"),)), memory)

    assert (found.outcome, found.key, found.session_id) == (Outcome.MIGRATED, known.key, "n1")
    assert found.alias_writes == (canonical("c1"),)
    assert found.source == "canonical"


def test_one_id_a_process_beside_one_a_thread_merges_no_threads() -> None:
    """An id never migrates to a session that has a durable id of its own family."""
    memory = Memory()
    process = Alias("opencode", "process-1", "opencode", lifetime=Lifetime.RESTART)
    first = memory.add(native("thread-1"), process, families=frozenset({"opencode"}))

    found = resolve(Claim(session=native("thread-2"), others=(process,)), memory)

    assert (found.outcome, found.key) == (Outcome.NEW, derive(native("thread-2")))
    assert found.key != first.key
    assert why(found, "migrate") == "has_own_family_already"
    assert found.flags == ("ids_of_two_sessions",)


def test_a_durable_id_joins_the_session_its_process_had_without_one() -> None:
    """The guard is for threads that have names already."""
    memory = Memory()
    process = Alias("opencode", "process-1", "opencode", lifetime=Lifetime.RESTART)
    first = memory.add(process)

    found = resolve(Claim(session=native("thread-1"), others=(process,)), memory)

    assert (found.outcome, found.key) == (Outcome.MIGRATED, first.key)


def test_a_new_id_does_not_join_a_closed_session() -> None:
    """A new id is what the refusal of a closed session asks for."""
    memory = Memory()
    memory.add(native("n1"), is_closed=True)

    found = resolve(Claim(session=canonical("c2"), others=(native("n1"),)), memory)

    assert (found.outcome, found.is_closed) == (Outcome.NEW, False)
    assert why(found, "migrate") == "other_session_closed"


def test_a_canonical_id_with_a_parent_does_not_migrate() -> None:
    """A harness that names subagents over one native id keeps them apart."""
    memory = Memory()
    memory.add(native("n1"))
    claim = Claim(session=canonical("sub"), others=(native("n1"),), parent=canonical("main"))

    found = resolve(claim, memory)

    assert (found.outcome, found.key) == (Outcome.NEW, derive(canonical("sub")))
    assert why(found, "migrate") == "parent_header_present"
    assert found.alias_writes == (canonical("sub"),)
    assert found.flags == ()


def test_a_second_canonical_id_does_not_migrate() -> None:
    """A session has one canonical id; another one is another session."""
    memory = Memory()
    memory.add(native("n1"), canonical("c1"))

    found = resolve(Claim(session=canonical("c2"), others=(native("n1"),)), memory)

    assert (found.outcome, found.key) == (Outcome.NEW, derive(canonical("c2")))
    assert why(found, "migrate") == "has_canonical_already"
    assert found.flags == ("ids_of_two_sessions",)


def test_two_sessions_claimed_by_one_request_stay_two() -> None:
    """The strongest id wins, and the contradiction is flagged."""
    memory = Memory()
    strong = memory.add(canonical("c1"))
    memory.add(native("n1"))

    found = resolve(Claim(session=canonical("c1"), others=(native("n1"),)), memory)

    assert (found.outcome, found.key) == (Outcome.EXACT, strong.key)
    assert (found.flags, found.alias_writes) == (("ids_of_two_sessions",), ())


def test_a_further_new_id_of_a_known_session_is_remembered() -> None:
    """An exact session learns the other ids of its request."""
    memory = Memory()
    memory.add(canonical("c1"))

    found = resolve(Claim(session=canonical("c1"), others=(native("n1"),)), memory)

    assert (found.outcome, found.alias_writes) == (Outcome.EXACT, (native("n1"),))


def test_a_previous_response_names_its_session() -> None:
    """Order 8: exact, by the chain of responses."""
    memory = Memory()
    known = memory.add(native("n1"))
    memory.responses["resp_1"] = known.key

    found = resolve(Claim(previous_response_id="resp_1"), memory)

    assert (found.outcome, found.key, found.source) == (Outcome.EXACT, known.key, "response-chain")


def test_an_unknown_previous_response_names_nothing() -> None:
    """No session is guessed."""
    found = resolve(Claim(previous_response_id="resp_1"), Memory())

    assert found.outcome is Outcome.UNATTRIBUTED
    assert why(found, "response_chain") == "response_unknown"


def test_a_previous_response_outranks_a_tree_scoped_id() -> None:
    """Order 8 comes before order 9, and the tree's id is not tied to the thread."""
    memory = Memory()
    known = memory.add(native("n1"))
    memory.responses["resp_1"] = known.key

    found = resolve(Claim(session=tree("k1"), previous_response_id="resp_1"), memory)

    assert (found.key, found.alias_writes) == (known.key, ())


def test_a_thread_id_outranks_a_previous_response() -> None:
    """A claimed thread is the thread."""
    memory = Memory()
    memory.responses["resp_1"] = memory.add(native("n1")).key

    found = resolve(Claim(session=native("n2"), previous_response_id="resp_1"), memory)

    assert found.key == derive(native("n2"))


def test_a_tree_scoped_id_names_the_roots_thread() -> None:
    """New at first, the same session afterwards."""
    memory = Memory()
    first = resolve(Claim(session=tree("k1")), memory)
    memory.add(tree("k1"))
    second = resolve(Claim(session=tree("k1")), memory)

    assert (first.outcome, second.outcome) == (Outcome.NEW, Outcome.EXACT)
    assert first.key == second.key
    assert why(second, "tree") == "tree_id_names_root"


def test_a_session_known_as_a_parent_only_is_new_by_its_own_request() -> None:
    """A placeholder becomes real, with the key it had."""
    memory = Memory()
    named = memory.add(native("p1"), is_placeholder=True)

    found = resolve(Claim(session=native("p1")), memory)

    assert (found.outcome, found.key, found.reason) == (Outcome.NEW, named.key, "first_own_request")


def test_an_unknown_parent_is_named_by_its_own_key() -> None:
    """The parent's later request finds the child already there."""
    found = resolve(Claim(session=native("c1"), parent=native("p1")), Memory())

    assert (found.parent, found.parent_id) == (derive(native("p1")), "p1")
    assert found.root == found.parent


def test_a_grandchild_has_the_root_of_its_parent() -> None:
    """Roots are those of the run."""
    memory = Memory()
    root = memory.add(native("r"))
    memory.add(native("p"), parent=root.key, root=root.key)

    found = resolve(Claim(session=native("c"), parent=native("p")), memory)

    assert found.root == root.key


def test_a_run_named_apart_is_the_root_of_an_unknown_parent() -> None:
    """Claude Code and Codex name the run beside the parent."""
    claim = Claim(session=native("c"), parent=native("p"), root=native("r"))

    assert resolve(claim, Memory()).root == derive(native("r"))


def test_a_parent_equal_to_the_session_is_dropped() -> None:
    """Flagged; the session stays a root."""
    found = resolve(Claim(session=native("c"), parent=native("c")), Memory())

    assert (found.parent, found.root, found.flags) == (None, found.key, ("parent_is_self",))


def test_a_parent_that_closes_a_circle_is_dropped() -> None:
    """A session cannot hang below its own child."""
    memory = Memory()
    top = memory.add(native("a"))
    memory.add(native("b"), parent=top.key, root=top.key)

    found = resolve(Claim(session=native("a"), parent=native("b")), memory)

    assert (found.parent, found.flags) == (None, ("parent_cycle",))


def test_a_later_different_parent_is_flagged() -> None:
    """The first parent is kept."""
    memory = Memory()
    first = memory.add(native("p1"))
    memory.add(native("p2"))
    memory.add(native("c"), parent=first.key, parent_id="p1", root=first.key)

    found = resolve(Claim(session=native("c"), parent=native("p2")), memory)

    assert (found.parent, found.parent_id) == (first.key, "p1")
    assert found.flags == ("parent_differs",)


def test_a_native_root_can_be_attached_by_any_id() -> None:
    """``X-Clew-Parent`` takes Clew's id or an external one."""
    memory = Memory()
    above = memory.add(native("p1"))
    for text in ("p1", above.key):
        found = resolve(Claim(session=native("c"), attach_to=text), memory)

        assert (found.parent, found.parent_id) == (above.key, "p1")


def test_attaching_to_an_unknown_session_is_flagged() -> None:
    """Nothing is made up for a mistyped id."""
    found = resolve(Claim(session=native("c"), attach_to="nobody"), Memory())

    assert (found.parent, found.flags) == (None, ("attach_unknown",))


def test_a_declared_parent_need_not_have_called() -> None:
    """It stands above the agent that it started, whose main thread names itself as its run."""
    declared = canonical("run-42")
    claim = Claim(session=native("c"), root=native("c"), parent=declared)

    found = resolve(claim, Memory())

    assert (found.parent, found.parent_id) == (derive(declared), "run-42")
    assert (found.root, found.flags) == (derive(declared), ())


def test_content_tells_a_subagents_parent_better_than_its_run() -> None:
    """Every thread of an agent sends the run's header; a subagent found by content is deeper."""
    memory = Memory()
    lead = memory.add(native("lead"))
    told = Found(Outcome.NEW, "task", derive(native("sub")), source="lineage", parent=lead)
    rules = (("told", lambda _claim, _knowledge: told),)

    for claim in (Claim(parent=canonical("run-42")), Claim(attach_to="nobody")):
        found = resolve(claim, memory, rules)

        assert (found.parent, found.parent_id, found.flags) == (lead.key, "lead", ())


def test_a_fork_is_linked_to_its_source() -> None:
    """Codex names the thread it was forked from."""
    found = resolve(Claim(session=native("f"), forked_from=native("s")), Memory())

    assert (found.outcome, found.forked_from) == (Outcome.NEW, derive(native("s")))


def test_a_closed_session_is_said_to_be_closed() -> None:
    """What to do with it is the gateway's to decide."""
    memory = Memory()
    memory.add(native("n1"), is_closed=True)

    assert resolve(Claim(session=native("n1")), memory).is_closed


def test_every_rule_up_to_the_deciding_one_is_accounted_for() -> None:
    """``clew explain`` shows the whole way."""
    found = resolve(Claim(session=native("n1")), Memory())

    assert [tried.rule for tried in found.tried] == [name for name, _ in RULES[:5]]
    assert [tried.has_fired for tried in found.tried] == [False] * 4 + [True]
