"""The way to the keeper from another process: one socket, questions by number, news as it comes.

Nothing here waits for the keeper longer than `ANSWER_S`, and nothing waits at all while it is
away: `KeeperAway` comes at once, and the connection is tried again in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from clew.core.claim import Claim, Principal
from clew.core.errors import ClewError
from clew.core.lineage.blocks import Conversation
from clew.keeper.protocol import (
    Acknowledge,
    Admission,
    Admit,
    Admitted,
    Answer,
    Ask,
    Barrier,
    Command,
    Delta,
    Frames,
    FromKeeper,
    Hello,
    KeyDelta,
    KeySnapshot,
    KeysUsed,
    Known,
    Lost,
    Passed,
    Prompted,
    Release,
    Request,
    Result,
    Snapshot,
    ToKeeper,
    Told,
    decode_from_keeper,
    frame,
)

ANSWER_S: Final = 1.0
BARRIER_S: Final = 10.0
COMMAND_S: Final = 5.0
"""A command writes the store and waits for every gateway (`server.CONFIRM_S`)."""
HELD_S: Final = 30.0
"""How long a call may be held by the keeper (`keeper.admission.HOLD_S`), and some time more."""
FIRST_BACKOFF_S: Final = 0.05
MAX_BACKOFF_S: Final = 1.0
MAX_WAITING: Final = 10_000
"""Questions under way; more are refused at once. Bounds memory when the keeper is slow."""

_log = logging.getLogger(__name__)


class KeeperAway(ClewError):  # noqa: N818  named after what happened, like its stable code
    """The keeper is not connected, or did not answer in time."""

    def __init__(self) -> None:
        super().__init__("store_unavailable")


Reply = Answer | Passed | Result
KeyNews = KeySnapshot | KeyDelta


class KeeperLink:
    """One process's connection to the keeper. ``on_known`` and ``on_keys`` are called on the loop.

    News is acknowledged once it has been handed to them.
    """

    def __init__(
        self,
        path: str,
        name: str,
        on_known: Callable[[Known], None],
        role: str = "gateway",
        on_keys: Callable[[KeyNews], None] = lambda _news: None,
    ) -> None:
        self._path = path
        self._hello = Hello(role, name)
        self._on_known = on_known
        self._on_keys = on_keys
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._requests: list[Request] = []
        """Calls to be admitted, sent together at the end of the loop's turn."""
        self._admissions: dict[int, asyncio.Future[Admission]] = {}
        self._caught_up = asyncio.Event()
        self.sequence = 0
        """The last delta applied."""

    @property
    def is_connected(self) -> bool:
        """Whether a question would be sent now."""
        return self._writer is not None

    def start(self) -> None:
        """Connect, and stay connected until `close`; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._stay())

    async def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until a whole snapshot has been applied; False when that took too long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._caught_up.wait(), timeout_s)
        return self._caught_up.is_set()

    async def ask(
        self,
        principal: Principal,
        claim: Claim,
        at_ns: int,
        api: str = "",
        conversation: Conversation | None = None,
    ) -> Answer:
        """The session of a claim. Raises KeeperAway within `ANSWER_S`."""
        number = next(self._numbers)
        question = Ask(number, principal, claim, at_ns, api, conversation)
        answer = await self._exchange(number, question, ANSWER_S)
        if not isinstance(answer, Answer):
            raise KeeperAway
        return answer

    async def tell(self, message: Told, timeout_s: float) -> None:
        """Have what became of a request kept; its ``number`` is set here. Raises KeeperAway."""
        number = next(self._numbers)
        numbered = msgspec.structs.replace(message, number=number)
        await self._exchange(number, numbered, timeout_s)

    async def barrier(self, timeout_s: float = BARRIER_S) -> None:
        """Return when everything now in the journals is in the store. Raises KeeperAway."""
        number = next(self._numbers)
        await self._exchange(number, Barrier(number), timeout_s)

    async def command(
        self, name: str, arguments: dict[str, Any], timeout_s: float = COMMAND_S
    ) -> Any:
        """Have the keeper change something; the value the command returns.

        Raises the command's own ClewError, and KeeperAway when no result came: it may then have
        been carried out nevertheless.
        """
        number = next(self._numbers)
        result = await self._exchange(number, Command(number, name, arguments), timeout_s)
        if not isinstance(result, Result):
            raise KeeperAway
        if not result.ok:
            raise ClewError(result.error, result.detail)
        return result.value

    def tell_prompt(self, message: Prompted) -> bool:
        """Say what a prompt was like; False when the keeper is away."""
        if self._writer is None:
            return False
        self._writer.write(frame(message))
        return True

    def tell_lost(self, message: Lost) -> bool:
        """Say that a session lost its worker; False when the keeper is away."""
        if self._writer is None:
            return False
        self._writer.write(frame(message))
        return True

    def report_used(self, ids: tuple[str, ...], at_ns: int) -> bool:
        """Say which gateway keys were used; False when the keeper is away."""
        if self._writer is None:
            return False
        self._writer.write(frame(KeysUsed(ids, at_ns)))
        return True

    async def admit(self, journal: str, request: Request) -> Admission:
        """The word about a call; its ``number`` is set here.

        Raises KeeperAway when nothing was heard within `ANSWER_S`, or the rest of it, where the
        keeper holds the call, within `HELD_S`. A grant that comes later is given back.
        """
        if self._writer is None or len(self._admissions) >= MAX_WAITING:
            raise KeeperAway
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        if not self._requests:
            loop.call_soon(self._send_requests, journal)
        self._requests.append(msgspec.structs.replace(request, number=number))
        self._admissions[number] = loop.create_future()
        try:
            word = await asyncio.wait_for(self._admissions[number], ANSWER_S)
            if word.is_held:
                word = await asyncio.wait_for(self._admissions[number], HELD_S)
        except TimeoutError:
            raise KeeperAway from None
        finally:
            self._admissions.pop(number, None)
        return word

    def _send_requests(self, journal: str) -> None:
        requests, self._requests = self._requests, []
        if self._writer is not None:
            self._writer.write(frame(Admit(journal, tuple(requests))))

    def release(self, grants: tuple[str, ...]) -> None:
        """Say that these calls are not dispatched; the keeper finds out by itself if it is away."""
        if self._writer is not None:
            self._writer.write(frame(Release(grants)))

    async def close(self) -> None:
        """Leave; questions under way get KeeperAway."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _exchange(self, number: int, message: ToKeeper, timeout_s: float) -> Reply:
        writer = self._writer
        if writer is None or len(self._waiting) >= MAX_WAITING:
            raise KeeperAway
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        writer.write(frame(message))
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise KeeperAway from None
        finally:
            self._waiting.pop(number, None)

    async def _stay(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        try:
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(self._path)
                except OSError:
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
                    continue
                backoff_s = FIRST_BACKOFF_S
                await self._talk(reader, writer)
                await asyncio.sleep(backoff_s)
        finally:
            self._lose()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from hello to its end."""
        writer.write(frame(self._hello))
        self._writer = writer
        frames = Frames()
        try:
            while data := await reader.read(256 * 1024):
                for body in frames.feed(data):
                    self._take(decode_from_keeper(body))
        except (OSError, ValueError) as error:
            _log.warning("the keeper's connection ended: %s", error)
        finally:
            self._lose()
            writer.close()

    def _take(self, message: FromKeeper) -> None:
        if isinstance(message, Answer | Passed | Result):
            future = self._waiting.get(message.number)
            if future is not None and not future.done():
                future.set_result(message)
            return
        if isinstance(message, Admitted):
            self._take_admissions(message)
            return
        if isinstance(message, Snapshot):
            for known in message.known:
                self._on_known(known)
            if message.is_last:
                self._caught_up.set()
            return
        if isinstance(message, KeySnapshot):
            self._on_keys(message)
            return
        self._apply(message)

    def _take_admissions(self, message: Admitted) -> None:
        unheard = []
        for word in message.admissions:
            future = self._admissions.get(word.number)
            if future is not None and not future.done():
                future.set_result(word)
                if word.is_held:  # the next word may be here before this one was taken
                    self._admissions[word.number] = future.get_loop().create_future()
            elif word.grant:
                unheard.append(word.grant)
        if unheard:
            self.release(tuple(unheard))

    def _apply(self, message: Delta | KeyDelta) -> None:
        if isinstance(message, KeyDelta):
            self._on_keys(message)
        else:
            self._on_known(message.known)
        self.sequence = message.sequence
        if self._writer is not None:
            self._writer.write(frame(Acknowledge(message.sequence)))

    def _lose(self) -> None:
        self._writer = None
        self._caught_up.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(KeeperAway())
        self._waiting.clear()
        for waiting in self._admissions.values():
            if not waiting.done():
                waiting.set_exception(KeeperAway())
