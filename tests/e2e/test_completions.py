"""/v1/completions through the real openai client."""
import openai
import pytest


def test_text_lists_and_ids(client, model):
    texts = ["Once upon a time", "The sea was"]
    ids = [[44, 77, 300], [10, 11]]
    one = client.completions.create(model=model, prompt=texts[0], max_tokens=8, temperature=0)
    assert one.object == "text_completion" and len(one.choices) == 1 and one.choices[0].finish_reason == "length"
    two = client.completions.create(model=model, prompt=texts, max_tokens=8, temperature=0, n=2)
    assert [c.index for c in two.choices] == [0, 1, 2, 3]
    assert two.choices[0].text == two.choices[1].text == one.choices[0].text
    assert two.usage.completion_tokens == 32
    assert client.completions.create(model=model, prompt=ids[0], max_tokens=4, temperature=0).usage.prompt_tokens == 3
    assert client.completions.create(model=model, prompt=ids, max_tokens=4, temperature=0).usage.prompt_tokens == 5


def test_default_length_is_sixteen(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a time", extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16


def test_stream_with_echo(client, model):
    options = dict(model=model, prompt=["One two", "Three"], max_tokens=6, temperature=0, echo=True)
    whole = client.completions.create(**options)
    assert whole.choices[0].text.startswith("One two") and whole.choices[1].text.startswith("Three")
    texts = ["", ""]
    for chunk in client.completions.create(**options, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [c.text for c in whole.choices]


def test_logprobs_of_a_prompt(client, model):
    """Scoring: the chance of each prompt token given those before it, and greedy answers are their own best."""
    text = "The quick brown fox"
    answer = client.completions.create(model=model, prompt=text, max_tokens=5, temperature=0, logprobs=2, echo=True)
    l = answer.choices[0].logprobs
    assert "".join(l.tokens) == answer.choices[0].text
    assert l.token_logprobs[0] is None and l.top_logprobs[0] is None
    assert all(x <= 0 for x in l.token_logprobs[1:])
    assert [answer.choices[0].text[o:].startswith(t) for o, t in zip(l.text_offset, l.tokens)] == [True] * len(l.tokens)
    for i in range(len(l.tokens) - 5, len(l.tokens)):
        assert max(l.top_logprobs[i], key=l.top_logprobs[i].get) == l.tokens[i]
    prompt_tokens = answer.usage.prompt_tokens
    scored = client.completions.create(model=model, prompt=text, max_tokens=0, logprobs=2, echo=True)
    s = scored.choices[0].logprobs
    assert scored.choices[0].text == text and scored.usage.completion_tokens == 0
    assert s.tokens == l.tokens[:prompt_tokens]
    assert s.token_logprobs[1:] == pytest.approx(l.token_logprobs[1:prompt_tokens], abs=2e-2)
    # What was generated scores the same when it is the prompt.
    back = client.completions.create(model=model, prompt=answer.choices[0].text, max_tokens=0, logprobs=0, echo=True)
    if back.choices[0].logprobs.tokens == l.tokens:
        assert back.choices[0].logprobs.token_logprobs[1:] == pytest.approx(l.token_logprobs[1:], abs=5e-2)


def test_stop_and_bias(client, model):
    options = dict(model=model, prompt="One two three", temperature=0, max_tokens=30)
    text = client.completions.create(**options).choices[0].text
    stop = text[9:13]
    cut = client.completions.create(**options, stop=[stop])
    assert cut.choices[0].text == text[: text.index(stop)] and cut.choices[0].finish_reason == "stop"
    kept = client.completions.create(**options, stop=[stop], extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].text == text[: text.index(stop) + 4]
    biased = client.completions.create(**options, logit_bias={"70": 100}, logprobs=0)
    assert set(biased.choices[0].logprobs.tokens) == {biased.choices[0].logprobs.tokens[0]}


@pytest.mark.parametrize(
    "change, param",
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),  # CVE-2026-21869
        ({"prompt": [2**31]}, "prompt[0]"),
        ({"prompt": [8192]}, "prompt[0]"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": [5] * 40000}, "prompt"),
        ({"n": 10**12}, "n"),  # CVE-2026-34756
        ({"max_tokens": 2**31 - 1}, "prompt"),  # GHSA-7rxv-5jhh-j6xx: the sum is past INT_MAX
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_bad_requests_name_the_field(client, model, change, param):
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(**{"model": model, "prompt": "a", "max_tokens": 3, **change})
    assert e.value.param == param and e.value.type == "invalid_request_error"


def test_a_long_text_is_refused_at_once(client, model):
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model=model, prompt="word " * 6_000_000, max_tokens=3)
    assert e.value.code == "context_length_exceeded"
