"""docker-agent through the gateway (`docs/docker-agent.md`), as its sources say it behaves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.e2e.docker_agent import FIXED, TITLE, Conversation, DockerAgent, text_of
from tests.e2e.plain import Received, Upstream, upstream
from tests.e2e.processes import Gateway, Simulated, gateway_process, simulator_process

CONFIGURATION = """
[[upstream]]
name = "first"
url = "{first}"

[[upstream]]
name = "second"
url = "{second}/v1"

[[upstream]]
name = "keyed"
url = "{keyed}"
api_key_file = "{key_file}"

[[upstream]]
name = "onwards"
url = "{keyed}/onwards"
kind = "gateway"
identity_out = "cagent"
"""
OURS = "sk-clews-own"
"""The key Clew holds for the upstream ``keyed``."""
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def first() -> Iterator[Simulated]:
    """The provider that takes what no header directs."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[Simulated]:
    """A provider that only ``X-Cagent-Forward`` reaches."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def recording() -> Iterator[Upstream]:
    """A provider that keeps what it got, byte for byte."""
    with upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    first: Simulated,
    second: Simulated,
    recording: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway as installed, before all of them."""
    directory = tmp_path_factory.mktemp("docker-agent")
    (directory / "key").write_text(f"{OURS}\n")
    configuration = CONFIGURATION.format(
        first=first.url, second=second.url, keyed=recording.url, key_file=directory / "key"
    )
    with gateway_process(directory, configuration) as running:
        yield running


@pytest.fixture
def agent(gateway: Gateway, second: Simulated) -> DockerAgent:
    """An agent whose model has ``base_url`` at the second provider."""
    return DockerAgent(gateway.url, f"{second.url}/v1")


def kinds(gateway: Gateway, session: str) -> list[str]:
    """The kinds of a session's calls, sorted."""
    found = gateway.admin(f"/api/v1/sessions/{session}/requests")["items"]
    return sorted(record["kind"] for record in found)


def last_flags(gateway: Gateway, session: str) -> list[str]:
    """The flags of a session's newest call."""
    return list(gateway.admin(f"/api/v1/sessions/{session}/requests")["items"][0]["flags"])


def test_a_conversation_is_the_session_of_its_own_id(gateway: Gateway, agent: DockerAgent) -> None:
    """Turns, and a restart that resumes by ``--session``, are one session under the agent's id."""
    talk = Conversation(agent)
    answers = [talk.say("Sort the maps of the harbour."), talk.say("Now by scale.")]
    resumed = Conversation(
        DockerAgent(agent.gateway, agent.forward), talk.session, list(talk.history)
    )
    answers.append(resumed.say("And by year."))

    assert [one.headers["x-clew-resolution"] for one in answers] == ["new", "exact", "exact"]
    assert {one.headers["x-clew-source"] for one in answers} == {"cagent"}
    assert {one.headers["x-clew-session-id"] for one in answers} == {talk.session}
    session = gateway.admin(f"/api/v1/sessions/{talk.session}")
    assert (session["client"], session["requests"]) == ("Cagent/v1.88.0", 3)


@pytest.mark.parametrize(
    ("is_forwarded", "has_id", "source", "flagged"),
    [
        (True, True, "cagent", False),
        (True, False, "lineage", False),
        (False, True, "lineage", True),
        (False, False, "lineage", False),
    ],
    ids=["both", "forward-alone", "id-alone", "neither"],
)
def test_the_id_counts_only_beside_the_forward(
    gateway: Gateway,
    second: Simulated,
    *,
    is_forwarded: bool,
    has_id: bool,
    source: str,
    flagged: bool,
) -> None:
    """docker-agent sends both or none; an id alone is another program's, ignored and flagged."""
    session = f"gate-{is_forwarded}-{has_id}"
    more = {"X-Cagent-Session-Id": session} if has_id else {}
    if is_forwarded:
        more["X-Cagent-Forward"] = f"{second.url}/v1"
    text = f"The gate of {session}."
    answer = DockerAgent(gateway.url).chat([{"role": "user", "content": text}], **more)

    assert answer.headers["x-clew-source"] == source
    is_named = answer.headers["x-clew-session-id"] == session
    assert is_named == (is_forwarded and has_id)
    flags = last_flags(gateway, answer.headers["x-clew-session"])
    assert ("cagent_without_forward" in flags) == flagged


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_forward_selects_a_configured_upstream(
    gateway: Gateway, second: Simulated, suffix: str
) -> None:
    """By origin and base path; a trailing slash and ``/v1`` make no difference."""
    agent = DockerAgent(gateway.url, f"{second.url}{suffix}")
    before = len(second.calls())
    answer = agent.chat(HELLO, f"selects-{suffix.count('/')}-{'v1' in suffix}")

    assert answer.status_code == 200
    assert len(second.calls()) == before + 1
    assert second.requests()[-1]["target"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    "forward",
    [
        "https://api.openai.com/v1",
        "{second}/v2",
        "{second}/v1/v1",
        "{second}.example.com",
        "http://user@{authority}",
        "ftp://{authority}",
        "https://{authority}",
        "{second}?x=1",
        "{second}#x",
        "second",
        "//{authority}",
        "http://[",
    ],
)
@pytest.mark.parametrize("session", ["", "s-1"], ids=["without-id", "with-id"])
def test_an_unknown_forward_is_refused(
    gateway: Gateway, second: Simulated, first: Simulated, forward: str, session: str
) -> None:
    """The client never chooses a host: nothing is sent anywhere, and no retry can help."""
    authority = second.url.removeprefix("http://")
    agent = DockerAgent(gateway.url, forward.format(second=second.url, authority=authority))
    before = len(first.requests()), len(second.requests())
    answer = agent.chat(HELLO, session)

    assert (answer.status_code, answer.headers["x-clew-error"]) == (400, "forward_not_allowed")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["code"] == "forward_not_allowed"
    assert (len(first.requests()), len(second.requests())) == before


def test_two_forwards_are_refused(gateway: Gateway, first: Simulated, second: Simulated) -> None:
    """Nobody guesses which of two is meant."""
    headers = [("x-cagent-forward", first.url), ("x-cagent-forward", second.url)]
    body = {"model": "gpt-5", "messages": HELLO}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)

    assert (answer.status_code, answer.headers["x-clew-error"]) == (400, "forward_not_allowed")


def test_a_gateway_with_a_path_names_the_upstream_too(
    gateway: Gateway, first: Simulated, second: Simulated
) -> None:
    """``--models-gateway URL/u/NAME`` agrees with the forward or is refused."""
    agreeing = DockerAgent(f"{gateway.url}/u/second", f"{second.url}/v1").chat(HELLO, "by-path")
    differing = DockerAgent(f"{gateway.url}/u/second", first.url).chat(HELLO, "by-path")

    assert agreeing.headers["x-clew-session-id"] == "by-path"
    assert differing.headers["x-clew-error"] == "forward_not_allowed"


def test_every_provider_of_one_agent_is_one_session(
    gateway: Gateway, first: Simulated, second: Simulated
) -> None:
    """A model that is switched mid-session changes dialect and upstream, not the session."""
    names = [
        DockerAgent(gateway.url, f"{second.url}/v1").chat(HELLO, "switching"),
        DockerAgent(gateway.url, f"{first.url}/").messages(HELLO, "switching"),
        DockerAgent(gateway.url, first.url).gemini("hello", "switching"),
    ]

    assert [one.status_code for one in names] == [200, 200, 200]
    assert len({one.headers["x-clew-session"] for one in names}) == 1
    records = gateway.admin("/api/v1/sessions/switching/requests")["items"]
    assert sorted(record["upstream"] for record in records) == ["first", "first", "second"]


@pytest.mark.parametrize("order", ["before", "after", "beside"])
def test_a_title_is_a_call_of_its_session(gateway: Gateway, agent: DockerAgent, order: str) -> None:
    """Whenever it comes; the agent starts it beside the first turn."""
    talk = Conversation(agent)
    text = f"Draw up the inventory, {order} the title."
    steps = {"before": (talk.title, talk.say), "after": (talk.say, talk.title)}
    if order == "beside":
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda step: step(text), (talk.title, talk.say)))
    else:
        answers = [step(text) for step in steps[order]]

    assert {one.headers["x-clew-session-id"] for one in answers} == {talk.session}
    assert kinds(gateway, talk.session) == ["title", "turn"]


@pytest.mark.parametrize("order", ["none", "before", "after", "beside"])
def test_a_compaction_under_a_foreign_id_is_its_sessions(
    gateway: Gateway, agent: DockerAgent, order: str
) -> None:
    """Its content tells whose it is, whether or not a title came before the first turn."""
    talk = Conversation(agent)
    opening = f"Catalogue the globes of the upper gallery, {order}."
    if order == "before":
        talk.title(opening)
    if order == "beside":
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda step: step(opening), (talk.title, talk.say)))
    else:
        talk.say(opening)
    if order == "after":
        talk.title(opening)
    talk.say("Which of them is the oldest?")
    talk.say("Who made it?")
    compacted = talk.compact(kept=2)
    after = talk.say("Go on with the next one.")

    assert compacted.headers["x-clew-session-id"] == talk.session
    assert compacted.headers["x-clew-source"] == "lineage"
    assert after.headers["x-clew-session-id"] == talk.session
    assert kinds(gateway, talk.session).count("compaction") == 1
    aliases = gateway.admin(f"/api/v1/sessions/{talk.session}")["aliases"]
    assert [alias["value"] for alias in aliases] == [talk.session]


@pytest.mark.parametrize("kept", [0, 2])
def test_every_further_compaction_is_its_sessions(
    gateway: Gateway, agent: DockerAgent, kept: int
) -> None:
    """The beginning of the conversation is gone by then; what followed the last one is not."""
    talk = Conversation(agent)
    talk.say(f"Restore the clocks of the tower, {kept} kept.")
    for number in range(3):
        talk.say(f"What of the wheel {number}?")
        talk.say(f"And of the spring {number}?")
        compacted = talk.compact(kept)

        assert compacted.headers["x-clew-session-id"] == talk.session, number
    assert "id_shared_by_threads" not in {
        flag
        for record in gateway.admin(f"/api/v1/sessions/{talk.session}/requests")["items"]
        for flag in record["flags"]
    }


def test_compactions_of_two_sessions_that_begin_alike_stay_apart(
    gateway: Gateway, agent: DockerAgent
) -> None:
    """Two windows with the same first question: each summary is its own session's."""
    talks = [Conversation(agent), Conversation(agent)]
    for talk in talks:
        talk.say("Please sort the letters.")
        talk.say("Go on.")

    found = [talk.compact().headers["x-clew-session-id"] for talk in talks]
    assert found == [talk.session for talk in talks]


def test_a_member_of_the_team_is_a_child(
    gateway: Gateway, agent: DockerAgent, second: Simulated
) -> None:
    """A transferred task runs under an id of its own, without a parent header: content links it."""
    task = "Measure the depth of the eastern basin and report it in fathoms."
    call: dict[str, Any] = {
        "name": "transfer_task",
        "arguments": {"agent": "surveyor", "task": task},
    }
    parent, child = Conversation(agent), Conversation(agent)
    second.script({"tool_call": call})
    parent.say("Have the eastern basin measured.")
    answer = child.say(f"Please proceed. Your task: {task}")

    session = gateway.admin(f"/api/v1/sessions/{child.session}")
    assert answer.headers["x-clew-session-id"] == child.session
    assert session["parent_id"] == gateway.admin(f"/api/v1/sessions/{parent.session}")["id"]


def test_models_are_listed_without_any_header(gateway: Gateway, first: Simulated) -> None:
    """The model picker asks the gateway itself; the call belongs to no session."""
    answer = DockerAgent(f"{gateway.url}?tier=pro").models()

    assert answer.json()["data"]
    assert answer.headers["x-clew-resolution"] == "unattributed"
    assert "x-clew-source" not in answer.headers
    assert first.requests()[-1]["target"] == "/v1/models?tier=pro"


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("?tier=pro", "alt=sse&tier=pro"),
        ("?tier=pro&tier=team", "alt=sse&tier=pro&tier=team"),
        ("?note=a%20b%26c", "alt=sse&note=a+b%26c"),
    ],
)
def test_query_parameters_are_kept(
    gateway: Gateway, first: Simulated, query: str, sent: str
) -> None:
    """The gateway's own go onto every call, repeated ones too, and on to the provider."""
    agent = DockerAgent(f"{gateway.url}{query}", f"{first.url}/")
    agent.gemini("hello", "querying").raise_for_status()

    path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent"
    assert first.requests()[-1]["target"] == f"{path}?{sent}"


def _sent(recording: Upstream, answer: httpx.Response) -> Received:
    assert answer.status_code == 200, answer.text
    return recording.received[-1]


def test_the_provider_sees_nothing_of_it_and_the_key_is_clews(
    gateway: Gateway, recording: Upstream
) -> None:
    """No ``X-Cagent`` header and no Docker token reach it, only the call as it was made."""
    agent = DockerAgent(f"{gateway.url}?tier=pro", recording.url, token="docker-token")
    sent = _sent(recording, agent.chat(HELLO, "hidden", **TITLE))

    names = {name.lower() for name, _ in sent.headers}
    assert not {name for name in names if name.startswith("x-cagent-")}
    assert sent.get("authorization") == f"Bearer {OURS}"
    assert "docker-token" not in str(sent.headers)
    assert sent.get("user-agent") == "Cagent/v1.88.0 (linux; amd64)"


def test_a_gateway_behind_gets_the_whole_family(gateway: Gateway, recording: Upstream) -> None:
    """``identity_out = "cagent"``: the session is Clew's word, all else as the agent sent it."""
    agent = DockerAgent(gateway.url, f"{recording.url}/onwards")
    answer = agent.chat(HELLO, "further-on", **TITLE)
    sent = _sent(recording, answer)

    got = {name.lower(): value for name, value in sent.headers}
    wanted = {name.lower(): value for name, value in (FIXED | TITLE).items()}
    assert wanted.items() <= got.items()
    assert got["x-cagent-session-id"] == answer.headers["x-clew-session-id"] == "further-on"
    assert sum(name.lower() == "x-cagent-session-id" for name, _ in sent.headers) == 1


def test_an_answer_passes_as_the_provider_gave_it(agent: DockerAgent) -> None:
    """A stream ends with its terminator, and its text is whole."""
    answer = agent.chat(HELLO, "whole")

    assert answer.text.rstrip().endswith("data: [DONE]")
    assert text_of(answer).startswith("Reply ")
