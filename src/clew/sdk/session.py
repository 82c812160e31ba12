"""A session as the program sees it: a value to be inside of, and what its calls carry.

Being inside travels with the context (`contextvars`): into tasks by itself, into threads by
`clew.carry`. What a call carries are the canonical headers, nothing else (`clew.headers`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, ParamSpec, TypeVar, get_args

from clew.headers import CLEW_KIND, PARENT_SESSION_ID, SESSION_FINAL, SESSION_ID
from clew.sdk.environment import PARENT_VARIABLE, child_environment, parent_named_by
from clew.sdk.identifiers import below, checked, minted
from clew.sdk.process import PROCESS
from clew.sdk.wrapping import wrapped

if TYPE_CHECKING:
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")

Kind = Literal["turn", "subagent", "title", "summary", "compaction", "side", "other"]
"""What a call is for; without one the gateway says turn, or subagent below a parent."""
KINDS: Final[tuple[str, ...]] = get_args(Kind)


class _Entered(NamedTuple):
    """One ``with`` that this context is inside of."""

    session: Session | None
    by: object
    """What was entered: a mis-nested exit leaves the others alone."""
    thread: int
    below: _Entered | None


_ENTERED: Final[ContextVar[_Entered | None]] = ContextVar("clew_session", default=None)


def enter(session: Session | None, by: object) -> None:
    """Be inside ``session`` in this context until `leave` of the same ``by``."""
    _ENTERED.set(_Entered(session, by, PROCESS.enter(), _ENTERED.get()))


def leave(by: object) -> None:
    """Be where ``by`` was entered, also out of what was entered after it and not left.

    Left in another context than entered, or twice, it changes nothing.
    """
    found = _ENTERED.get()
    passed: list[_Entered] = []
    while found is not None:
        passed.append(found)
        if found.by is by:
            _ENTERED.set(found.below)
            for one in passed:
                PROCESS.leave(one.thread)
            return
        found = found.below


def current() -> Session | None:
    """The session this code runs in; None outside of any.

    >>> import clew
    >>> with clew.session("run-42"):
    ...     clew.current().id
    'run-42'
    >>> clew.current() is None
    True
    """
    found = _ENTERED.get()
    return found.session if found is not None else None


class _Life:
    """What all views of one session share."""

    __slots__ = ("is_final",)

    def __init__(self) -> None:
        self.is_final = False


class Session:
    """One thread of work: a value, made by `clew.session` and `Session.child`, not by hand.

    Use it as ``with`` or ``async with``, any number of times, also nested and in many tasks or
    threads at once; or as a decorator of functions, coroutine functions and generators.

    >>> import clew
    >>> run = clew.session("run-42")
    >>> with run:
    ...     clew.headers()
    {'x-dynamo-session-id': 'run-42'}
    """

    # No dataclass: importing `dataclasses` would be most of what `import clew` costs.
    __slots__ = ("_call_kind", "_id", "_is_minted", "_life", "_parent")

    def __init__(
        self,
        session_id: str,
        parent: str = "",
        call_kind: str = "",
        *,
        is_minted: bool = False,
        life: _Life | None = None,
    ) -> None:
        self._id = session_id
        self._parent = parent
        self._call_kind = call_kind
        self._is_minted = is_minted
        self._life = _Life() if life is None else life

    @property
    def id(self) -> str:
        """The session's id: what `x-dynamo-session-id` says."""
        return self._id

    @property
    def parent(self) -> str:
        """The parent's id; empty for a root."""
        return self._parent

    @property
    def call_kind(self) -> str:
        """What calls of this view are for (one of `KINDS`); empty: as the gateway judges."""
        return self._call_kind

    @property
    def is_final(self) -> bool:
        """Whether `final` was called: calls say that they are the session's last."""
        return self._life.is_final

    def headers(self) -> dict[str, str]:
        """What a call of this session carries: a new dictionary, names in lower case.

        >>> import clew
        >>> clew.session("run-42").child("researcher").kind("title").headers()
        ... # doctest: +NORMALIZE_WHITESPACE
        {'x-dynamo-session-id': 'run-42/researcher',
         'x-dynamo-parent-session-id': 'run-42',
         'x-clew-kind': 'title'}
        """
        found = {SESSION_ID: self._id}
        if self._parent:
            found[PARENT_SESSION_ID] = self._parent
        if self._call_kind:
            found[CLEW_KIND] = self._call_kind
        if self._life.is_final:
            found[SESSION_FINAL] = "true"
        return found

    def child(self, name: str | None = None) -> Session:
        """A session below this one: a subagent, a planner, a tool that thinks for itself.

        The same name is the same session, also after a restart; without a name every call makes
        a new one. Raises ValueError when the name cannot be part of an id.

        >>> import clew
        >>> run = clew.session("run-42")
        >>> run.child("researcher")
        Session('run-42/researcher', parent='run-42')
        >>> run.child().id == run.child().id
        False
        """
        return Session(below(self.id, name if name is not None else minted()), self.id)

    def kind(self, name: Kind) -> Session:
        """This session for calls beside its turns: title, summary, compaction, side …

        The session stays the same one, final or not. Raises ValueError for an unknown kind.

        >>> import clew
        >>> with clew.session("run-42").kind("title"):
        ...     clew.headers()
        {'x-dynamo-session-id': 'run-42', 'x-clew-kind': 'title'}
        """
        return Session(self.id, self.parent, checked_kind(name), life=self._life)

    def final(self) -> Session:
        """Calls from now on say that they are the session's last; the gateway then closes it.

        Call it before the last call, alone or as ``with run.final():``. A call that fails leaves
        the session open, and its retry says the same again. Children are not touched.

        >>> import clew
        >>> with clew.session("run-42") as run:
        ...     with run.final():
        ...         clew.headers()
        {'x-dynamo-session-id': 'run-42', 'x-dynamo-session-final': 'true'}
        """
        self._life.is_final = True
        return self

    def environ(
        self, base: Mapping[str, str] | None = None, *, gateway: str | None = None
    ) -> dict[str, str]:
        """The environment for a child process whose sessions shall hang below this one.

        ``base`` is what it starts from (default: this process's environment). The result names
        the parent to programs that use this SDK and to agents that can be given a header by
        environment, and points their base URLs at the gateway unless they are set; an agent that
        is pointed elsewhere is given nothing. ``gateway`` is the gateway's URL; default: the first
        that `clew.instrument` or ``CLEW_GATEWAY`` names. Without any, agents get nothing and a
        `clew.ClewWarning` says so. Which agent reads what: `docs/sdk.md`.

        >>> import clew
        >>> run = clew.session("run-42")
        >>> found = run.environ({}, gateway="http://127.0.0.1:2539")
        >>> found["ANTHROPIC_BASE_URL"], found["ANTHROPIC_CUSTOM_HEADERS"]
        ('http://127.0.0.1:2539', 'X-Clew-Parent: canonical:run-42')
        """
        return child_environment(self.id, os.environ if base is None else base, gateway)

    def __enter__(self) -> Session:
        enter(self, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        leave(self)

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        leave(self)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, each call of it inside this session.

        A session without a name of its own (``@clew.session()``) is another one each call.

        >>> import clew
        >>> @clew.session("run-42").child("researcher")
        ... def research():
        ...     return clew.current().id
        >>> research()
        'run-42/researcher'
        """
        return wrapped(function, self._again if self._is_minted else self._same)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Session) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = [repr(self._id)]
        if self._parent:
            shown.append(f"parent={self._parent!r}")
        if self._call_kind:
            shown.append(f"call_kind={self._call_kind!r}")
        return f"Session({', '.join(shown)})"

    def _values(self) -> tuple[str, str, str]:
        return self._id, self._parent, self._call_kind

    def _same(self) -> Session:
        return self

    def _again(self) -> Session:
        return Session(minted(), self.parent, self.call_kind)


def checked_kind(name: str) -> str:
    """The kind itself. Raises ValueError for one that the gateway does not know."""
    if name not in KINDS:
        raise ValueError(f"{name!r} is no kind of call; one of {', '.join(KINDS)}")
    return name


def session(session_id: str | None = None, *, parent: Session | str | None = None) -> Session:
    """A session by its id, the same one wherever and whenever the same id is named.

    ``session_id`` is 1 to 256 of ``A-Z a-z 0-9 . _ : / @ + = ~ -``; without it a random one is
    made. ``parent`` is the session it hangs below, default: the one that started this process
    with `Session.environ`, if any. A session inside another's ``with`` is not its child; that is
    `Session.child`. Raises ValueError when an id cannot name a session.

    >>> import clew
    >>> with clew.session("run-42") as run:
    ...     run.id, run.parent
    ('run-42', '')
    """
    if parent is None:
        above = parent_named_by(os.environ.get(PARENT_VARIABLE, ""))
    else:
        above = parent.id if isinstance(parent, Session) else checked(parent)
    found = minted() if session_id is None else checked(session_id)
    return Session(found, "" if above == found else above, is_minted=session_id is None)


def headers() -> dict[str, str]:
    """What a call of the current session carries, for clients that are not instrumented.

    A new dictionary, empty outside of any session. Nobody checks where it is sent.

    >>> import clew
    >>> clew.headers()
    {}
    >>> with clew.session("run-42").child("researcher"):
    ...     clew.headers()
    {'x-dynamo-session-id': 'run-42/researcher', 'x-dynamo-parent-session-id': 'run-42'}
    """
    found = current()
    return found.headers() if found is not None else {}


class kind:  # noqa: N801  # used as a function; a class because it is entered and decorates
    """Calls inside are of this kind, in whatever session they are made; outside of any: nothing.

    Raises ValueError for an unknown kind.

    >>> import clew
    >>> @clew.kind("summary")
    ... def summarise():
    ...     return clew.headers()
    >>> with clew.session("run-42"):
    ...     summarise()
    {'x-dynamo-session-id': 'run-42', 'x-clew-kind': 'summary'}
    """

    __slots__ = ("_name",)

    def __init__(self, name: Kind) -> None:
        self._name: Any = checked_kind(name)

    def __enter__(self) -> Session | None:
        found = current()
        view = found.kind(self._name) if found is not None else None
        enter(view, self)
        return view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        leave(self)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, its calls of this kind."""
        return wrapped(function, lambda: self)
