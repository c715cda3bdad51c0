"""The demonstration: a fact planted in a message of about 30,000 tokens, asked for through the chat API."""
import pathlib
import time

import pytest

TEXT = pathlib.Path(__file__).parent / "data" / "winesburg-ohio-opening.txt"
TARGET_TOKENS = 30_000


@pytest.fixture(scope="module")
def long_message(server):
    """A novel's text, cut to 30,000 tokens, with two facts in it."""
    import json
    import urllib.request

    def post(path, body):
        request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=60))

    ids = post("/tokenize", {"prompt": TEXT.read_text()})["tokens"][:TARGET_TOKENS]
    assert len(ids) == TARGET_TOKENS
    cut = [0, TARGET_TOKENS // 4, TARGET_TOKENS * 7 // 10, TARGET_TOKENS]
    parts = [post("/detokenize", {"tokens": ids[a:b]})["prompt"] for a, b in zip(cut, cut[1:])]
    facts = ["\nThe magic number for silver horse is 48213.\n", "\nRemember this: the code of garden is 90576.\n"]
    return parts[0] + facts[0] + parts[1] + facts[1] + parts[2] + "\n"


def test_a_fact_in_thirty_thousand_tokens(server, model, long_message):
    client = server.client(timeout=600)  # for machines that are busy with other things; a minute is usual

    def ask(question):
        began = time.time()
        first, text = None, ""
        stream = client.chat.completions.create(
            model=model,
            messages=[
                {"role": "user", "content": long_message},
                {"role": "assistant", "content": "I have read it. Ask me."},
                {"role": "user", "content": question},
            ],
            temperature=0,
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            if first is None:
                first = time.time() - began
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            else:
                usage = chunk.usage
        print(f"\n{usage.prompt_tokens} tokens, {usage.prompt_tokens_details.cached_tokens} of them cached, "
              f"first token after {first:.1f} s: {question} -> {text}")
        return text, usage

    text, usage = ask("What is the magic number for silver horse?")
    assert "48213" in text
    assert usage.prompt_tokens > TARGET_TOKENS
    text, usage = ask("Tell me the code of garden.")
    assert "90576" in text
    assert usage.prompt_tokens_details.cached_tokens > TARGET_TOKENS, "the second question shares the first one's pages"
    server.quiet()
