"""Programs as users of each framework write them, with nothing of Clew but the sessions.

Run as ``python -m tests.sdk.programs NAME URL RUN``: in the session RUN one call, in its child
``researcher`` one streamed call, and one title call of RUN. Every other host than loopback is
unreachable to them, and each is a process of its own: what it imports and warns is its own.
"""

# ruff: noqa: PLC0415  # each program imports only what its users import

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import clew

WORDS = "Tell me of the labyrinth."
GPT, CLAUDE = "gpt-5", "claude-haiku-4-5"
KEY = "sk-test"
ASKED: Any = [{"role": "user", "content": WORDS}]


def over_openai(url: str, run: clew.Session) -> None:
    """The official SDK, chat and responses."""
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY)
    with run:
        client.chat.completions.create(model=GPT, messages=ASKED)
        with run.child("researcher"):
            for _ in client.responses.create(model=GPT, input=WORDS, stream=True):
                pass
        with clew.kind("title"):
            client.chat.completions.create(model=GPT, messages=ASKED)


def over_openai_async(url: str, run: clew.Session) -> None:
    """The same, asynchronous, its child in a task beside it."""
    import openai

    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)

    async def research() -> None:
        async with run.child("researcher"):
            chunks = await client.chat.completions.create(model=GPT, messages=ASKED, stream=True)
            async for _ in chunks:
                pass

    async def main() -> None:
        async with run:
            task = asyncio.create_task(research())
            await client.responses.create(model=GPT, input=WORDS)
            await task
            with clew.kind("title"):
                await client.responses.create(model=GPT, input=WORDS)

    asyncio.run(main())


def over_anthropic(url: str, run: clew.Session) -> None:
    """The official SDK."""
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="sk-ant-test")
    with run:
        client.messages.create(model=CLAUDE, max_tokens=64, messages=ASKED)
        with (
            run.child("researcher"),
            client.messages.stream(model=CLAUDE, max_tokens=64, messages=ASKED) as stream,
        ):
            stream.get_final_message()
        with clew.kind("title"):
            client.messages.create(model=CLAUDE, max_tokens=64, messages=ASKED)


def over_langchain(url: str, run: clew.Session) -> None:
    """LangChain's OpenAI chat model, its child in another thread."""
    from langchain_core.runnables import RunnableLambda
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=GPT, base_url=f"{url}/v1", api_key=KEY)  # type: ignore[arg-type]  # it wraps the text itself

    @run.child("researcher")
    def research(words: str) -> str:
        return "".join(str(part.content) for part in model.stream(words))

    with run:
        model.invoke(WORDS)
        RunnableLambda(research).batch([WORDS])
        with clew.kind("title"):
            model.invoke(WORDS)


def over_litellm(url: str, run: clew.Session) -> None:
    """LiteLLM, one provider each over its own clients, sync and async."""
    import litellm

    openai: dict[str, Any] = {"model": f"openai/{GPT}", "base_url": f"{url}/v1", "api_key": KEY}
    claude: dict[str, Any] = {"model": f"anthropic/{CLAUDE}", "base_url": url, "api_key": KEY}

    async def title() -> None:
        with clew.kind("title"):
            await litellm.acompletion(messages=ASKED, **claude)

    with run:
        litellm.completion(messages=ASKED, **openai)
        with run.child("researcher"):
            for _ in litellm.completion(messages=ASKED, stream=True, **claude):
                pass
        asyncio.run(title())


def over_pydantic_ai(url: str, run: clew.Session) -> None:
    """Pydantic AI, an agent of each provider."""
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    lead = Agent(OpenAIChatModel(GPT, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)))
    scout = Agent(
        AnthropicModel(CLAUDE, provider=AnthropicProvider(base_url=url, api_key="sk-ant-test"))
    )

    async def main() -> None:
        async with run:
            await lead.run(WORDS)
            async with run.child("researcher"), scout.run_stream(WORDS) as streamed:
                await streamed.get_output()
            with clew.kind("title"):
                await lead.run(WORDS)

    asyncio.run(main())


def over_openai_agents(url: str, run: clew.Session) -> None:
    """The OpenAI Agents SDK, over responses."""
    from agents import Agent, OpenAIResponsesModel, Runner
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)
    agent = Agent(name="lead", model=OpenAIResponsesModel(GPT, openai_client=client))

    async def research() -> None:
        async with run.child("researcher"):
            async for _ in Runner.run_streamed(agent, WORDS).stream_events():
                pass

    async def main() -> None:
        async with run:
            await Runner.run(agent, WORDS)
            await research()
            with clew.kind("title"):
                await Runner.run(agent, WORDS)

    asyncio.run(main())


def without_the_sdk() -> None:
    """A program that has not heard of Clew: one call by each official SDK."""
    import anthropic
    import openai

    openai.OpenAI(api_key=KEY).chat.completions.create(model=GPT, messages=ASKED)
    claude = anthropic.Anthropic(api_key="sk-ant-test")
    claude.messages.create(model=CLAUDE, max_tokens=64, messages=ASKED)


PROGRAMS: dict[str, Callable[[str, clew.Session], None]] = {
    "openai": over_openai,
    "openai-async": over_openai_async,
    "anthropic": over_anthropic,
    "langchain-openai": over_langchain,
    "litellm": over_litellm,
    "pydantic-ai": over_pydantic_ai,
    "openai-agents": over_openai_agents,
}

NOTHING_OUTSIDE = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    # What the frameworks themselves would fetch or report.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
}


def main() -> None:
    """Instrument first, as a program does, then run one; without arguments the one without."""
    os.environ.update(NOTHING_OUTSIDE)
    if not sys.argv[1:]:
        without_the_sdk()
        return
    name, url, run = sys.argv[1:]
    clew.instrument(url)
    PROGRAMS[name](url, clew.session(run))


if __name__ == "__main__":
    main()
