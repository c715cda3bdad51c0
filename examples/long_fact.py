#!/usr/bin/env python3
"""Plants a fact in the middle of a 30,000-token message and asks for it, streaming the answer.

Needs the `openai` package and a server: `make serve`. The text is tests/e2e/data/winesburg-ohio-opening.txt.
"""
import pathlib
import time

import openai

text = (pathlib.Path(__file__).resolve().parent.parent / "tests/e2e/data/winesburg-ohio-opening.txt").read_text()
text = text[: int(len(text) * 0.8)]
half = text.find("\n", len(text) // 2)
message = text[:half] + "\nThe magic number for silver horse is 48213.\n" + text[half:] + "\n"

client = openai.OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
model = client.models.list().data[0].id
start = time.time()
stream = client.chat.completions.create(
    model=model,
    messages=[
        {"role": "user", "content": message},
        {"role": "assistant", "content": "I have read it. Ask me."},
        {"role": "user", "content": "What is the magic number for silver horse?"},
    ],
    temperature=0,
    max_tokens=40,
    stream=True,
    stream_options={"include_usage": True},
)
first = None
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        first = first or time.time() - start
        print(chunk.choices[0].delta.content, end="", flush=True)
    if chunk.usage:
        print(f"\n[{chunk.usage.prompt_tokens} prompt tokens, {chunk.usage.completion_tokens} in the answer; "
              f"first after {first:.1f} s, all after {time.time() - start:.1f} s]")
