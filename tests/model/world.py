"""Principals whose clients talk through an installation, and the truth about every session.

The model is small: which real conversation each session was opened for, and whose it is. After
every step it judges what was answered:

* P1: no key, parent, root or origin of another principal; what another principal's clients did,
  guesses and thefts included, changes no row of this one's;
* P2: two conversations that the model knows as different share no session, whatever their clients
  do; only an operator's merge makes them one;
* a session is `new` once, and `exact`, `migrated` or `resumed` only when it was there;
* the tree has no circle, and counters are the sums of what is held.

Some things are so by definition. Of several copies of one history the first to go on is the
session and the others are forks, and a turn while the keeper is away goes nowhere; a copy's side
call, before its first turn, belongs to what it copied; two copies that send an equal body within a
minute are one that repeats itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.journal.events import START_NS
from tests.model.installation import Gateway, Installation
from tests.model.speaking import (
    CLIENTS,
    PATHS,
    Message,
    Talk,
    body_of,
    headers_of,
    reply_of,
    response_id,
)

from clew.config.schema import Sessions as Settings
from clew.core.apis.table import api_for
from clew.core.claim import Claim, Principal, SessionKey
from clew.core.clients import ClientTable
from clew.core.events import Dispatched, Settled, Usage
from clew.core.identity import identify, identify_with_body
from clew.core.lineage.blocks import Digester
from clew.core.session import is_closing
from clew.gateway.sessions import Resolved
from clew.keeper.knowledge import survivor

PRINCIPALS: Final = (Principal("ann"), Principal("bob"), Principal("eve"))
SECOND_NS: Final = 1_000_000_000
HOUR_NS: Final = 3_600 * SECOND_NS
PHRASES: Final = ("hi", "fix the tests", "continue", "yes", "go on")
REPLIES: Final = ("Hello!", "OK", "Done.", "Sure, I will do that.")
MAX_TALKS: Final = 14

_DIGESTER: Final = Digester(b"a secret of this installation")
_CLIENTS: Final = ClientTable()


class Violated(AssertionError):  # noqa: N818  what happened: a promise was not kept
    """A promise that a step has broken."""


@dataclass(slots=True)
class Exchange:
    """One request between its dispatch and its outcome."""

    talk: Talk
    gateway: Gateway
    intent: Dispatched
    resolved: Resolved
    claim: Claim
    tail: Message
    length: int
    """Messages of the history before the tail."""
    is_turn: bool
    is_away: bool
    request: tuple[Any, ...] = ()


class World:
    """Everything that talks, and what is true of it."""

    def __init__(self, data: Path, template: Path, loop: Any, settings: Settings) -> None:
        self.place = Installation(data, template, settings, loop)
        self.is_proof = settings.resume == "proof"
        self.rng = Random(0)
        self.now_ns = START_NS
        self.talks: list[Talk] = []
        self.running: list[Exchange] = []
        self.counts: Counter[str] = Counter()
        self.made = 0
        self.home: dict[SessionKey, Principal] = {}
        self.owners: dict[SessionKey, int] = {}
        self.seen: set[SessionKey] = set()
        self.joined: dict[int, int] = {}
        """Conversations that an operator has merged, or that nobody could tell apart."""
        self.actors: set[Principal] = set()
        """Who did something since the last pass."""
        self.prints: dict[Principal, str] = {}
        self.thefts: dict[tuple[Principal, int], Talk] = {}
        """Conversations begun under the ids of another principal's."""

    def close(self) -> None:
        """Look at everything once more, and end."""
        if self.place.server is None:
            self.place.start_keeper()
        self.project()
        self.check_counters()
        self.place.close()

    # --- words ---------------------------------------------------------------------------------

    def fresh(self) -> int:
        """A number not used before."""
        self.made += 1
        return self.made

    def word(self, phrases: tuple[str, ...]) -> str:
        """A phrase of everybody's, or one's own; nobody repeats another while nobody listens."""
        if self.place.server is not None and self.rng.random() < 0.4:
            return self.rng.choice(phrases)
        return f"words {self.fresh()} of a conversation"

    def pick(self, which: int) -> Talk | None:
        """One of the conversations."""
        return self.talks[which % len(self.talks)] if self.talks else None

    # --- beginnings ----------------------------------------------------------------------------

    def begin(self, which: int, principal: Principal) -> Talk:
        """A new conversation."""
        client = CLIENTS[which % len(CLIENTS)]
        number = self.fresh()
        ids = {name: f"{name}-{number}" for name in client.id_names}
        tools = ("task", "read") if self.rng.random() < 0.8 else ()
        talk = Talk(number, principal, client, self.rng.choice(client.agents), ids, tools)
        self.talks.append(talk)
        self.counts["conversations"] += 1
        while len(self.talks) > MAX_TALKS:
            self.forget_talk(self.talks[0])
        return talk

    def forget_talk(self, talk: Talk) -> None:
        """Its client went away for ever, and with it those below."""
        self.talks.remove(talk)
        self.running = [one for one in self.running if one.talk is not talk]
        for child in [one for one in self.talks if one.parent is talk]:
            self.forget_talk(child)

    def spawn(self, talk: Talk) -> None:
        """A subagent: under its own id where its client gives it one, else named by a tool call."""
        if not talk.client.has_subagents and talk.client.name != "cache-key":
            return
        if not talk.tools or self.is_busy(talk) or len(self.talks) >= MAX_TALKS:
            return
        child = self.begin(CLIENTS.index(talk.client), talk.principal)
        child.parent, child.agent, child.is_stolen = talk, talk.agent, talk.is_stolen
        task = f"find out about matter {self.fresh()} and report"
        self.turn(talk)
        self.finish_all(talk, calls=((f"call_{self.fresh()}", task),))
        self.dispatch(child, Message(is_assistant=False, text=task))

    def fork(self, talk: Talk) -> None:
        """A copy of the history under an id of its own, at its end or at an earlier reply."""
        ends = [at + 1 for at, one in enumerate(talk.messages) if one.is_assistant]
        is_parent = any(one.parent is talk for one in self.talks)
        if not ends or talk.parent is not None or len(self.talks) >= MAX_TALKS or is_parent:
            return
        at = self.rng.choice((ends[-1], self.rng.choice(ends)))
        is_ambiguous = at == ends[-1] and not talk.client.is_durable
        if is_ambiguous and (talk.client.id_names or self.is_busy(talk)):
            return  # an old id and a copy's new one cannot be told from a restart
        copy = self.begin(CLIENTS.index(talk.client), talk.principal)
        copy.agent, copy.tools, copy.messages = talk.agent, talk.tools, talk.messages[:at]
        copy.copied = talk.copied | {talk.number}
        copy.is_forked, copy.is_stolen = True, talk.is_stolen
        if is_ambiguous:
            copy.may_take = {talk.number, *talk.may_take}
            talk.may_take.add(copy.number)
        if talk.client.name == "chain" and at == ends[-1] and self.rng.random() < 0.5:
            copy.last_response = talk.last_response
        self.counts["forks"] += 1
        self.turn(copy)

    # --- turns ---------------------------------------------------------------------------------

    def is_busy(self, talk: Talk) -> bool:
        """Whether a turn of it is under way."""
        return any(one.talk is talk and one.is_turn for one in self.running)

    def tail_of(self, talk: Talk) -> Message:
        """The next user message: results of the calls made, or a text."""
        calls = talk.messages[-1].calls if talk.messages else ()
        results = tuple((call, f"result {self.fresh()}") for call, _ in calls)
        text = "" if results else self.word(PHRASES)
        return Message(is_assistant=False, text=text, results=results)

    def turn(self, talk: Talk, *, final: bool = False) -> None:
        """Send the next turn, unless one is under way."""
        if self.is_busy(talk):
            return
        more = {"x-dynamo-session-final": "true"} if final else {}
        self.dispatch(talk, self.tail_of(talk), more=more)

    def together(self, which: int, principal: Principal) -> None:
        """Two first requests of one new conversation at once, at two gateways or at one."""
        talk = self.begin(which, principal)
        if not talk.client.is_durable:
            return
        tails = [Message(is_assistant=False, text=self.word(PHRASES)) for _ in range(2)]
        places = [self.rng.choice(self.place.gateways) for _ in range(2)]

        async def both() -> list[Exchange]:
            return list(
                await asyncio.gather(
                    *(
                        self._carry(talk, tail, gateway=place, is_turn=False)
                        for tail, place in zip(tails, places, strict=True)
                    )
                )
            )

        found = self.place.run(both())
        labels = sorted(one.resolved.resolution for one in found)
        keys = {one.intent.session for one in found}
        if len(keys) != 1:
            raise Violated(f"two first requests opened {keys}")
        if self.place.server is not None and labels not in (["exact", "new"], ["new", "new"]):
            raise Violated(f"two first requests were {labels}")

    def retry(self, talk: Talk) -> None:
        """The turn under way once more, with an equal body; the first attempt is given up."""
        for old in [one for one in self.running if one.talk is talk and one.is_turn]:
            again = self.place.run(self._send(talk, *old.request))
            self.counts["retries"] += 1
            if self.rng.random() < 0.7:
                self.finish(old, is_given_up=True)
            self.running = [one for one in self.running if one is not old]
            assert again in self.running
            return

    def side(self, talk: Talk) -> None:
        """A call about the conversation: a title from its opening, or a question to all of it."""
        if self.rng.random() < 0.5:
            text = talk.messages[0].text if talk.messages else self.rng.choice(PHRASES)
            tail, history = Message(is_assistant=False, text=f"Title? {text}"), []
        else:
            tail, history = Message(is_assistant=False, text="Summarise."), talk.messages
        if talk.tools and not (history and history[-1].calls):
            self.dispatch(talk, tail, history=history, tools=(), is_turn=False)

    def compact(self, talk: Talk) -> None:
        """The history gives way to a summary and the newest messages."""
        if len(talk.messages) < 4 or self.is_busy(talk) or talk.messages[-1].calls:
            return
        summary = f"summary {self.fresh()}"
        self.dispatch(talk, Message(is_assistant=False, text="summarise all of it"))
        self.finish_all(talk, text=summary)
        kept = talk.messages[-2:] if self.rng.random() < 0.6 else []
        opening = Message(is_assistant=False, text=f"This went before: {summary}")
        talk.messages = [opening, Message(is_assistant=True, text="Got it."), *kept]
        talk.last_response = ""
        talk.is_odd = not kept

    def restart(self, talk: Talk) -> None:
        """The client's process is new: what it does not keep is minted again."""
        if talk.parent is not None:
            return
        self.finish_all(talk)
        for name in talk.client.rotating:
            talk.ids[name] = f"{name}-{self.fresh()}"
        talk.last_response = ""
        talk.is_restarted = bool(talk.messages)
        self.turn(talk)

    def upgrade(self, talk: Talk) -> None:
        """A stable header appears beside the old one."""
        if talk.client.name == "kilo" and "stable" not in talk.ids and not talk.is_restarted:
            talk.ids["stable"] = f"stable-{self.fresh()}"

    # --- outcomes ------------------------------------------------------------------------------

    def end_one(self, which: int) -> None:
        """One of the requests under way ends, well or not."""
        if self.running:
            exchange = self.running.pop(which % len(self.running))
            self.finish(exchange, is_ok=self.rng.random() < 0.9)

    def finish_all(
        self, talk: Talk, text: str = "", calls: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Whatever is under way of this conversation ends well."""
        mine = [one for one in self.running if one.talk is talk]
        self.running = [one for one in self.running if one.talk is not talk]
        for one in mine:
            is_turn = one.is_turn
            self.finish(one, text=text if is_turn else "", calls=calls if is_turn else ())

    def finish(
        self,
        exchange: Exchange,
        *,
        is_ok: bool = True,
        is_given_up: bool = False,
        text: str = "",
        calls: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """The upstream has answered; the reply is shown, the outcome written."""
        talk, intent = exchange.talk, exchange.intent
        number = self.fresh()
        said = Message(True, text or self.word(REPLIES), calls)
        if is_ok and not calls and exchange.is_turn and talk.tools and self.rng.random() < 0.2:
            said = replace(said, calls=((f"call_{number}", f"look at {number}"),))
        is_ok = is_ok and not is_given_up
        payload = reply_of(talk.client.api, said, number) if is_ok else b""
        self.place.run(self._tell(exchange, payload))
        outcome = self._outcome(exchange, number, payload, is_given_up=is_given_up)
        exchange.gateway.journal.append(outcome)
        self.actors.add(talk.principal)
        if intent.session is not None and is_closing(
            final=exchange.claim.final,
            status=outcome.status,
            error=outcome.error,
            client_disconnected=outcome.client_disconnected,
        ):
            exchange.gateway.sessions.close(intent.session)
            talk.is_odd = True
            self.counts["closes"] += 1
        if is_ok and exchange.is_turn:
            self._take_reply(exchange, said, outcome.response_id)

    def _take_reply(self, exchange: Exchange, said: Message, response_id: str) -> None:
        talk = exchange.talk
        talk.messages = [*talk.messages[: exchange.length], exchange.tail, said]
        talk.session, talk.turns = exchange.intent.session, talk.turns + 1
        talk.last_response = response_id if talk.client.name == "chain" else ""
        talk.copied, talk.is_forked = set(), False
        talk.is_odd = exchange.is_away
        if exchange.is_away:
            return  # nobody saw who of several copies was first
        for other in self.talks:
            if talk.number in other.may_take and other is not talk:
                other.may_take.discard(talk.number)
                other.is_odd = True  # it is the fork now
        talk.may_take = set()

    async def _tell(self, exchange: Exchange, payload: bytes) -> None:
        api = api_for(b"POST", PATHS[exchange.talk.client.api])
        resolved = exchange.resolved
        assert api is not None
        if not resolved.is_weighed or resolved.known is None:
            return
        reply = api.reply(payload, is_stream=False, digester=_DIGESTER) if payload else None
        principal = exchange.talk.principal
        is_kept = await exchange.gateway.sessions.tell(
            principal, exchange.intent.claim, api.name, resolved, reply
        )
        exchange.is_away = exchange.is_away or not is_kept

    def _outcome(
        self, exchange: Exchange, number: int, payload: bytes, *, is_given_up: bool
    ) -> Settled:
        is_ok = bool(payload)
        return Settled(
            request_id=exchange.intent.request_id,
            attempt=1,
            ended_at_ns=self.now_ns,
            status=200 if is_ok or is_given_up else 500,
            error="" if is_ok or is_given_up else "upstream_error",
            first_byte_us=10,
            ttft_us=20,
            total_us=30,
            overhead_us=1,
            usage=Usage(input_tokens=10, output_tokens=2) if is_ok else None,
            estimated=False,
            model="m",
            response_id=response_id(exchange.talk.client.api, number) if is_ok else "",
            response_bytes=len(payload),
            client_disconnected=is_given_up,
            is_complete=is_ok,
        )

    # --- requests ------------------------------------------------------------------------------

    def dispatch(
        self,
        talk: Talk,
        tail: Message,
        *,
        history: list[Message] | None = None,
        tools: tuple[str, ...] | None = None,
        more: dict[str, str] | None = None,
        is_turn: bool = True,
    ) -> Exchange:
        """Send one request of a conversation."""
        return self.place.run(
            self._carry(talk, tail, history=history, tools=tools, more=more, is_turn=is_turn)
        )

    async def _carry(
        self,
        talk: Talk,
        tail: Message,
        *,
        history: list[Message] | None = None,
        tools: tuple[str, ...] | None = None,
        more: dict[str, str] | None = None,
        gateway: Gateway | None = None,
        is_turn: bool = True,
    ) -> Exchange:
        history = talk.messages if history is None else history
        is_chained = is_turn and history is talk.messages
        previous = talk.last_response if is_chained else ""
        tools = talk.tools if tools is None else tools
        body = body_of(talk, history, tail, tools, previous)
        return await self._send(
            talk, headers_of(talk, more or {}), body, tail, len(history), is_turn, gateway
        )

    async def _send(
        self,
        talk: Talk,
        headers: Any,
        body: bytes,
        tail: Message,
        length: int,
        is_turn: bool,
        gateway: Gateway | None = None,
    ) -> Exchange:
        request = (headers, body, tail, length, is_turn)
        gateway = gateway or self.rng.choice(self.place.gateways)
        self.now_ns += SECOND_NS
        self.place.now_ns = self.now_ns
        at_ns = self.now_ns
        claim, resolved = await self.resolve(
            gateway, talk.principal, talk.client.api, headers, body
        )
        number = self.fresh()
        intent = self._intent(talk, claim, resolved, number, at_ns, len(body))
        gateway.journal.append(intent)
        self.actors.add(talk.principal)
        is_away = "keeper_away" in resolved.flags
        found = Exchange(
            talk, gateway, intent, resolved, claim, tail, length, is_turn, is_away, request
        )
        self.running.append(found)
        self.counts["requests"] += 1
        self.judge(found)
        return found

    async def resolve(
        self, gateway: Gateway, principal: Principal, api_name: str, headers: Any, body: bytes
    ) -> tuple[Claim, Resolved]:
        """As the gateway does it: head, body where it is needed, cache, keeper."""
        path = PATHS[api_name]
        claim = identify(headers, _CLIENTS, path)
        if not claim.names_durable_thread:
            claim = identify_with_body(claim, headers, path, body, _CLIENTS)
        found = gateway.sessions.find(principal, claim)
        if found is None:
            api = api_for(b"POST", path)
            assert api is not None
            content = None
            if gateway.sessions.resume != "off":
                content = api.conversation(path, body, _DIGESTER)
            found = await gateway.sessions.resolve(principal, claim, self.now_ns, api.name, content)
        return claim, found

    def _intent(
        self, talk: Talk, claim: Claim, found: Resolved, number: int, at_ns: int, size: int
    ) -> Dispatched:
        known = found.known
        return Dispatched(
            request_id=f"req_{number:09d}",
            attempt=1,
            received_at_ns=at_ns,
            principal=talk.principal,
            team="",
            project="",
            session=known.key if known else None,
            session_id=known.session_id if known else "",
            resolution=found.resolution,
            claim=found.claim_of(claim),
            transport="http",
            method="POST",
            path=PATHS[talk.client.api].decode(),
            upstream="u",
            vendor="",
            api=talk.client.api,
            worker="",
            model="m",
            request_bytes=size,
            billing="api",
            flags=claim.flags + found.flags,
            parent=known.parent if known else None,
            root=known.root if known else None,
            source=found.source,
            forked_from=found.forked_from,
            reason=found.reason,
            evidence=found.evidence,
        )

    # --- judging -------------------------------------------------------------------------------

    def judge(self, exchange: Exchange) -> None:
        """Everything that must hold of one answer."""
        intent, resolved = exchange.intent, exchange.resolved
        key = intent.session
        self.counts[intent.resolution] += 1
        if key is None:
            return
        if resolved.known is None or resolved.known.principal != intent.principal:
            raise Violated(f"P1: a session of another principal was answered: {intent}")
        for other in (key, intent.parent, intent.root, intent.forked_from):
            if other is not None and self.home.get(other, intent.principal) != intent.principal:
                raise Violated(f"P1: {other} belongs to another principal: {intent}")
        self.home[key] = intent.principal
        self._judge_label(exchange, key)
        self._judge_owner(exchange, key)
        self._count_restart(exchange, key)
        self._count_link(exchange)

    def _judge_label(self, exchange: Exchange, key: SessionKey) -> None:
        label, flags = exchange.intent.resolution, exchange.intent.flags
        if "keeper_away" in flags:
            pass
        elif label == "new" and key in self.seen:
            raise Violated(f"{key} is new a second time: {exchange.intent}")
        elif label != "new" and key not in self.seen:
            raise Violated(f"{key} is {label} and was never there: {exchange.intent}")
        self.seen.add(key)

    def _judge_owner(self, exchange: Exchange, key: SessionKey) -> None:
        talk = exchange.talk
        allowed = {talk.number} | talk.may_take
        if not exchange.is_turn:
            allowed |= talk.copied
        owner = self.owners.get(key)
        if exchange.intent.reason == "equal_body" and owner is not None:
            self.join(talk.number, owner)
        if owner is not None and self.real(owner) not in {self.real(one) for one in allowed}:
            self.counts["false_merges"] += 1
            if self.is_proof:
                raise Violated(
                    f"P2: talk {talk.number} ({talk.client.name}) was put into {key}, "
                    f"opened for talk {owner}: {exchange.intent}"
                )
            return
        if owner is None:
            self.owners[key] = talk.number
        elif exchange.is_turn and talk.may_take and owner != talk.number:
            self.owners[key] = talk.number  # the first of equal copies to go on is the session

    def join(self, one: int, two: int) -> None:
        """From now on these conversations are one."""
        if self.real(one) != self.real(two):
            self.joined[self.real(one)] = self.real(two)

    def _count_restart(self, exchange: Exchange, key: SessionKey) -> None:
        talk = exchange.talk
        if not talk.is_restarted or not exchange.is_turn or talk.session is None:
            return
        talk.is_restarted = False
        if self.place.server is not None:
            self.place.project()  # a close that is on its way counts
        if talk.client.is_durable or "stable" in talk.ids or self.is_closed(talk.session):
            return
        is_young = not talk.is_odd and "keeper_away" not in exchange.intent.flags
        if is_young and not (talk.may_take or talk.is_forked or talk.is_stolen):
            is_found = key == self.now_at(talk.session)
            self.counts["restarts"] += 1
            self.counts["restarts_found"] += is_found
            if any(one.is_assistant and one.text not in REPLIES for one in talk.messages[-2:]):
                self.counts["own_restarts"] += 1
                self.counts["own_restarts_found"] += is_found
            if not is_found:
                self.counts[f"missed: {exchange.intent.reason}"] += 1

    def _count_link(self, exchange: Exchange) -> None:
        """Forks under durable ids: whether they are linked, and to what they copied."""
        intent, talk = exchange.intent, exchange.talk
        if not (talk.client.is_durable and exchange.is_turn and intent.resolution == "new"):
            return
        if "keeper_away" in intent.flags or talk.is_odd or talk.is_stolen:
            return
        if intent.forked_from is None:
            self.counts["durable_forks"] += bool(talk.copied)
            return
        origin = self.owners.get(intent.forked_from)
        origins = {self.real(one) for one in (talk.number, *talk.copied, *talk.may_take)}
        is_right = origin is not None and self.real(origin) in origins
        self.counts["durable_forks"] += bool(talk.copied)
        self.counts["durable_forks_linked" if is_right else "wrong_links"] += 1

    def is_closed(self, key: SessionKey) -> bool:
        """Whether a session was closed: nothing resumes it."""
        query = f"SELECT 1 FROM sessions WHERE id = '{key}' AND closed_at_ns IS NOT NULL"
        return bool(self.place.house.rows(query))

    def now_at(self, key: SessionKey) -> SessionKey:
        """Where an operator's merges have put a session."""
        with self.place.house.engine.connect() as connection:
            return survivor(connection, key)

    def real(self, number: int) -> int:
        """The conversation, or the one it was merged with."""
        while number in self.joined:
            number = self.joined[number]
        return number

    # --- the store -----------------------------------------------------------------------------

    def project(self) -> None:
        """A pass; nobody's rows change but those of who did something."""
        if self.place.server is None:
            return
        self.place.project()
        prints = self._prints()
        for principal in PRINCIPALS:
            if principal not in self.actors and self.prints.get(principal) not in (
                None,
                prints.get(principal),
            ):
                raise Violated(f"P1: rows of {principal} changed by {sorted(self.actors)}")
        self.prints, self.actors = prints, set()
        self.check_tree()

    def _prints(self) -> dict[Principal, str]:
        """A digest of everything that is in the store of each principal."""
        held: dict[Principal, Any] = {name: hashlib.sha256() for name in PRINCIPALS}
        house = self.place.house
        for table in ("sessions", "aliases", "attempts"):
            for row in house.rows(f"SELECT principal, * FROM {table} ORDER BY 2, 3, 4"):
                held[row[0]].update(repr(row).encode())
        query = "SELECT s.principal, e.* FROM session_events e JOIN sessions s ON s.id = e.session"
        for row in house.rows(f"{query} ORDER BY e.id"):
            held[row[0]].update(repr(row).encode())
        return {name: state.hexdigest() for name, state in held.items()}

    def check_tree(self) -> None:
        """No circle; roots and depths are those of the way up; parents are one's own."""
        rows = {
            row[0]: row[1:]
            for row in self.place.house.rows(
                "SELECT id, parent_id, root_id, depth, principal FROM sessions"
            )
        }
        for key, (_, root, depth, principal) in rows.items():
            at, steps = key, 0
            while rows[at][0] is not None:
                at, steps = rows[at][0], steps + 1
                if steps > len(rows):
                    raise Violated(f"a circle above {key}")
            if (root, depth) != (at, steps):
                raise Violated(f"{key} has root {root} and depth {depth}, not {at} and {steps}")
            if rows[at][3] != principal:
                raise Violated(f"P1: {key} is below a session of another principal")

    def check_counters(self) -> None:
        """Every session's counters are the sums of what it holds."""
        wrong = self.place.house.rows(
            "SELECT s.id, s.requests, count(a.request_id) AS held FROM sessions s "
            "LEFT JOIN attempts a ON a.session = s.id GROUP BY s.id HAVING s.requests != held"
        )
        if wrong:
            raise Violated(f"counters: {wrong[:3]}")
