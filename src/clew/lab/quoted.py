"""The answer that a file quotes beside a request, as one document of the request's API.

Captures hold it in short, a text or a tool call; a HAR holds the document itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from clew.core.apis.table import api_for
from clew.core.request_file import RequestFile
from clew.lab.sim_chat import Chat
from clew.lab.sim_dialect import Answer, Ask, Dialect, Spent, ToolCall
from clew.lab.sim_gemini import Gemini
from clew.lab.sim_messages import Messages
from clew.lab.sim_responses import Responses

_DIALECTS: Final[Mapping[str, Callable[[], Dialect]]] = {
    "chat": Chat,
    "responses": Responses,
    "messages": Messages,
    "gemini": Gemini,
}
_DIGITS: Final = "5f333222a7ca4776942a0b1c"
"""What ids are made of that the file does not tell."""


def reply_document(request: RequestFile) -> bytes:
    """The answer as the upstream would send it at once; empty where the file does not tell."""
    api = api_for(request.method.encode(), request.path.partition(b"?")[0])
    reply = request.reply
    if api is None or reply is None:
        return b""
    if isinstance(reply, str):
        return reply.encode() if reply.lstrip().startswith(("{", "[")) else b""
    if not isinstance(reply, Mapping):
        return b""
    text, calls = reply.get("text"), _calls(reply.get("tool_call"))
    if not calls and not isinstance(text, str):
        return b""
    ask = Ask(model="", stream=False, pieces=(), newest="")
    said = text if isinstance(text, str) else ""
    spent = Spent(input_tokens=0)
    answer = Answer(ask, 1, _DIGITS, 0, said, "", calls, "tool" if calls else "end", spent)
    return msgspec.json.encode(_DIALECTS[api.name]().document(answer))


def _calls(call: Any) -> tuple[ToolCall, ...]:
    if not isinstance(call, Mapping):
        return ()
    name, arguments = call.get("name"), call.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, str):
        return ()
    return (ToolCall(str(call.get("id") or ""), name, arguments),)
