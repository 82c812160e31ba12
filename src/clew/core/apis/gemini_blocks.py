"""The content of Gemini: contents and their parts, and answers whole or in chunks.

Clients put the chunks of a streamed text together, or keep one content per chunk, and many leave
the thoughts out. So the model's texts between two of its calls are one block, over parts and
contents; its thoughts are another. A user's parts are blocks of their own.

Field names come in camel case and, as protobuf's JSON allows, in snake case.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from clew.core.apis.content import (
    MAX_REPLY_BYTES,
    number,
    objects_in,
    objects_of,
    request_of,
    text_in,
    texts_of,
    tool_names,
)
from clew.core.apis.transcript import Transcript
from clew.core.lineage.blocks import Conversation, Digester, Reply

_DECLARATIONS: Final = ("functionDeclarations", "function_declarations")
_WHITESPACE_AND_COMMA: Final = " \t\r\n,"


def conversation(
    body: bytes, digester: Digester, *, has_response_schema: bool
) -> Conversation | None:
    """The content of a request; None where the body has no ``contents``."""
    request = request_of(body)
    if request is not None and isinstance(request.get("generateContentRequest"), dict):
        request = request["generateContentRequest"]  # :countTokens
    if request is None or not isinstance(request.get("contents"), list):
        return None
    transcript = Transcript(digester)
    said = _Said(transcript)
    for content in objects_in(request["contents"]):
        parts = objects_in(content.get("parts"))
        if content.get("role") == "model":
            for part in parts:
                said.take(part)
        else:
            said.end()
            _read_user(parts, transcript)
    said.end()
    tools = _tool_names(request.get("tools"))
    return transcript.conversation(body, tools, has_response_schema=has_response_schema)


def reply(payload: bytes, digester: Digester, *, is_stream: bool) -> Reply:
    """The content of an answer; without ``alt=sse`` a stream is an array of its chunks."""
    transcript = Transcript(digester)
    said: dict[int, _Said] = {}
    is_array = payload.lstrip()[:1] == b"["
    for chunk in _elements(payload) if is_array else objects_of(payload, is_stream=is_stream):
        for candidate in objects_in(chunk.get("candidates")):
            index, content = candidate.get("index"), candidate.get("content")
            key = index if isinstance(index, int) else 0
            one = said.setdefault(key, _Said(transcript))
            for part in objects_in(content.get("parts")) if isinstance(content, dict) else ():
                one.take(part)
        if len(said) == 1:
            transcript.mark(text_in(chunk, "responseId"))
    for one in said.values():
        one.end()
    return transcript.reply()


def _read_user(parts: list[dict[str, Any]], transcript: Transcript) -> None:
    transcript.user(texts_of(parts))
    for part in parts:
        answer = _field(part, "functionResponse", "function_response")
        if answer is not None:
            name = text_in(answer, "name")
            transcript.result(text_in(answer, "id"), answer.get("response"), name=name)


def _field(part: dict[str, Any], *names: str) -> dict[str, Any] | None:
    return next((part[name] for name in names if isinstance(part.get(name), dict)), None)


def _tool_names(tools: Any) -> frozenset[str]:
    """Names of functions; a tool of the provider is named by its field (``googleSearch``)."""
    declared = tools if isinstance(tools, list) else []
    provided = [field for tool in objects_in(tools) for field in tool if field not in _DECLARATIONS]
    return tool_names([*declared, *provided], *_DECLARATIONS)


def _elements(payload: bytes) -> Iterator[dict[str, Any]]:
    """The objects of an array that may have been cut."""
    text = payload[:MAX_REPLY_BYTES].decode("utf-8", "replace")
    read, at = json.JSONDecoder(parse_float=number).raw_decode, text.index("[") + 1
    while True:
        while at < len(text) and text[at] in _WHITESPACE_AND_COMMA:
            at += 1
        try:
            found, at = read(text, at)
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict):
            yield found


class _Said:
    """What the model says up to a call, or to the end of its turn."""

    __slots__ = ("_is_begun", "_texts", "_thoughts", "_transcript")

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._is_begun = False

    def take(self, part: dict[str, Any]) -> None:
        """Take in one part."""
        self._is_begun = True
        self._transcript.mark(text_in(part, "thoughtSignature", "thought_signature"))
        text = text_in(part, "text")
        if text:
            (self._thoughts if part.get("thought") is True else self._texts).append(text)
        call = _field(part, "functionCall", "function_call")
        if call is not None:
            self._flush()
            self._transcript.call(text_in(call, "id"), text_in(call, "name"), call.get("args"))

    def end(self) -> None:
        """The turn is over."""
        self._flush()
        if self._is_begun:
            self._transcript.end_assistant()
        self._is_begun = False

    def _flush(self) -> None:
        self._transcript.reasoning("".join(self._thoughts))
        self._transcript.text("".join(self._texts), is_assistant=True)
        self._thoughts.clear()
        self._texts.clear()
