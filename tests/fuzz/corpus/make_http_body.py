#!/usr/bin/env python3
"""Writes the seeds of fuzz_http_body: a letter for the endpoint, then a body (or, after 'h' and a step, a connection)."""
import json
import pathlib

FOLDER = pathlib.Path(__file__).parent / "http_body"
SAMPLING = {
    "n": 2, "max_tokens": 7, "min_tokens": 3, "temperature": 0.5, "top_p": 0.25, "top_k": 5, "min_p": 0.125,
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.25, "seed": -3, "stop": ["x", "yz"],
    "stop_token_ids": [9], "include_stop_str_in_output": True, "ignore_eos": True, "skip_special_tokens": False,
    "logit_bias": {"7": -100, "8": 1.5},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1, null, "z"]}'}}
SEEDS = {
    "completion_text": ("p", {"model": "m", "prompt": "a b", **SAMPLING}),
    "completion_texts": ("p", {"prompt": ["a", "Grüße 🙂"], "stream": True, "stream_options": {"include_usage": True}}),
    "completion_ids": ("p", {"prompt": [1, 2, 299], "echo": True, "logprobs": 1, "max_tokens": 0, "seed": 1234}),
    "completion_id_lists": ("p", {"prompt": [[1, 2], [3]], "best_of": 1, "prompt_logprobs": 2, "suffix": None}),
    "completion_refused": ("p", {"prompt": "a", "n": 10**12, "max_tokens": 2**63, "top_p": 1e300}),
    "chat": ("c", {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], **SAMPLING,
                   "logprobs": True, "top_logprobs": 3, "stream": True}),
    "chat_parts": ("c", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
                         "chat_template_kwargs": {"enable_thinking": False}, "max_completion_tokens": 5}),
    "chat_tools": ("c", {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                                      {"role": "tool", "content": "ok", "tool_call_id": "1"}], "tools": [TOOL], "tool_choice": "auto"}),
    "chat_continued": ("c", {"messages": [{"role": "assistant", "content": "go on "}], "continue_final_message": True}),
    "chat_refused": ("c", {"messages": [], "response_format": {"type": "json_object"}, "chat_template": "{{ 1 }}"}),
    "tokenize": ("t", {"prompt": "a\0b", "return_token_strs": True}),
    "tokenize_chat": ("t", {"messages": [{"role": "user", "content": "u"}], "add_generation_prompt": False}),
    "detokenize": ("d", {"tokens": [1, 2, 299]}),
}
CONNECTIONS = {
    "http_get": b"GET /v1/models/a%2Fb?x=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer k\r\n\r\n",
    "http_post": b"POST /tokenize HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "http_chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;e=1\r\nhello\r\n0\r\nT: x\r\n\r\n",
    "http_old": b"GET http://h/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "http_smuggling": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}

FOLDER.mkdir(exist_ok=True)
for name, (letter, body) in SEEDS.items():
    (FOLDER / name).write_bytes(letter.encode() + json.dumps(body, ensure_ascii=False).encode())
(FOLDER / "deep").write_bytes(b'p{"prompt": ' + b"[" * 200)
(FOLDER / "broken_utf8").write_bytes(b'c{"messages": "\xff\xc3"}')
for name, data in CONNECTIONS.items():
    (FOLDER / name).write_bytes(b"h" + bytes([6]) + data)
