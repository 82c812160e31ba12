"""What closing, merging, splitting and forgetting a session do to the store (`docs/sessions.md`).

Each verb is one transaction. The journal is not rewritten: a merge, a split and a forgetting leave
rules (`core.moves`) by which attempts that are projected later land where the verb has put them.
A verb sees one principal: a session of another is answered like one that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.core.claim import Alias, Principal, SessionKey
from clew.core.errors import ClewError
from clew.core.moves import ALWAYS, EVERYTHING, Move, Moves
from clew.core.session import FORGOTTEN, format_key
from clew.keeper.batch import Derive
from clew.keeper.knowledge import survivor
from clew.store.rows import COUNTERS, CascadeRow
from clew.store.verbs import Row, VerbWriter

SESSION_BITS: Final = 16
"""Bytes of a random key."""

Names = tuple[tuple[str, str], ...]


class Done(msgspec.Struct, frozen=True):
    """What a verb has changed."""

    session: SessionKey
    """The session to show: the survivor of a merge, what a split made, the nameless row."""
    changed: tuple[SessionKey, ...]
    """Sessions of which every gateway must hear."""
    gone: tuple[tuple[SessionKey, Principal, Names], ...] = ()
    """Sessions that are no more, and the ids that name nothing now."""


class Verbs:
    """The verbs of one transaction. Times are Unix nanoseconds; ``reason`` is who asked."""

    def __init__(
        self,
        connection: sa.Connection,
        derive: Derive,
        random: Callable[[int], bytes],
        now_ns: int,
        reason: str,
    ) -> None:
        self._connection = connection
        self._write = VerbWriter(connection)
        self._derive = derive
        self._random = random
        self._now_ns = now_ns
        self._reason = reason

    def close(self, name: str, *, cascade: bool, principal: str = "") -> Done:
        """Close a session; ``cascade``: and everything below it. Closing twice changes nothing."""
        row = self._named(name, principal)
        key = SessionKey(row["id"])
        if row["closed_at_ns"] is None:
            self._write.update_session(key, closed_at_ns=self._now_ns, close_reason=self._reason)
            after = {"closed_at_ns": self._now_ns}
            self._write.note(key, self._now_ns, "closed", self._reason, after=after)
        if cascade:
            self._write.note_cascade(CascadeRow(key, self._now_ns))
        return Done(key, (key,))

    # --- merge ---------------------------------------------------------------------------------

    def merge(self, name: str, into: str, principal: str = "") -> Done:
        """Everything of a session goes to another one of the same principal."""
        lost = self._named(name, principal)
        home = self._named(into, lost["principal"])
        self._check_merge(lost, home)
        aliases = self._write.aliases(lost["id"])
        children = self._write.children(lost["id"])
        self._write.name(home["id"], aliases)
        self._write.move_responses(lost["id"], home["id"], None)
        self._write.move_attempts(lost["id"], home, None)
        self._write.move_rest(lost["id"], home["id"])
        self._write.adopt(home["id"], children, lost["id"])
        self._write.update_session(
            home["id"],
            last_seen_ns=max(home["last_seen_ns"], lost["last_seen_ns"]),
            is_placeholder=home["is_placeholder"] and lost["is_placeholder"],
        )
        self._write.delete_session(lost["id"])
        self._leave_rule(lost, home, aliases, children)
        return Done(
            home["id"],
            (home["id"], *(SessionKey(child) for child in children)),
            ((lost["id"], lost["principal"], ()),),
        )

    def _check_merge(self, lost: Row, home: Row) -> None:
        if lost["id"] == home["id"]:
            raise ClewError("bad_request", "a session cannot be merged into itself")
        if FORGOTTEN in (lost["close_reason"], home["close_reason"]):
            raise ClewError("bad_request", "a forgotten session has nothing left to be merged by")
        if lost["id"] in self._write.ancestors(home["parent_id"]):
            raise ClewError(
                "bad_request",
                "a session cannot be merged into one below it; merge that one into this",
            )

    def _leave_rule(self, lost: Row, home: Row, aliases: list[Row], children: list[str]) -> None:
        key, target = SessionKey(lost["id"]), SessionKey(home["id"])
        rules = Moves(self._write.rules(target))
        self._write.drop_rules(rules.leads_back(target, key))
        saved = {
            "row": {name: value for name, value in lost.items() if name not in COUNTERS},
            "aliases": [_pair(alias) for alias in aliases],
            "children": children,
        }
        self._write.put_rules([Move(key, EVERYTHING, ALWAYS, target)], self._now_ns, saved)
        before = _named_by(lost, aliases)
        after = {"id": target, "session_id": home["session_id"]}
        evidence = {"requests": lost["requests"], "children": len(children)}
        self._write.note(
            target,
            self._now_ns,
            "merged",
            self._reason,
            evidence=evidence,
            before=before,
            after=after,
        )

    # --- split ---------------------------------------------------------------------------------

    def split(self, name: str, alias: str, principal: str = "") -> Done:
        """An id, with what came by it, becomes a session of its own (again)."""
        source = self._named(name, principal)
        held = self._write.aliases(source["id"])
        chosen = [row for row in held if row["value"] == alias]
        key = self._key_of(chosen[0]) if chosen else SessionKey(alias)
        saved = self._write.saved(key)
        way = Moves(self._write.rules(key)).way(key, EVERYTHING, self._now_ns)
        if saved is None or way[-1] != source["id"]:
            if not chosen:
                raise ClewError("not_found", "this session is not known by that id")
            saved, way = None, [key, SessionKey(source["id"])]
        if key == source["id"]:
            raise ClewError(
                "bad_request",
                "this id opened the session and stays with it; split the other ids off",
            )
        pairs = {tuple(pair) for pair in saved["aliases"]} if saved is not None else set()
        back = [row for row in held if _pair(row) in pairs or row in chosen]
        owns = list(dict.fromkeys([key, *(self._key_of(row) for row in back)]))
        times = self._write.times(source["id"], owns)
        made = _restored(saved, times) if saved is not None else _made(source, chosen[0], times)
        wanted = list(saved["children"]) if saved is not None else []
        self._leave_way(key, owns, way[1:])
        return self._settle_in(source, self._placed(made, key, wanted), back, owns, wanted)

    def _leave_way(self, key: SessionKey, owns: list[SessionKey], way: list[SessionKey]) -> None:
        """The rules of a split: ``way`` are the sessions where what came by ``owns`` may be."""
        self._write.drop_rules([Move(key, EVERYTHING, ALWAYS, key)])
        rules = [Move(one, own, ALWAYS, key) for one in way for own in owns]
        self._write.put_rules(rules, self._now_ns)

    def _settle_in(
        self,
        source: Row,
        target: Row,
        back: list[Row],
        owns: list[SessionKey],
        wanted: list[str],
    ) -> Done:
        """What the new session takes along."""
        key, former = target["id"], source["id"]
        held = self._write.aliases(former)
        present = self._write.session(key)
        if present is None:
            self._write.insert_session(target)
        target = present or target
        self._write.name(key, back)
        self._write.move_responses(former, key, owns)
        self._write.move_attempts(former, target, owns)
        children = self._write.adopt(key, wanted, former)
        self._note_split(source, target, held, back)
        return Done(key, tuple(SessionKey(one) for one in (former, key, *children)))

    def _placed(self, row: Row, key: SessionKey, children: list[str]) -> Row:
        """A row that is to be inserted, under its parent where that makes no circle."""
        parent = survivor(self._connection, SessionKey(row["parent_id"] or ""))
        above = self._write.session(parent)
        if above is None or {key, *children} & self._write.ancestors(parent):
            return row | {"id": key, "parent_id": None, "root_id": key, "depth": 0}
        return row | {
            "id": key,
            "parent_id": above["id"],
            "root_id": above["root_id"],
            "depth": above["depth"] + 1,
        }

    def _note_split(self, source: Row, target: Row, held: list[Row], back: list[Row]) -> None:
        before = _named_by(source, held)
        after = {"id": target["id"], "session_id": target["session_id"]}
        after |= {"aliases": [row["value"] for row in back]}
        for key in (source["id"], target["id"]):
            self._write.note(key, self._now_ns, "split", self._reason, before=before, after=after)

    # --- forget --------------------------------------------------------------------------------

    def forget(self, name: str, principal: str = "") -> Done:
        """Erase what a client named; counts, times and cost stay under a key of chance."""
        row = self._named(name, principal)
        if row["close_reason"] == FORGOTTEN:
            return Done(SessionKey(row["id"]), ())
        key, nameless = SessionKey(row["id"]), format_key(self._random(SESSION_BITS))
        gone = tuple(_pair(alias) for alias in self._write.aliases(key))
        children = self._write.children(key)
        self._write.erase(key)
        self._write.blank_attempts(key, nameless)
        self._write.rename(key, nameless)
        self._write.update_session(
            nameless,
            session_id=nameless,
            client="",
            forked_from=None,
            opened_by="",
            closed_at_ns=row["closed_at_ns"] or self._now_ns,
            close_reason=FORGOTTEN,
        )
        self._write.adopt(nameless, children, key)
        self._write.retarget(key, nameless, self._now_ns)
        self._write.put_rules([Move(key, EVERYTHING, self._now_ns, nameless)], self._now_ns)
        self._write.note(nameless, self._now_ns, FORGOTTEN, self._reason)
        changed = (nameless, *(SessionKey(child) for child in children))
        return Done(nameless, changed, ((key, row["principal"], gone),))

    # --- who is meant --------------------------------------------------------------------------

    def _named(self, name: str, principal: str) -> Row:
        """The session with this id of Clew's; of this principal, where one is given."""
        row = self._write.session(survivor(self._connection, SessionKey(name)))
        if row is None or (principal and row["principal"] != principal):
            raise ClewError("not_found")
        return row

    def _key_of(self, row: Row) -> SessionKey:
        alias = Alias(row["family"], row["value"], row["source"])
        return self._derive(Principal(row["principal"]), alias)


def _restored(saved: Row, times: tuple[int, int] | None) -> Row:
    """A merged session as it was, seen last when its last attempt came."""
    row: Row = dict(saved["row"])
    row["last_seen_ns"] = max(row["last_seen_ns"], times[1] if times else 0)
    return row


def _made(source: Row, alias: Row, times: tuple[int, int] | None) -> Row:
    """A session that never was one: its name is the id, its times are those of its attempts."""
    first, last = times or (alias["first_seen_ns"], alias["last_seen_ns"])
    same = ("principal", "team", "project", "client", "is_subagent")
    return {name: source[name] for name in same} | {
        "session_id": alias["value"],
        "source": alias["source"],
        "opened_at_ns": first,
        "last_seen_ns": last,
        "parent_id": None,
    }


def _pair(row: Row) -> tuple[str, str]:
    return row["family"], row["value"]


def _named_by(row: Row, aliases: Iterable[Row]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "session_id": row["session_id"],
        "aliases": [alias["value"] for alias in aliases],
    }
