"""/v1/chat/completions through the real openai client."""
import concurrent.futures
import json

import openai
import pytest

STORY = [{"role": "user", "content": "Tell me a story."}]


def test_models(client, model):
    assert [m.id for m in client.models.list()] == [model]
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError) as e:
        client.models.retrieve("gpt-4")
    assert e.value.code == "model_not_found"


def test_answer(client, model):
    answer = client.chat.completions.create(model=model, messages=STORY, max_tokens=20, temperature=0)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == model and answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant" and len(choice.message.content) > 20
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20


def test_the_stream_is_the_answer(client, model):
    options = dict(model=model, messages=STORY, max_tokens=40, temperature=0)
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "length" and set(reasons[:-1]) == {None}
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 40
    assert all(c.usage is None for c in chunks[:-1])
    assert len(chunks) > 20, "tokens are to come one by one"
    assert len({c.id for c in chunks}) == 1


def test_no_usage_unless_asked(client, model):
    chunks = list(client.chat.completions.create(model=model, messages=STORY, max_tokens=3, stream=True))
    assert all(c.choices and c.usage is None for c in chunks)


def test_the_answer_ends_by_itself(client, model):
    """The model ends its turn; neither the end token nor anything after it is shown."""
    answer = client.chat.completions.create(
        model=model,
        messages=[
            {"role": "user", "content": "\nRemember this: the code of apple is 4711.\n"},
            {"role": "assistant", "content": "I have read it. Ask me."},
            {"role": "user", "content": "Tell me the code of apple."},
        ],
        temperature=0,
        max_tokens=100,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert "4711" in answer.choices[0].message.content
    assert "<|" not in answer.choices[0].message.content


def test_choices(client, model):
    answer = client.chat.completions.create(model=model, messages=STORY, max_tokens=12, n=4, seed=1, temperature=1)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    texts = [c.message.content for c in answer.choices]
    assert len(set(texts)) > 1, "each choice draws for itself"
    again = client.chat.completions.create(model=model, messages=STORY, max_tokens=12, n=4, seed=1, temperature=1)
    assert [c.message.content for c in again.choices] == texts, "the same seed gives the same choices"
    streamed = ["", "", "", ""]
    for chunk in client.chat.completions.create(
        model=model, messages=STORY, max_tokens=12, n=4, seed=1, temperature=1, stream=True
    ):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_logprobs(client, model):
    options = dict(model=model, messages=STORY, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3)
    answer = client.chat.completions.create(**options)
    content = answer.choices[0].logprobs.content
    assert len(content) == 8
    assert b"".join(bytes(t.bytes) for t in content).decode() == answer.choices[0].message.content
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "greedy picks the best"
        assert token.logprob <= 0
        assert sorted(token.top_logprobs, key=lambda t: -t.logprob) == token.top_logprobs
    streamed = [t for c in client.chat.completions.create(**options, stream=True) for t in (c.choices[0].logprobs.content if c.choices[0].logprobs else [])]
    assert [t.token for t in streamed] == [t.token for t in content]


def test_stop_straddles_tokens(client, model):
    options = dict(model=model, messages=STORY, max_tokens=60, temperature=0)
    text = client.chat.completions.create(**options).choices[0].message.content
    words = text.split(" ")
    # From the middle of a word to the middle of the next but one: no token boundary there.
    middle = len(words) // 2
    stop = words[middle][-2:] + " " + words[middle + 1] + " " + words[middle + 2][:1]
    expected = text[: text.index(stop)]
    answer = client.chat.completions.create(**options, stop=stop)
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason == "stop"
    chunks = list(client.chat.completions.create(**options, stop=["@@", stop], stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected


def test_extra_fields(client, model):
    answer = client.chat.completions.create(
        model=model,
        messages=STORY,
        max_tokens=30,
        temperature=1,
        extra_body={"top_k": 1, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 30, "ignore_eos": True, "something_new": 1},
    )
    greedy = client.chat.completions.create(
        model=model, messages=STORY, max_tokens=30, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].message.content == greedy.choices[0].message.content
    assert answer.usage.completion_tokens == 30


def test_message_parts_and_roles(client, model):
    parts = [{"type": "text", "text": "Tell me a story."}]
    a = client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}], max_tokens=9, temperature=0)
    b = client.chat.completions.create(model=model, messages=STORY, max_tokens=9, temperature=0)
    assert a.choices[0].message.content == b.choices[0].message.content
    c = client.chat.completions.create(
        model=model, messages=[{"role": "system", "content": "You are a helpful assistant."}, *STORY], max_tokens=9, temperature=0
    )
    assert c.usage.prompt_tokens > b.usage.prompt_tokens


@pytest.mark.parametrize(
    "change, param",
    [
        ({"n": 10**12}, "n"),  # CVE-2026-34756
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_tokens": 2**31 - 1}, "messages"),  # past the context
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"stop": [""]}, "stop[0]"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logit_bias": {"8192": 1}}, "logit_bias"),
        ({"extra_body": {"chat_template": "{% for i in range(10**9) %}x{% endfor %}"}}, "chat_template"),
        ({"extra_body": {"min_tokens": -1}}, "min_tokens"),
    ],
)
def test_bad_requests_name_the_field(client, model, change, param):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(**{"model": model, "messages": STORY, "max_tokens": 3, **change})
    assert e.value.param == param
    assert e.value.type == "invalid_request_error"
    assert e.value.status_code == 400 and param.split("[")[0] in e.value.message


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="gpt-4", messages=STORY)
    assert e.value.code == "model_not_found" and e.value.param == "model"


def test_many_at_once_give_what_each_gives_alone(client, model):
    """Greedy answers do not depend on who else is in the batch."""
    prompts = [f"Tell me a story about {w}." for w in "a dog,the sea,two kings,my house,an old tree,rain,the moon,bread".split(",")]

    def ask(text, stream):
        options = dict(model=model, messages=[{"role": "user", "content": text}], max_tokens=24, temperature=0)
        if not stream:
            return client.chat.completions.create(**options).choices[0].message.content
        return "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**options, stream=True))

    alone = [ask(p, False) for p in prompts]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, prompts * 2, [True] * 8 + [False] * 8))
    assert together == alone * 2


def test_tokenize_is_what_chat_counts(server, client, model):
    import urllib.request

    def post(path, body):
        request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=20))

    tokens = post("/tokenize", {"model": model, "messages": STORY})
    assert tokens["count"] == len(tokens["tokens"]) and tokens["max_model_len"] >= 30000
    answer = client.chat.completions.create(model=model, messages=STORY, max_tokens=1)
    assert answer.usage.prompt_tokens == tokens["count"]
    text = "Grüße, 世界! 🙂"
    ids = post("/tokenize", {"prompt": text})["tokens"]
    assert post("/detokenize", {"tokens": ids})["prompt"] == text
