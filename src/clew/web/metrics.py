"""`/metrics`: the Prometheus text of this process, the gateways and the store.

Labels are bounded and never a session id: gateways by index, routes by pattern, upstreams and
models by the fifty busiest pairs and ``other``. What is summed over the store is a gauge, because
retention lets it fall.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from clew.core.clients import product_of
from clew.core.drift import version_of
from clew.store.reads_drift import ClientLoad
from clew.store.reads_usage import Spending
from clew.web.fleets import Reports, Troubles, count_states, lists_read
from clew.web.gateways import COUNTERS, GAUGES, Gateway

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
MAX_LABEL: Final = 128
"""Characters of a label that came from outside."""

OWN: Final = {
    "clew_admin_requests_total": "Exchanges on the admin port.",
    "clew_stale_reads_total": "Reads that went on without the keeper's word.",
    "clew_gateway_up": "Whether the gateway wrote its counters lately.",
    "clew_gateway_ready": "Whether the gateway says that it is ready.",
    "clew_workers": "Workers of an upstream by state, as each gateway sees them.",
    "clew_discovery_up": "Whether an upstream's list of workers can be read.",
    "clew_claims_up": "Whether the claim store can be asked.",
    "clew_store_up": "Whether the store could be read for this answer.",
    "clew_sessions": "Sessions in the store by state.",
    "clew_tokens": "Tokens in the store; input holds cached and cache_write.",
    "clew_client_calls": "Inference calls of the last day, by client and whether an id named them.",
    "clew_cost_usd": "Priced cost in the store; api is billed, other is imputed.",
}

Metric = CounterMetricFamily | GaugeMetricFamily


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """All that one scrape shows."""

    answers: Counter[tuple[str, int]]
    """Exchanges by route pattern and status."""
    stale_reads: int
    gateways: Sequence[Gateway]
    fleets: Reports
    is_store_up: bool
    sessions: dict[str, int]
    spending: Sequence[Spending]
    clients: Sequence[ClientLoad] = ()
    claims: Troubles = {}


def names() -> list[str]:
    """Every metric there is."""
    return [f"clew_{name}" for name in (*COUNTERS, *GAUGES)] + list(OWN)


def render(observed: Observed) -> bytes:
    """The text of one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(observed))
    return generate_latest(registry)


class _Scrape(Collector):
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _of_gateways(self._observed.gateways)
        yield from _of_fleets(self._observed.fleets)
        yield _claims(self._observed.claims)
        yield from _of_this_process(self._observed)
        yield from _of_the_store(self._observed)


def _of_gateways(gateways: Sequence[Gateway]) -> Iterator[Metric]:
    for table, family in ((COUNTERS, CounterMetricFamily), (GAUGES, GaugeMetricFamily)):
        for name, text in table.items():
            metric: Metric = family(f"clew_{name}", text, labels=["gateway"])
            for gateway in gateways:
                if name in gateway.numbers:
                    metric.add_metric([str(gateway.index)], gateway.numbers[name])
            yield metric
    up = _own_gauge("clew_gateway_up", "gateway")
    ready = _own_gauge("clew_gateway_ready", "gateway")
    for gateway in gateways:
        up.add_metric([str(gateway.index)], float(gateway.is_up))
        ready.add_metric([str(gateway.index)], float(gateway.is_ready))
    yield from (up, ready)


def _of_fleets(reports: Reports) -> Iterator[Metric]:
    workers = _own_gauge("clew_workers", "gateway", "upstream", "state")
    for (index, upstream, state), count in count_states(reports).items():
        workers.add_metric([str(index), upstream, state], count)
    lists = _own_gauge("clew_discovery_up", "gateway", "upstream")
    for (index, upstream), is_read in lists_read(reports).items():
        lists.add_metric([str(index), upstream], float(is_read))
    yield from (workers, lists)


def _claims(troubles: Troubles) -> Metric:
    up = _own_gauge("clew_claims_up", "gateway")
    for index, trouble in troubles.items():
        up.add_metric([str(index)], float(not trouble))
    return up


def _of_this_process(observed: Observed) -> Iterator[Metric]:
    name = "clew_admin_requests_total"
    answers = CounterMetricFamily(name, OWN[name], labels=["route", "status"])
    for (route, status), count in sorted(observed.answers.items()):
        answers.add_metric([route, str(status)], count)
    name = "clew_stale_reads_total"
    yield from (answers, CounterMetricFamily(name, OWN[name], value=observed.stale_reads))


def _of_the_store(observed: Observed) -> Iterator[Metric]:
    up = _own_gauge("clew_store_up")
    up.add_metric([], float(observed.is_store_up))
    sessions = _own_gauge("clew_sessions", "state")
    for state, count in observed.sessions.items():
        sessions.add_metric([state], count)
    tokens = _own_gauge("clew_tokens", "upstream", "model", "type")
    cost = _own_gauge("clew_cost_usd", "upstream", "model", "billing")
    for row in observed.spending:
        where = [row.upstream[:MAX_LABEL], row.model[:MAX_LABEL]]
        for kind in ("input", "cached", "cache_write", "output"):
            tokens.add_metric([*where, kind], getattr(row, f"{kind}_tokens"))
        cost.add_metric([*where, "api"], row.billed_nanousd / 1e9)
        cost.add_metric([*where, "other"], row.imputed_nanousd / 1e9)
    yield from (up, sessions, tokens, cost, _clients(observed.clients))


def _clients(loads: Sequence[ClientLoad]) -> Metric:
    calls = _own_gauge("clew_client_calls", "client", "version", "id")
    for load in loads:
        where = [product_of(load.client)[:MAX_LABEL], version_of(load.client)[:MAX_LABEL]]
        calls.add_metric([*where, "yes"], load.with_id)
        calls.add_metric([*where, "no"], load.requests - load.with_id)
    return calls


def _own_gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, OWN[name], labels=labels)
