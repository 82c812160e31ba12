"""The transcript that an API's content fills: which two things are the same block.

An API's ``…_blocks`` file knows where its texts, calls, results and reasoning stand; here is what
they become:

* outer whitespace is no part of a block, and nothing but whitespace is none;
* a user's text is never equal to the model's, wherever either stands;
* a result is its call's id and its texts: "ok" of one call is not "ok" of another, and an answer in
  the tail does not pass for the call that the history shows;
* an id is a block only when it can be unique: ``call_0`` or ``functions.read:0`` say nothing about
  a session that began elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from clew.core.apis.content import arguments_of, result_of, sendable, strings_in, utf8
from clew.core.lineage.blocks import (
    ARGUMENT_CHARS,
    Block,
    Conversation,
    Digest,
    Digester,
    Reply,
)

MAX_BLOCKS: Final = 16_384
"""A request of more blocks has no lineage: it bounds the digests that one body can ask for."""
MAX_OPENING_BYTES: Final = 64 * 1024
MAX_ARGUMENTS: Final = 64
"""String arguments kept of one answer; a parallel fan-out of tasks is below."""
_RANDOM_RUN: Final = re.compile(r"[A-Za-z0-9]{8,}")
"""What an id must have to be unique: such a run, of digits and at least `_RANDOM_DISTINCT` signs.
It excludes counters, dates, and the dummy signatures that clients put in for missing ones."""
_RANDOM_DISTINCT: Final = 5
_MAX_RANDOM_SEARCH_CHARS: Final = 4096


class Transcript:
    """Collects the blocks of one request or one answer, in order."""

    __slots__ = (
        "_answers",
        "_arguments",
        "_blocks",
        "_calls",
        "_digester",
        "_history_blocks",
        "_is_overfull",
        "_opening",
    )

    def __init__(self, digester: Digester) -> None:
        self._digester = digester
        self._blocks: list[Block] = []
        self._history_blocks = 0
        self._is_overfull = False
        self._answers: set[Digest] = set()
        self._calls: set[Digest] = set()
        self._arguments: dict[str, None] = {}
        self._opening: str | None = None

    def text(self, text: str, *, is_assistant: bool) -> None:
        """One text; an empty one is no block."""
        kind = b"assistant text" if is_assistant else b"user text"
        stripped = text.strip()
        if stripped:
            self._add(kind, utf8(stripped), is_assistant=is_assistant)

    def reasoning(self, text: str) -> None:
        """One reasoning text; an empty one is no block."""
        stripped = text.strip()
        if stripped:
            self._add(b"reasoning", utf8(stripped), is_assistant=True)

    def mark(self, value: Any, *, is_assistant: bool = True, name: str = "") -> None:
        """An id or a signature, where it can be unique; ``name`` is the tool that it calls."""
        if isinstance(value, str) and _can_be_unique(value, name):
            self._add(b"id", utf8(value), is_assistant=is_assistant, is_mark=True)

    def call(self, call_id: str, name: str, arguments: Any, *, is_for_client: bool = True) -> None:
        """A tool call of the model; ``is_for_client``: the next request has to answer it."""
        form, value = arguments_of(arguments)
        self._add(b"call", utf8(name) + b"\0" + form, is_assistant=True)
        self.mark(call_id, name=name)
        if call_id and is_for_client:
            self._calls.add(self._id(call_id))
        self._keep_arguments(value)

    def result(
        self, call_id: str, content: Any, *, name: str = "", is_assistant: bool = False
    ) -> None:
        """A tool's result; ``is_assistant`` where the provider ran the tool."""
        form = result_of(content)
        if call_id:
            self._answers.add(self._id(call_id))
        if call_id or form:
            whole = utf8(call_id or name) + b"\0" + form
            self._add(b"result", whole, is_assistant=is_assistant)

    def user(self, texts: Iterable[str]) -> None:
        """The texts of one user message; the first message is the opening."""
        texts = list(texts)
        if self._opening is None:
            self._opening = _cut("\n".join(texts))
        for text in texts:
            self.text(text, is_assistant=False)

    def end_assistant(self) -> None:
        """The model's message ends here: what came so far is history."""
        self._history_blocks = len(self._blocks)

    def conversation(
        self, body: bytes, tools: frozenset[str], *, has_response_schema: bool
    ) -> Conversation | None:
        """The request; None when it had more than `MAX_BLOCKS`."""
        if self._is_overfull:
            return None
        return Conversation(
            history=tuple(self._blocks[: self._history_blocks]),
            tail=tuple(self._blocks[self._history_blocks :]),
            tools=tools,
            has_response_schema=has_response_schema,
            answers=frozenset(self._answers),
            opening=self._opening or "",
            body=self._digester.digest(b"body", body),
        )

    def reply(self) -> Reply:
        """The answer; blocks that came twice (in an event and in the final object) stand once."""
        return Reply(
            blocks=tuple(dict.fromkeys(self._blocks)),
            calls=frozenset(self._calls - self._answers),
            arguments=tuple(self._arguments),
        )

    def _add(
        self, kind: bytes, content: bytes, *, is_assistant: bool, is_mark: bool = False
    ) -> None:
        if len(self._blocks) >= MAX_BLOCKS:
            self._is_overfull = True
            return
        self._blocks.append(Block(self._digester.digest(kind, content), is_assistant, is_mark))

    def _id(self, value: str) -> Digest:
        return self._digester.digest(b"id", utf8(value))

    def _keep_arguments(self, value: Any) -> None:
        for text in strings_in(value):
            if len(self._arguments) >= MAX_ARGUMENTS:
                return
            stripped = sendable(text).strip()
            if ARGUMENT_CHARS <= len(stripped) <= MAX_OPENING_BYTES:
                self._arguments[stripped] = None


def _can_be_unique(value: str, name: str) -> bool:
    """Whether an id has something random in it, beside the name of the tool it calls."""
    if name:
        value = value.replace(name, " ")
    for run in _RANDOM_RUN.findall(value, 0, _MAX_RANDOM_SEARCH_CHARS):
        letters = set(run)
        if len(letters) >= _RANDOM_DISTINCT and not letters.isdisjoint("0123456789"):
            return True
    return False


def _cut(text: str) -> str:
    return utf8(text)[:MAX_OPENING_BYTES].decode("utf-8", "ignore")
