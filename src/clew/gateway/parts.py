"""What an exchange works with: built once from the configuration, replaced whole on a reload."""

from __future__ import annotations

import base64
import itertools
import os
from dataclasses import dataclass, field

from clew.config.schema import Config
from clew.core.clients import ClientTable
from clew.core.lineage.blocks import Digester
from clew.core.routing import RouteTable
from clew.gateway.background import Background
from clew.gateway.bindings import Bindings
from clew.gateway.gate import Gate
from clew.gateway.grants import Admissions
from clew.gateway.local import LocalRoutes
from clew.gateway.places import Places
from clew.gateway.prompts import NO_PROMPTS, Onlooker
from clew.gateway.sessions import Sessions
from clew.gateway.stats import Counters
from clew.journal.writer import JournalWriter
from clew.wire.pool import Pool
from clew.wire.upstream import Timeouts


class RequestIds:
    """Ids unique over processes and restarts: 80 random bits a process, then a counter."""

    def __init__(self) -> None:
        random = base64.b32encode(os.urandom(10)).decode().lower()
        self._prefix = f"req_{random}"
        self._next = itertools.count(1).__next__

    def __call__(self) -> str:
        """A fresh id, e.g. ``req_mzxw6ytboi2dkmrr00002a``."""
        return f"{self._prefix}{self._next():06x}"


@dataclass(frozen=True, slots=True)
class Parts:
    """The collaborators of one gateway process."""

    config: Config
    gate: Gate
    clients: ClientTable
    routes: RouteTable
    places: Places
    timeouts: Timeouts
    local: LocalRoutes
    sessions: Sessions
    journal: JournalWriter
    pool: Pool
    counters: Counters
    digester: Digester
    background: Background
    bindings: Bindings
    admissions: Admissions | None = None
    """None where nothing is limited: no call asks the keeper then."""
    prompts: Onlooker = NO_PROMPTS
    """Looks at nothing unless ``metering.cache_breaks`` wants to know why caches broke."""
    identity_body_bytes: int = 4 * 1024 * 1024
    """Bodies up to this are read where the headers name no session; larger ones are flagged."""
    new_request_id: RequestIds = field(default_factory=RequestIds)
