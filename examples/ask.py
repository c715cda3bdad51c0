#!/usr/bin/env python3
"""Asks the served model a question, with files pasted before it if there are any, and streams the answer.

    python3 examples/ask.py "Write a Python function that ..."
    python3 examples/ask.py "What does ... do?" FILE...

Needs the `openai` package and a server: `make serve MODEL=qwen2.5-coder-0.5b`."""
import pathlib
import sys
import time

import openai

if len(sys.argv) < 2:
    sys.exit(__doc__)
question, files = sys.argv[1], [pathlib.Path(f) for f in sys.argv[2:]]
message = "".join(f"File {f}:\n```\n{f.read_text()}\n```\n\n" for f in files) + question

client = openai.OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none", timeout=3600)
start, first = time.time(), None
for chunk in client.chat.completions.create(model=client.models.list().data[0].id, messages=[{"role": "user", "content": message}], temperature=0,
                                            max_tokens=600, stream=True, stream_options={"include_usage": True}):
    if chunk.choices and chunk.choices[0].delta.content:
        first = first or time.time() - start
        print(chunk.choices[0].delta.content, end="", flush=True)
    if chunk.usage:
        seconds = time.time() - start
        print(f"\n[{chunk.usage.prompt_tokens} prompt tokens, {chunk.usage.completion_tokens} in the answer; "
              f"first after {first:.1f} s, all after {seconds:.1f} s]")
