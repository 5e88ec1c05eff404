"""Every kind of call that the OpenAI SDK makes, and what became of each, as one JSON object.

    python3 calls.py URL KEY [forbidden]

URL is an Azure OpenAI resource or a gateway that claims to be like one. Run against both, the
results must be the same: identifiers and times are taken out, everything else is kept. Beside the
results stands the usage that the SDK was told, so that a gateway's report can be held against it.
With `forbidden`, only what becomes of calls that KEY must not make.
"""

import asyncio
import inspect
import json
import re
import sys

import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

API_VERSION = "2024-10-21"
CHAT = "gpt-4o-mini"
EMBEDDING = "text-embedding-3-small"
INSTRUCT = "gpt-35-turbo-instruct"
# Responses are younger than the version above.
RESPONSES_VERSION = "2025-04-01-preview"

# The simulated resource's own words, which a gateway must hand on like any unknown header.
SLOWLY = {"x-simulate": "tokens-per-second=400"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


class Step(BaseModel):
    explanation: str
    output: str


class Solution(BaseModel):
    steps: list[Step]
    final_answer: str


def user(text):
    return [{"role": "user", "content": text}]


async def of(value):
    """What a call of either kind of client answers with."""
    return await value if inspect.isawaitable(value) else value


async def each(stream):
    """All that a stream of either kind of client brings."""
    if hasattr(stream, "__aiter__"):
        return [item async for item in stream]
    return list(stream)


class Books:
    """The usage that the SDK was told, and that of calls whose usage it was not told."""

    def __init__(self):
        self.requests = 0
        self.input_tokens = 0
        self.cached_input_tokens = 0
        self.output_tokens = 0
        self.reasoning_tokens = 0

    def add(self, usage, times=1):
        self.requests += times
        self.input_tokens += times * usage.prompt_tokens
        self.output_tokens += times * (getattr(usage, "completion_tokens", 0) or 0)
        prompt = getattr(usage, "prompt_tokens_details", None)
        completion = getattr(usage, "completion_tokens_details", None)
        self.cached_input_tokens += times * ((prompt and prompt.cached_tokens) or 0)
        self.reasoning_tokens += times * ((completion and completion.reasoning_tokens) or 0)

    def add_response(self, usage):
        self.requests += 1
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cached_input_tokens += usage.input_tokens_details.cached_tokens
        self.reasoning_tokens += usage.output_tokens_details.reasoning_tokens

    def add_nothing(self):
        """A call that the backend refused, or that used nothing."""
        self.requests += 1


VARIABLE = {
    *("id", "created", "tool_call_id", "call_id"),
    *("created_at", "item_id", "previous_response_id", "first_id", "last_id"),
}


def plain(value):
    """A reply without what differs between any two replies."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", warnings=False)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in VARIABLE}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def plain_line(line):
    line = re.sub(r'"(id|call_id)":"[^"]*"', r'"\1":"…"', line)
    return re.sub(r'"created":\d+', '"created":0', line)


async def whole_chats(client, books):
    requests = {
        "plain": dict(model=CHAT, messages=user("Say hello.")),
        "long prompt": dict(model=CHAT, messages=user("Zwölf Boxkämpfer jagen Viktor. 🥊 " * 200)),
        "roles": dict(
            model=CHAT,
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "One?", "name": "alice"},
                {"role": "assistant", "content": "Two."},
                {"role": "user", "content": [{"type": "text", "text": "Three?"}]},
            ],
        ),
        "cut by max_tokens": dict(model=CHAT, messages=user("Count to a hundred."), max_tokens=5),
        "three choices": dict(model=CHAT, messages=user("Three of them."), n=3, temperature=1.0),
        "logprobs": dict(model=CHAT, messages=user("How sure?"), logprobs=True, max_tokens=8),
        "reasoning": dict(model="o4-mini", messages=user("Think."), max_completion_tokens=600),
        "tool": dict(model=CHAT, messages=user("What is the weather in Rome?"), tools=[WEATHER]),
        "tool answered": dict(
            model=CHAT,
            tools=[WEATHER],
            messages=[
                *user("What is the weather in Rome?"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "get_weather", "arguments": '{"city":"Rome","unit":"celsius"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees":31}'},
            ],
        ),
        "json_object": dict(
            model=CHAT, messages=user("Answer in JSON."), response_format={"type": "json_object"}
        ),
        "json_schema": dict(
            model=CHAT,
            messages=user("A point, in JSON."),
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "point",
                    "strict": True,
                    "schema": {
                        "type": "object",
                        "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                        "required": ["x", "y"],
                        "additionalProperties": False,
                    },
                },
            },
        ),
        "unknown fields": dict(
            model=CHAT, messages=user("More."), extra_body={"metadata": {"a": "b"}, "user": "u-1"}
        ),
    }
    results = {}
    for name, request in requests.items():
        reply = await of(client.chat.completions.create(**request))
        books.add(reply.usage)
        results[f"chat, {name}"] = plain(reply)
    parsed = await of(
        client.chat.completions.parse(model=CHAT, messages=user("Solve 8x + 7 = -23."), response_format=Solution)
    )
    books.add(parsed.usage)
    assert isinstance(parsed.choices[0].message.parsed, Solution), parsed
    results["chat, parsed"] = plain(parsed)
    return results


async def streamed_chats(client, books):
    requests = {
        "plain": dict(model=CHAT, messages=user("Say hello.")),
        "slow": dict(model=CHAT, messages=user("Slowly."), max_tokens=40, extra_headers=SLOWLY),
        "in odd pieces": dict(
            model=CHAT, messages=user("In odd pieces. äöü 🥊"), extra_headers={"x-simulate": "chunk-bytes=7"}
        ),
        "two choices": dict(model=CHAT, messages=user("Twice."), n=2),
        "tool": dict(model=CHAT, messages=user("What is the weather in Rome?"), tools=[WEATHER]),
        "reasoning": dict(model="o4-mini", messages=user("Think."), max_completion_tokens=600),
    }
    results = {}
    for name, request in requests.items():
        asked = await each(
            await of(
                client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
            )
        )
        told = [chunk.usage for chunk in asked if chunk.usage]
        assert len(told) == 1, f"{name}: usage came {len(told)} times"
        results[f"chat stream with usage, {name}"] = plain(asked)
        # The same once more in the two ways of not asking for usage: the same tokens, untold.
        for options in ({}, {"stream_options": {"include_usage": False}}):
            unasked = await each(await of(client.chat.completions.create(**request, **options, stream=True)))
            assert not any(chunk.usage for chunk in unasked), f"{name}: usage came unasked"
            results[f"chat stream without usage {options or ''}, {name}"] = plain(unasked)
        books.add(told[0], times=3)
    return results


async def stream_helper(client, books):
    """The SDK's own accumulation of a stream, with tools and with a parsed answer."""
    results = {}
    for name, more in {
        "tool": dict(messages=user("What is the weather in Rome?"), tools=[WEATHER]),
        "parsed": dict(messages=user("Solve 8x + 7 = -23."), response_format=Solution),
    }.items():
        manager = client.chat.completions.stream(model=CHAT, stream_options={"include_usage": True}, **more)
        if hasattr(manager, "__aenter__"):
            async with manager as stream:
                events = [event.type async for event in stream]
                final = await stream.get_final_completion()
        else:
            with manager as stream:
                events = [event.type for event in stream]
                final = stream.get_final_completion()
        books.add(final.usage)
        results[f"chat stream helper, {name}"] = {"events": events, "final": plain(final)}
    return results


async def raw_stream(client, books):
    """Line for line what came over the wire, but for identifiers."""
    request = dict(model=CHAT, messages=user("Every line."), stream=True)
    manager = client.chat.completions.with_streaming_response.create(**request)
    if hasattr(manager, "__aenter__"):
        async with manager as response:
            lines = [line async for line in response.iter_lines()]
    else:
        with manager as response:
            lines = list(response.iter_lines())
    reply = await of(client.chat.completions.create(**{**request, "stream": False}))
    books.add(reply.usage, times=2)
    kept = {name: response.headers[name] for name in ("content-type", "x-ms-region")}
    assert response.headers["apim-request-id"] and response.headers["x-request-id"]
    return {"raw stream": {"headers": kept, "lines": [plain_line(line) for line in lines]}}


async def completions(client, books):
    results = {}
    whole = await of(client.completions.create(model=INSTRUCT, prompt="Once upon a time", max_tokens=20))
    books.add(whole.usage)
    results["completion"] = plain(whole)
    many = await of(client.completions.create(model=INSTRUCT, prompt=["One", "Two"], max_tokens=6, n=2))
    books.add(many.usage)
    results["completion of two prompts"] = plain(many)
    request = dict(model=INSTRUCT, prompt="Once upon a time", max_tokens=20, stream=True)
    asked = await each(await of(client.completions.create(**request, stream_options={"include_usage": True})))
    told = [chunk.usage for chunk in asked if chunk.usage]
    assert len(told) == 1, told
    books.add(told[0], times=2)
    results["completion stream with usage"] = plain(asked)
    unasked = await each(await of(client.completions.create(**request)))
    assert not any(chunk.usage for chunk in unasked), "usage came unasked"
    results["completion stream without usage"] = plain(unasked)
    return results


async def embeddings(client, books):
    results = {}
    for name, request in {
        "one": dict(input="A sentence."),
        "list": dict(input=["A sentence.", "Another one.", "Ein dritter Satz."]),
        "tokens": dict(input=[[1, 2, 3], [4, 5]]),
        "floats": dict(input="A sentence.", encoding_format="float"),
        "base64 as it is": dict(input="A sentence.", encoding_format="base64"),
        "short": dict(input="A sentence.", dimensions=64),
    }.items():
        reply = await of(client.embeddings.create(model=EMBEDDING, **request))
        books.add(reply.usage)
        results[f"embedding, {name}"] = plain(reply)
    return results


async def responses(client, books):
    """Made in every way, gone on from, read, deleted."""
    is_azure = isinstance(client, (AzureOpenAI, AsyncAzureOpenAI))
    more = {"extra_query": {"api-version": RESPONSES_VERSION}} if is_azure else {}
    weather = {"type": "function", **WEATHER["function"]}
    requests = {
        "plain": dict(model=CHAT, input="Say hello."),
        "messages": dict(model=CHAT, instructions="Be brief.", input=[*user("One?"), *user("Two?")]),
        "cut": dict(model=CHAT, input="Count to a hundred.", max_output_tokens=5),
        "reasoning": dict(model="o4-mini", input="Think."),
        "tool": dict(model=CHAT, input="What is the weather in Rome?", tools=[weather]),
        "not stored": dict(model=CHAT, input="Forget it.", store=False),
        "in odd pieces": dict(model=CHAT, input="äöü 🥊", extra_headers={"x-simulate": "chunk-bytes=7"}),
    }
    results = {}
    for name, request in requests.items():
        whole = await of(client.responses.create(**request, **more))
        books.add_response(whole.usage)
        results[f"response, {name}"] = plain(whole)
        events = await each(await of(client.responses.create(**request, **more, stream=True)))
        assert events[-1].type in ("response.completed", "response.incomplete"), events[-1]
        books.add_response(events[-1].response.usage)
        results[f"response stream, {name}"] = plain(events)

    parsed = await of(client.responses.parse(model=CHAT, input="Solve x = 1.", text_format=Solution, **more))
    books.add_response(parsed.usage)
    assert isinstance(parsed.output_parsed, Solution), parsed
    results["response, parsed"] = plain(parsed)

    first = await of(client.responses.create(model=CHAT, input="Remember me.", **more))
    books.add_response(first.usage)
    following = await of(
        client.responses.create(model=CHAT, input="Who am I?", previous_response_id=first.id, **more)
    )
    books.add_response(following.usage)
    assert following.previous_response_id == first.id
    assert following.usage.input_tokens > first.usage.total_tokens
    results["response, gone on from"] = plain(following)

    read = await of(client.responses.retrieve(first.id, **more))
    assert (read.id, read.usage) == (first.id, first.usage)
    results["response, read"] = plain(read)
    items = await of(client.responses.input_items.list(first.id, **more))
    results["response, input items"] = plain(items.data)
    await of(client.responses.delete(first.id, **more))
    for _ in range(3):
        books.add_nothing()
    for name, call in {
        "read after its end": lambda: client.responses.retrieve(first.id, **more),
        "cancelled when it is made": lambda: client.responses.cancel(following.id, **more),
        "gone on from after its end": lambda: client.responses.create(
            model=CHAT, input="Who?", previous_response_id=first.id, **more
        ),
    }.items():
        try:
            await of(call())
        except openai.APIStatusError as error:
            books.add_nothing()
            results[f"response, {name}"] = {**refused(error, False), "code": error.code}
        else:
            raise AssertionError(f"{name}: was not refused")
    return results


def refused(error, with_body):
    if error.status_code == 408 or error.status_code >= 500:
        # Which of these it is may change on the way; that the SDK tries again may not.
        return {"class": "one that is tried again"}
    told = {"class": type(error).__name__, "status": error.status_code}
    if with_body:
        told["code"] = error.code
        told["param"] = error.param
        told["body"] = plain(error.body)
    for name in ("retry-after", "retry-after-ms"):
        told[name] = error.response.headers.get(name)
    return told


async def refusals(client, books, without_key):
    """What the SDK raises. A gateway words its own refusals, and hands on those of a request."""
    results = {}

    async def refuse(name, client, with_body=False, reached=True, **request):
        request = {"model": CHAT, "messages": user("No."), **request}
        try:
            reply = await of(client.chat.completions.create(**request))
            if request.get("stream"):
                await each(reply)
        except openai.APIStatusError as error:
            results[f"refusal, {name}"] = refused(error, with_body)
            if reached:
                books.add_nothing()
        else:
            raise AssertionError(f"{name}: was not refused")

    def simulate(words):
        return {"extra_headers": {"x-simulate": words}}

    await refuse("wrong key", without_key, reached=False)
    await refuse("unknown deployment", client, model="gpt-nowhere", reached=False)
    await refuse("content filter", client, with_body=True, messages=user("[[content-filter]]"))
    await refuse(
        "content filter of a stream", client, with_body=True, messages=user("[[content-filter]]"), stream=True
    )
    await refuse("too long a prompt", client, with_body=True, **simulate("context-tokens=3"))
    await refuse("wrong type", client, messages="No.", reached=False)
    # Under a second: a gateway would let the resource rest for longer, and refuse the next calls itself.
    await refuse("throttled", client, **simulate("status=429,retry-after-ms=900,retry-after=1"))
    await refuse("throttled stream", client, stream=True, **simulate("status=429,retry-after-ms=900,retry-after=1"))
    await refuse("server error", client, **simulate("status=500"))
    await refuse("unavailable", client, **simulate("status=503"))
    await refuse("timeout", client, **simulate("status=408"))
    return results


async def forbidden(client):
    results = {}
    for name, calls in {
        "chat": lambda: client.chat.completions.create(model=CHAT, messages=user("Please.")),
        "chat stream": lambda: client.chat.completions.create(model=CHAT, messages=user("Please."), stream=True),
        "embedding": lambda: client.embeddings.create(model=EMBEDDING, input="Please."),
        "response": lambda: client.responses.create(model=CHAT, input="Please."),
    }.items():
        try:
            await of(calls())
        except openai.APIStatusError as error:
            results[name] = f"{type(error).__name__} {error.status_code} {error.code}"
        else:
            results[name] = "served"
    return results


async def all_calls(client, books, without_key):
    results = {}
    results |= await whole_chats(client, books)
    results |= await streamed_chats(client, books)
    results |= await stream_helper(client, books)
    results |= await raw_stream(client, books)
    results |= await completions(client, books)
    results |= await embeddings(client, books)
    results |= await responses(client, books)
    results |= await refusals(client, books, without_key)
    return results


def clients(url, key):
    azure = dict(azure_endpoint=url, api_version=API_VERSION, max_retries=0)
    v1 = dict(base_url=f"{url}/openai/v1", max_retries=0)
    for name, kind, place in (
        ("AzureOpenAI", AzureOpenAI, azure),
        ("AsyncAzureOpenAI", AsyncAzureOpenAI, azure),
        ("OpenAI", OpenAI, v1),
        ("AsyncOpenAI", AsyncOpenAI, v1),
    ):
        yield name, kind(**place, api_key=key), kind(**place, api_key="not-a-key")


async def main():
    url, key, *only = sys.argv[1:]
    books, results = Books(), {}
    for name, client, without_key in clients(url, key):
        if only == ["forbidden"]:
            made = await forbidden(client)
        else:
            made = await all_calls(client, books, without_key)
        results |= {f"{name}: {call}": result for call, result in made.items()}
        for one in (client, without_key):
            await of(one.close())
    print(json.dumps({"sdk": openai.__version__, "results": results, "usage": vars(books)}))


asyncio.run(main())
