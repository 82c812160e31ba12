"""Which simulated worker the settings ask for: one row for each engine and phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from clew.lab.settings import SimSettings
from clew.lab.sim_engine import Engine
from clew.lab.sim_engine_sglang import SglangDecode, SglangPrefill
from clew.lab.sim_engine_vllm import VllmDecode, VllmPrefill

_ENGINES: Final[dict[tuple[str, str], Callable[[str, int], Engine]]] = {
    ("vllm", "prefill"): VllmPrefill,
    ("vllm", "decode"): lambda _host, _port: VllmDecode(),
    ("sglang", "prefill"): SglangPrefill,
    ("sglang", "decode"): lambda _host, _port: SglangDecode(),
}


def make_engine(settings: SimSettings, url: str) -> Engine | None:
    """The worker of one phase that listens at ``url``; None: it serves whole requests."""
    if not settings.phase:
        return None
    address = urlsplit(url)
    host = address.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return _ENGINES[settings.engine, settings.phase](shown, address.port or 80)
