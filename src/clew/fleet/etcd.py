"""A small client of etcd's v3 API over its JSON gateway: keys, transactions, leases, watches.

What a caller may rely on:

- Reads are linearizable. A call goes to the endpoint that answered last and, when that one cannot,
  to the others in turn; so a write may be carried out twice, and a transaction that compares what
  it changes is the way to write.
- Whatever keeps an answer away is `EtcdUnavailable`, within ``timeout_s`` an endpoint. What etcd
  itself refuses is `EtcdRefused` or one of its kinds.
- A watch is begun again at the revision it had come to when nothing was heard for ``silence_s``:
  a connection that died unseen shows only so. History that was compacted away is `Compacted`.

Source: https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import httpx
import msgspec

TIMEOUT_S: Final = 2.0
"""How long one endpoint may take to answer; a healthy one takes milliseconds."""
SILENCE_S: Final = 10.0
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""A watch message: etcd splits batches at its own request bound (1.5 MiB by default)."""

UNAUTHENTICATED: Final = 16
_UNAVAILABLE_CODES: Final = frozenset({1, 4, 8, 14})
"""gRPC: cancelled, deadline exceeded, resource exhausted, unavailable (no leader)."""


class EtcdError(Exception):
    """Anything that went wrong between here and etcd."""


class EtcdUnavailable(EtcdError):  # noqa: N818  says what is, as the error codes do
    """No endpoint answered in time."""


class EtcdRefused(EtcdError):  # noqa: N818  says what is, as the error codes do
    """Etcd answered with an error. ``code`` is gRPC's."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"etcd: {message} (code {code})")


class LeaseGone(EtcdRefused):
    """The lease has expired or was revoked."""


class LeaseExists(EtcdRefused):
    """A lease of this id is there already."""


class Compacted(EtcdRefused):
    """The revision asked for was compacted away: read everything anew."""


_KINDS: Final[tuple[tuple[str, type[EtcdRefused]], ...]] = (
    ("requested lease not found", LeaseGone),
    ("lease already exists", LeaseExists),
    ("has been compacted", Compacted),
)


class Row(msgspec.Struct, frozen=True):
    """One key as etcd has it."""

    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: int = 0


class _Header(msgspec.Struct, frozen=True):
    revision: int = 0


class Rows(msgspec.Struct, frozen=True):
    """The answer to a range: rows, and the store's revision when they were read."""

    header: _Header = _Header()
    kvs: tuple[Row, ...] = ()
    count: int = 0
    more: bool = False

    @property
    def revision(self) -> int:
        """The store's revision at the reading."""
        return self.header.revision


class _Response(msgspec.Struct, frozen=True):
    response_range: Rows = Rows()


class Outcome(msgspec.Struct, frozen=True):
    """The answer to a transaction; ``ranges`` are those of the branch that was carried out."""

    header: _Header = _Header()
    succeeded: bool = False
    responses: tuple[_Response, ...] = ()

    @property
    def revision(self) -> int:
        """The store's revision after the transaction."""
        return self.header.revision

    def rows(self, index: int) -> tuple[Row, ...]:
        """What the range at this place of the branch read."""
        return self.responses[index].response_range.kvs


class Change(msgspec.Struct, frozen=True):
    """One key changed; of a deletion ``row`` has the key and the revision only."""

    row: Row
    is_deleted: bool = False


class Changes(msgspec.Struct, frozen=True):
    """What a watch says: changes in their order, and the revision they lead to."""

    revision: int
    changes: tuple[Change, ...]
    is_reset: bool = False
    """`Etcd.follow`: ``changes`` are all rows there are, and everything known before is void."""


class _WireEvent(msgspec.Struct, frozen=True):
    kv: Row
    type: str = "PUT"


class _WireWatch(msgspec.Struct, frozen=True):
    header: _Header = _Header()
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[_WireEvent, ...] = ()


class _WireError(msgspec.Struct, frozen=True):
    message: str = ""
    code: int = 2
    error: Any = None

    def refusal(self) -> EtcdRefused:
        """As an exception: JSON's ``error`` is a text in answers, an object in streams."""
        inner = self.error if isinstance(self.error, dict) else {}
        message = str(self.message or inner.get("message") or self.error or "unknown error")
        code = int(inner.get("grpc_code", self.code))
        kind = next((kind for text, kind in _KINDS if text in message), EtcdRefused)
        return kind(code, message)


class _WireLine(msgspec.Struct, frozen=True):
    result: _WireWatch = _WireWatch()
    error: Any = None


class _Lease(msgspec.Struct, frozen=True):
    ID: int = 0
    TTL: int = 0


class _Status(msgspec.Struct, frozen=True):
    version: str = ""


class _Members(msgspec.Struct, frozen=True):
    members: tuple[msgspec.Raw, ...] = ()


class _KeptAlive(msgspec.Struct, frozen=True):
    result: _Lease = _Lease()
    error: Any = None


class _Token(msgspec.Struct, frozen=True):
    token: str = ""


class _Done(msgspec.Struct, frozen=True):
    header: _Header = _Header()
    deleted: int = 0


_Answer = TypeVar("_Answer")


class Compare(msgspec.Struct, frozen=True):
    """One condition of a transaction: exactly one of the revisions, which must be equal.

    ``create_revision=0``: the key does not exist.
    """

    key: bytes
    create_revision: int | None = None
    mod_revision: int | None = None

    def wire(self) -> dict[str, Any]:
        """As etcd's JSON has it."""
        if self.create_revision is not None:
            value: dict[str, Any] = {"create_revision": self.create_revision, "target": "CREATE"}
        else:
            value = {"mod_revision": self.mod_revision, "target": "MOD"}
        return {"key": self.key, "result": "EQUAL", **value}


class Put(msgspec.Struct, frozen=True):
    """Write a key, bound to a lease where one is given."""

    key: bytes
    value: bytes
    lease: int = 0

    def wire(self) -> dict[str, Any]:
        """As etcd's JSON has it."""
        return {"request_put": {"key": self.key, "value": self.value, "lease": self.lease}}


class Get(msgspec.Struct, frozen=True):
    """Read a key."""

    key: bytes

    def wire(self) -> dict[str, Any]:
        """As etcd's JSON has it."""
        return {"request_range": {"key": self.key}}


class Delete(msgspec.Struct, frozen=True):
    """Remove a key; one that is not there is no error."""

    key: bytes

    def wire(self) -> dict[str, Any]:
        """As etcd's JSON has it."""
        return {"request_delete_range": {"key": self.key}}


Operation = Put | Get | Delete


class Address(msgspec.Struct, frozen=True):
    """Where etcd is and how it is entered."""

    endpoints: tuple[str, ...]
    user: str = ""
    password: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def read_address(text: str) -> Address:
    """An address as configured: urls divided by commas.

    ``http://[USER:PASSWORD@]HOST:PORT``; the last may end in ``?ca=FILE&cert=FILE&key=FILE``.
    Raises ValueError.
    """
    endpoints: list[str] = []
    user = password = ""
    options: dict[str, list[str]] = {}
    for item in text.split(","):
        parts = urlsplit(item.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address of etcd is http://HOST:PORT, several divided by commas")
        if parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
        options.update(parse_qs(parts.query))
        plain = parts.netloc.rpartition("@")[2]
        endpoints.append(urlunsplit((parts.scheme, plain, parts.path.rstrip("/"), "", "")))
    if unknown := options.keys() - {"ca", "cert", "key"}:
        raise ValueError(f"an address of etcd has no option {min(unknown)!r}: ca, cert, key")
    ca, cert, key = (options.get(name, [""])[-1] for name in ("ca", "cert", "key"))
    return Address(tuple(endpoints), user, password, ca, cert, key)


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind every key that begins with ``prefix``."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"


class Etcd:
    """One client; safe for any number of tasks of one loop. Close it at the end."""

    def __init__(self, address: Address, *, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._current = 0
        self._token = ""
        self._http = httpx.AsyncClient(
            verify=_tls(address),
            timeout=timeout_s,
            trust_env=False,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )

    async def close(self) -> None:
        """Close every connection; running calls fail."""
        await self._http.aclose()

    async def range(
        self, key: bytes, end: bytes = b"", *, limit: int = 0, keys_only: bool = False
    ) -> Rows:
        """One key, or all from ``key`` up to but without ``end``, ascending."""
        asked = {"key": key, "range_end": end, "limit": limit, "keys_only": keys_only}
        return await self._call("/v3/kv/range", asked, Rows)

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int:
        """Write; returns the revision. Raises `LeaseGone`."""
        asked = {"key": key, "value": value, "lease": lease}
        return (await self._call("/v3/kv/put", asked, _Done)).header.revision

    async def delete(self, key: bytes, end: bytes = b"") -> int:
        """Remove one key or a range of them; returns how many there were."""
        asked = {"key": key, "range_end": end}
        return (await self._call("/v3/kv/deleterange", asked, _Done)).deleted

    async def txn(
        self,
        compare: Sequence[Compare],
        then: Sequence[Operation],
        otherwise: Sequence[Operation] = (),
    ) -> Outcome:
        """If every comparison holds do ``then``, else ``otherwise``: one step, seen by all."""
        asked = {
            "compare": [item.wire() for item in compare],
            "success": [item.wire() for item in then],
            "failure": [item.wire() for item in otherwise],
        }
        return await self._call("/v3/kv/txn", asked, Outcome)

    async def grant(self, ttl_s: int, lease: int = 0) -> int:
        """A new lease, of the given id or one of etcd's choice. Raises `LeaseExists`.

        Etcd lengthens a lease below about two seconds.
        """
        return (await self._call("/v3/lease/grant", {"TTL": ttl_s, "ID": lease}, _Lease)).ID

    async def keep_alive(self, lease: int) -> int:
        """Renew; returns the seconds it has now. 0: there is no such lease (any more)."""
        answer = await self._call("/v3/lease/keepalive", {"ID": lease}, _KeptAlive)
        if answer.error is not None:
            raise _WireError(error=answer.error).refusal()
        return answer.result.TTL

    async def standing(self) -> tuple[str, int]:
        """The endpoint's version, and how many members its cluster has."""
        status = await self._call("/v3/maintenance/status", {}, _Status)
        members = await self._call("/v3/cluster/member/list", {}, _Members)
        return status.version, len(members.members)

    async def revoke(self, lease: int) -> None:
        """End a lease and remove its keys. Raises `LeaseGone`."""
        await self._call("/v3/lease/revoke", {"ID": lease}, _Done)

    async def follow(
        self, prefix: bytes, *, silence_s: float = SILENCE_S
    ) -> AsyncIterator[Changes]:
        """Everything below ``prefix``, first as it is (``is_reset``), then as it changes.

        After a compaction, once more as it is. Raises `EtcdUnavailable`; begin again then.
        """
        end = prefix_end(prefix)
        while True:
            rows = await self.range(prefix, end)
            yield Changes(rows.revision, tuple(Change(row) for row in rows.kvs), is_reset=True)
            try:
                async for changes in self.watch(prefix, rows.revision + 1, silence_s=silence_s):
                    yield changes
            except Compacted:
                continue

    async def watch(
        self, prefix: bytes, revision: int = 0, *, silence_s: float = SILENCE_S
    ) -> AsyncIterator[Changes]:
        """Changes below ``prefix`` from ``revision`` on (0: from now), for ever.

        The first `Changes` is empty: the watch is set. Raises `Compacted`, `EtcdUnavailable`.
        """
        asked = {"key": prefix, "range_end": prefix_end(prefix), "progress_notify": True}
        is_first = True
        while True:
            try:
                async for heard in self._listen({**asked, "start_revision": revision}, silence_s):
                    revision = _next_revision(heard, revision)
                    if heard.events or is_first:
                        is_first = False
                        yield _changes(heard, revision - 1)
            except httpx.ReadTimeout:
                continue

    async def _listen(self, asked: dict[str, Any], silence_s: float) -> AsyncIterator[_WireWatch]:
        """One watch connection; `httpx.ReadTimeout` when it fell silent after it was set."""
        content = msgspec.json.encode({"create_request": asked})
        is_set = False
        try:
            request = self._http.build_request(
                "POST",
                self._endpoint + "/v3/watch",
                content=content,
                headers=await self._credentials(),
                timeout=httpx.Timeout(self._timeout_s, read=self._timeout_s + silence_s),
            )
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.send(request, stream=True)
        except (httpx.HTTPError, TimeoutError) as error:
            self._turn()
            raise EtcdUnavailable(f"etcd: no watch: {_said(error)}") from error
        try:
            async for line in _lines(response):
                heard = _read_watch(line)
                is_set = is_set or heard.created
                yield heard
            raise EtcdUnavailable("etcd: the watch was ended")
        except httpx.ReadTimeout:
            if not is_set:
                self._turn()
                raise EtcdUnavailable("etcd: no watch: nothing was heard") from None
            raise
        except httpx.HTTPError as error:
            self._turn()
            raise EtcdUnavailable(f"etcd: the watch broke: {_said(error)}") from error
        finally:
            await response.aclose()

    @property
    def _endpoint(self) -> str:
        return self._address.endpoints[self._current % len(self._address.endpoints)]

    def _turn(self) -> None:
        self._current += 1

    async def _call(self, path: str, asked: dict[str, Any], kind: type[_Answer]) -> _Answer:
        content = msgspec.json.encode(asked)
        last: EtcdError | None = None
        may_authenticate = True
        tries = len(self._address.endpoints)
        while tries:
            tries -= 1
            try:
                return await self._send(path, content, kind)
            except EtcdUnavailable as error:
                last = error
                self._turn()
            except EtcdRefused as error:
                if error.code != UNAUTHENTICATED or not self._address.user or not may_authenticate:
                    raise
                # Tokens run out (five minutes by default): once with a new one.
                may_authenticate, self._token = False, ""
                tries += 1
        assert last is not None
        raise last

    async def _send(self, path: str, content: bytes, kind: type[_Answer]) -> _Answer:
        try:
            # One clock over all: httpx has one for each read, and a trickle would outlast it.
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.post(
                    self._endpoint + path, content=content, headers=await self._credentials()
                )
        except (httpx.HTTPError, TimeoutError) as error:
            raise EtcdUnavailable(f"etcd: {self._endpoint} {_said(error)}") from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.content, response.status_code)
        try:
            return msgspec.json.decode(response.content, type=kind, strict=False)
        except msgspec.DecodeError as error:
            raise EtcdUnavailable("etcd: the answer was not etcd's") from error

    async def _credentials(self) -> dict[str, str]:
        if not self._address.user:
            return {}
        if not self._token:
            asked = {"name": self._address.user, "password": self._address.password}
            response = await self._http.post(
                self._endpoint + "/v3/auth/authenticate", content=msgspec.json.encode(asked)
            )
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.content, response.status_code)
            self._token = msgspec.json.decode(response.content, type=_Token).token
        return {"authorization": self._token}


def _tls(address: Address) -> ssl.SSLContext | bool:
    if not any(endpoint.startswith("https:") for endpoint in address.endpoints):
        return False
    context = ssl.create_default_context(cafile=address.ca_file or None)
    if address.cert_file:
        context.load_cert_chain(address.cert_file, address.key_file or None)
    return context


def _refusal(content: bytes, status: int) -> EtcdError:
    try:
        refusal = msgspec.json.decode(content, type=_WireError, strict=False).refusal()
    except (msgspec.DecodeError, ValueError):
        return EtcdUnavailable(f"etcd: status {status}")
    if refusal.code in _UNAVAILABLE_CODES:
        return EtcdUnavailable(str(refusal))
    return refusal


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    if response.status_code != httpx.codes.OK:
        raise _refusal(await response.aread(), response.status_code)
    pending = bytearray()
    async for data in response.aiter_raw():
        pending += data
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            yield line
        if len(pending) > MAX_LINE_BYTES:
            raise EtcdUnavailable("etcd: a watch message without end")


def _read_watch(line: bytes) -> _WireWatch:
    try:
        read = msgspec.json.decode(line, type=_WireLine, strict=False)
    except msgspec.DecodeError as error:
        raise EtcdUnavailable("etcd: a watch message was not etcd's") from error
    if read.error is not None:
        raise _WireError(error=read.error).refusal()
    heard = read.result
    if heard.compact_revision:
        raise Compacted(11, f"revision before {heard.compact_revision} has been compacted")
    if heard.canceled:
        raise EtcdUnavailable(f"etcd: the watch was ended: {heard.cancel_reason}")
    return heard


def _next_revision(heard: _WireWatch, revision: int) -> int:
    """Where a watch begun again goes on, after this message.

    A message's own revision is the store's: a watch that catches up has not come so far. It says
    how far the watch is where that was set to begin at the present, and in a progress message.
    """
    if heard.events:
        return heard.events[-1].kv.mod_revision + 1
    if heard.created and revision:
        return revision
    return max(revision, heard.header.revision + 1)


def _changes(heard: _WireWatch, revision: int) -> Changes:
    found = tuple(Change(event.kv, event.type == "DELETE") for event in heard.events)
    return Changes(revision, found)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()
