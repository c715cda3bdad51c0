"""--model with a GGUF file instead of a folder."""
import json
import pathlib

import pytest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "gguf"


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"])
def test_info(run, name):
    p = run("info", "--json", "--model", str(GOLDEN / f"{name}.gguf"))
    assert p.returncode == 0, p.stderr
    model = json.loads(p.stdout)["model"]
    assert model["family"] == name and model["layers"] == (6 if name == "gemma3" else 2) and model["vocab_size"] == 256


def test_generates_from_a_file_of_any_name(run, tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes((GOLDEN / "qwen2.gguf").read_bytes())
    p = run("generate", "--raw", "--model", str(file), "--max-tokens", "4", "--temperature", "0", "the")
    assert p.returncode == 0, p.stderr
    assert "[2 prompt tokens" in p.stderr and p.stdout.strip()


def test_a_damaged_file_is_one_clear_line(run, tmp_path):
    file = tmp_path / "cut.gguf"
    file.write_bytes((GOLDEN / "qwen2.gguf").read_bytes()[:-5000])
    p = run("info", "--model", str(file))
    assert p.returncode == 1 and p.stdout == ""
    assert len(p.stderr.strip().splitlines()) == 1
    assert str(file) in p.stderr and "tensor 'blk.1." in p.stderr and "truncated" in p.stderr


def test_another_file_is_neither(run):
    p = run("info", "--model", str(GOLDEN / "make_models.py"))
    assert p.returncode == 1 and "not a folder, and no GGUF file either" in p.stderr
