"""Which API a request speaks. The first row that matches wins.

Chat stands first, since its path is the longest; Responses last, since its path is one word that a
prefix could contain.
"""

from __future__ import annotations

import re
from typing import Final

from clew.core.apis.chat import CHAT
from clew.core.apis.gemini import GEMINI
from clew.core.apis.messages import MESSAGES
from clew.core.apis.port import Api
from clew.core.apis.responses import RESPONSES

APIS: Final[tuple[Api, ...]] = (CHAT, MESSAGES, GEMINI, RESPONSES)

_ERROR_FORMS: Final[tuple[tuple[re.Pattern[bytes], Api], ...]] = (
    (re.compile(rb"(?:^|/)v1/messages"), MESSAGES),
    (re.compile(rb"(?:^|/)v1beta"), GEMINI),
)


def api_for(method: bytes, path: bytes) -> Api | None:
    """The API of an inference call; None for anything else. ``path`` comes without its query."""
    if method != b"POST":
        return None
    return next((api for api in APIS if api.matches(path)), None)


def error_api(path: bytes) -> Api:
    """The API in whose form an error on ``path`` is answered; OpenAI's where none is known."""
    for form, api in _ERROR_FORMS:
        if form.search(path):
            return api
    return next((api for api in APIS if api.matches(path)), CHAT)
