"""Workers that a Kubernetes service selects: its EndpointSlices, listed and then watched.

Two calls are all that is needed of the API (list, watch), so this is a small client of its own
(`docs/adr/` tells why). It lists in parts, watches from the list's version, goes on from the last
version seen when the server ends a watch, and lists anew when that version is gone (410) or
anything breaks. The service account's token is read before each call, because it is rotated.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import httpx
import msgspec

from clew.core.workers import Listed
from clew.fleet.discovery.endpoint_slices import EndpointSlice, EndpointSliceList, workers_of
from clew.fleet.discovery.port import Audience, UnusableList, check_listed

_T = TypeVar("_T")

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LIST_PART: Final = 500
LIST_S: Final = 10.0
WATCH_S: Final = 60
"""The server ends a watch after this; a connection that died silently is noticed then."""
WATCH_SLACK_S: Final = 5.0
SHORT_WATCH_S: Final = 1.0
"""A watch that ended sooner is not begun again at once: something between ends it."""
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 10.0
_SERVICE: Final = re.compile(
    r"(?P<namespace>[a-z0-9-]{1,63})/(?P<service>[a-z0-9.-]{1,253})(?::(?P<port>[a-z0-9-]{1,15}))?"
)
_GONE: Final = 410
_HINTS: Final = {
    401: "the service account's token is refused",
    403: "the service account may not list and watch endpointslices (deploy/kubernetes/rbac.yaml)",
}


class Cluster(msgspec.Struct, frozen=True):
    """Where the API server is, and what opens it."""

    url: str
    token_file: Path
    authority_file: Path

    @classmethod
    def of_this_pod(cls, environment: Mapping[str, str]) -> Cluster:
        """What Kubernetes gives every pod. Raises ValueError outside of one."""
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ValueError(
                "kubernetes discovery works in a pod: KUBERNETES_SERVICE_HOST is unset"
            )
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{port}", SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt")


class _Expired(Exception):  # noqa: N818  an answer, not a fault
    """The version watched from is no longer known: list anew."""


class _Refused(Exception):  # noqa: N818  an answer, not a fault of the program
    """The API server said no, or something that is no answer."""


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class KubernetesSource:
    """``NAMESPACE/SERVICE`` or ``NAMESPACE/SERVICE:PORT``. Raises ValueError for anything else."""

    initial: tuple[Listed, ...] | None = None

    def __init__(self, service: str, cluster: Cluster) -> None:
        found = _SERVICE.fullmatch(service)
        if found is None:
            raise ValueError(f"not NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT: {service!r:.80}")
        self.label = f"kubernetes:{service}"
        self._cluster = cluster
        self._port = found["port"] or ""
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{found['namespace']}/endpointslices"
        self._selector = {"labelSelector": f"kubernetes.io/service-name={found['service']}"}
        self._slices: dict[str, EndpointSlice] = {}
        self._random = random.Random()  # noqa: S311  spreads retries in time, guards nothing

    async def follow(self, audience: Audience) -> None:
        """Tell the ready endpoints, and each change of them, until cancelled."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                async with self._client() as client:
                    version = await self._list(client)
                    self._tell(audience)
                    backoff_s = FIRST_BACKOFF_S
                    await self._keep_watching(client, version, audience)
            except _Expired:
                continue
            except (httpx.HTTPError, OSError, _Refused) as fault:
                # ssl.SSLError is an OSError; an unreadable token or authority is one too.
                audience.troubled(f"{self.label}: {_said(fault)}")
            await asyncio.sleep(backoff_s * self._random.uniform(0.8, 1.2))
            backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)

    def _tell(self, audience: Audience) -> None:
        try:
            listed = check_listed(workers_of(list(self._slices.values()), self._port))
        except UnusableList as fault:
            audience.troubled(f"{self.label}: {fault}")
            return
        audience.heard(listed, "" if self._slices else f"{self.label}: no EndpointSlice is there")

    async def _list(self, client: httpx.AsyncClient) -> str:
        """Read every slice; the version to watch from."""
        slices: dict[str, EndpointSlice] = {}
        asked = {**self._selector, "limit": str(LIST_PART)}
        while True:
            response = await client.get(
                self._path, params=asked, headers=self._credential(), timeout=LIST_S
            )
            _check(response.status_code, response.content)
            part = _decode(response.content, EndpointSliceList)
            slices |= {one.metadata.name: one for one in part.items or ()}
            if not part.metadata.next_part:
                break
            asked["continue"] = part.metadata.next_part
        self._slices = slices
        return part.metadata.resource_version

    async def _keep_watching(
        self, client: httpx.AsyncClient, version: str, audience: Audience
    ) -> None:
        """Watch, and watch again from where the server ended it. Never returns."""
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            version = await self._watch(client, version, audience)
            if loop.time() - begun_s < SHORT_WATCH_S:
                await asyncio.sleep(SHORT_WATCH_S)

    async def _watch(self, client: httpx.AsyncClient, version: str, audience: Audience) -> str:
        """One watch; the version it came to."""
        asked = {
            **self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        timeout = httpx.Timeout(LIST_S, read=WATCH_S + WATCH_SLACK_S)
        async with client.stream(
            "GET", self._path, params=asked, headers=self._credential(), timeout=timeout
        ) as response:
            if response.status_code != 200:
                _check(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if line:
                    event = _decode(line.encode(), _Event)
                    version = self._take(event, audience) or version
        return version

    def _take(self, event: _Event, audience: Audience) -> str:
        """Apply one event; the version it carries. Raises _Expired, _Refused."""
        if event.type == "ERROR":
            status = _decode(bytes(event.object), _Status)
            _check(status.code or 500, bytes(event.object))
        one = _decode(bytes(event.object), EndpointSlice)
        if event.type in ("ADDED", "MODIFIED"):
            self._slices[one.metadata.name] = one
            self._tell(audience)
        elif event.type == "DELETED":
            self._slices.pop(one.metadata.name, None)
            self._tell(audience)
        # BOOKMARK, and what a later release may add: a version, and nothing else.
        return one.metadata.resource_version

    def _credential(self) -> dict[str, str]:
        token = self._cluster.token_file.read_text().strip()
        return {"authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        """One a life: the authority is rotated too. No proxy may see the token."""
        tls = ssl.create_default_context(cafile=str(self._cluster.authority_file))
        async with httpx.AsyncClient(
            base_url=self._cluster.url, verify=tls, trust_env=False
        ) as client:
            yield client


def _check(status: int, body: bytes) -> None:
    """Raise what a status that is no success means."""
    if status == _GONE:
        raise _Expired
    if status >= 300:
        try:
            said = msgspec.json.decode(body, type=_Status).message
        except msgspec.MsgspecError:
            said = ""
        hint = _HINTS.get(status) or said[:200] or "no reason given"
        raise _Refused(f"the API server answered {status}: {hint}")


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as fault:
        raise _Refused(f"the API server's answer is not understood: {fault}") from None


def _said(fault: Exception) -> str:
    return str(fault) or type(fault).__name__
