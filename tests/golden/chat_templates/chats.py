"""Conversations that every template of families/ is rendered with."""

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather in a place & its <neighbours>, e.g. \"Köln\".",
    "parameters": {"type": "object", "properties": {
        "zone": {"type": "string", "description": "a place"},
        "days": {"type": "integer", "default": 3, "minimum": 1},
        "units": {"type": "string", "enum": ["metric", "imperial"]},
        "exact": {"type": "number", "default": 0.5}}, "required": ["zone"]},
    "return": {"type": "string", "description": "one line"}}}
ADD = {"type": "function", "function": {
    "name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {
        "b": {"type": "number"}, "a": {"type": "number"}}, "required": ["a", "b"]}}}

SYSTEM = {"role": "system", "content": "  You are terse.\n"}
HELLO = {"role": "user", "content": "Hello, wörld! 你好 <b>&amp;</b> 'q' \"d\" \\ \t end  "}
HI = {"role": "assistant", "content": " Hi. "}
MORE = {"role": "user", "content": "And now?\n\nTwo paragraphs."}
THOUGHT = {"role": "assistant", "content": "<think>\nThe user wants more.\n</think>\n\nHere is more."}
REASONED = {"role": "assistant", "content": "Done.", "reasoning_content": "\nI should say done.\n"}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "abcdef123", "type": "function", "function": {
        "name": "get_weather", "arguments": {"zone": "Zürich", "days": 2, "exact": 1.0, "units": None}}}]}
TWO_CALLS = {"role": "assistant", "content": "Let me see.", "tool_calls": [
    {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": {"zone": "A"}}},
    {"id": "call00002", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, {"c": True}]}}}]}
ANSWER1 = {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "rain, 7 °C"}
ANSWER2 = {"role": "tool", "name": "add", "tool_call_id": "call00002", "content": "{\"sum\": 3}"}
ANSWER = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "sun"}
FINAL = {"role": "assistant", "content": "It rains."}


def chat(*messages, generate=True, **extra):
    return {"messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": generate,
            "bos_token": "<s>", "eos_token": "</s>", **extra}


CHATS = {
    "one": chat(HELLO),
    "system": chat(SYSTEM, HELLO),
    "turns": chat(HELLO, HI, MORE),
    "system turns": chat(SYSTEM, HELLO, HI, MORE, THOUGHT, HELLO),
    "closed": chat(SYSTEM, HELLO, HI, generate=False),
    "thought last": chat(HELLO, THOUGHT, generate=False),
    "reasoned": chat(HELLO, REASONED, MORE, REASONED, generate=False),
    "no thinking": chat(SYSTEM, HELLO, enable_thinking=False),
    "tools": chat(SYSTEM, HELLO, tools=[WEATHER, ADD]),
    "tools alone": chat(HELLO, tools=[ADD]),
    "call": chat(SYSTEM, HELLO, CALL, ANSWER, tools=[WEATHER, ADD]),
    "call done": chat(HELLO, CALL, ANSWER, FINAL, MORE, tools=[WEATHER]),
    "two calls": chat(HELLO, TWO_CALLS, ANSWER1, ANSWER2, FINAL, MORE, tools=[WEATHER, ADD]),
    "call without tools": chat(HELLO, CALL, ANSWER),
    "two users": chat(HELLO, MORE),
    "assistant first": chat(HI, HELLO),
    "unknown role": chat(HELLO, {"role": "wizard", "content": "Zap"}, MORE),
    "parts": chat({"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}),
    "empty": chat(),
    "empty content": chat(SYSTEM, {"role": "user", "content": ""}),
    "dates": chat(SYSTEM, HELLO, date_string="01 Jan 2030", tools_in_user_message=False, tools=[ADD]),
    "long": chat(*[m for i in range(20) for m in (
        {"role": "user", "content": f"Question {i}"}, {"role": "assistant", "content": f"Answer {i}"})], HELLO),
}
