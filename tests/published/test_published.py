"""The published models through the openai client."""
import openai
import pytest

QWEN, GEMMA = "qwen2.5-coder-0.5b", "gemma-3-270m"


def test_chat(qwen):
    client = qwen.client(timeout=300)
    messages = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    whole = client.chat.completions.create(model=QWEN, messages=messages, temperature=0, max_tokens=20)
    assert "Paris" in whole.choices[0].message.content and whole.choices[0].finish_reason == "stop"
    chunks = client.chat.completions.create(model=QWEN, messages=messages, temperature=0, max_tokens=20, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content


def test_a_base_model_has_no_chat(gemma):
    with pytest.raises(openai.BadRequestError, match="chat template"):
        gemma.client().chat.completions.create(model=GEMMA, messages=[{"role": "user", "content": "Hello"}])
    text = gemma.client().completions.create(model=GEMMA, prompt="Paris is the capital of", max_tokens=3, temperature=0).choices[0].text
    assert "France" in text
