"""Help, usage errors, exit codes."""
import json
import re
from pathlib import Path

import pytest

COMMANDS = [["serve"], ["generate"], ["info"], ["bench", "latency"], ["bench", "throughput"], ["bench", "serve"], ["bench", "bandwidth"]]


def options(help_text):
    """{name: text} of every option in a help page."""
    found, name = {}, None
    for line in help_text.splitlines():
        m = re.match(r"^  ((?:-\w, )?--[\w-]+)", line)
        if m:
            name = m.group(1)
            found[name] = line
        elif name and line.startswith("      "):
            found[name] += " " + line.strip()
        else:
            name = None
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_gives_a_default_for_every_flag(run, command):
    p = run(*command, "--help")
    assert p.returncode == 0 and p.stderr == ""
    flags = options(p.stdout)
    assert len(flags) > 3
    # File names to write to have no default but not being written.
    without = {n for n, text in flags.items() if "[default: " not in text and "--help" not in n and not (n == "--json" or n == "--file")}
    assert without == set()


def test_top_level_help_and_version(run):
    p = run("--help")
    assert p.returncode == 0
    for name in ("serve", "generate", "bench", "info"):
        assert name in p.stdout
    p = run("--version")
    assert p.returncode == 0
    assert re.fullmatch(r"tinyserve \d+\.\d+\.\d+\n", p.stdout)


@pytest.mark.parametrize("arguments, words", [
    ([], "serve, generate, bench, info"),
    (["fly"], "fly"),
    (["bench"], "latency, throughput, serve, bandwidth"),
    (["generate", "hi", "--temprature", "1"], "--temprature"),
    (["generate", "hi", "--temperature", "hot"], "--temperature: 'hot' must be a number from 0 to 100"),
    (["generate", "hi", "--max-tokens", "0"], "--max-tokens: '0' must be a whole number from 1"),
    (["generate", "hi", "--max-tokens", "99999999999999999999"], "--max-tokens"),
    (["generate", "hi", "there"], "there"),
    (["serve", "--port", "65536"], "--port: '65536' must be a whole number from 0 to 65535"),
    (["serve", "--port", "-1"], "--port"),
    (["serve", "--dtype", "int4"], "--dtype: 'int4' must be one of bf16, f32"),
    (["serve", "--kv-memory", "lots"], "--kv-memory: 'lots' must be a size such as"),
    (["serve", "--kv-memory"], "--kv-memory"),
    (["bench", "latency", "--depth", "1,x"], "--depth"),
    (["bench", "latency", "--batch-size", "0"], "--batch-size"),
    (["info", "--threads", "1e3"], "--threads"),
])
def test_usage_errors_exit_with_2_and_one_line(run, arguments, words):
    p = run(*arguments)
    assert p.returncode == 2
    assert p.stdout == ""
    assert p.stderr.startswith("error: ") and p.stderr.count("\n") == 1
    assert words in p.stderr


def test_bad_model_folders_exit_with_1_and_one_line(run, tmp_path, bundled):
    p = run("info", "--model", tmp_path / "none")
    assert (p.returncode, p.stdout) == (1, "")
    assert p.stderr == f"error: --model {tmp_path}/none: no such folder\n"
    p = run("info", "--model", tmp_path)
    assert p.returncode == 1 and "config.json" in p.stderr
    p = run("info", "--model", bundled / "config.json")
    assert p.returncode == 1 and "not a folder" in p.stderr
    (tmp_path / "config.json").write_text("{")
    p = run("generate", "hi", "--model", tmp_path)
    assert p.returncode == 1 and "config.json" in p.stderr and p.stderr.count("\n") == 1
    (tmp_path / "config.json").write_text((bundled / "config.json").read_text())
    p = run("serve", "--model", tmp_path, "--port", "0")
    assert p.returncode == 1 and "safetensors" in p.stderr and p.stderr.count("\n") == 1


def test_limits_that_cannot_work_exit_with_1(run):
    p = run("info", "--max-context", "100000")
    assert p.returncode == 1 and "32768" in p.stderr and p.stderr.count("\n") == 1
    p = run("generate", "hi", "--kv-pages", "1", "--max-context", "64")
    assert p.returncode == 1 and p.stderr.startswith("error: ") and p.stderr.count("\n") == 1
    p = run("bench", "latency", "--depth", "32768", "--input-len", "512")
    assert p.returncode == 1 and "33344" in p.stderr


def test_info(run, bundled):
    p = run("info")
    assert p.returncode == 0
    for words in ("tiny-16m-32k", "LlamaForCausalLM", "15.7 M parameters", "4 KiB per token", "room for"):
        assert words in p.stdout
    p = run("info", "--json", "--model", bundled, "--kv-memory", "16MiB", "--threads", "1")
    d = json.loads(p.stdout)
    assert d["model"]["parameters"] == 15_735_168  # as many values as the checkpoint's header declares
    assert d["threads"] == 1
    m = d["memory"]
    assert m["kv_token_bytes"] == 2 * 8 * 2 * 64 * 2
    assert m["num_pages"] == 256 and m["kv_tokens"] == 4096 and m["kv_bytes"] == 16 << 20
    p = run("info", "--json", "--dtype", "f32", "--kv-pages", "10")
    m = json.loads(p.stdout)["memory"]
    assert m["kv_token_bytes"] == 2 * 8 * 2 * 64 * 4 and m["num_pages"] == 10


def test_int8_weights_take_less_memory(run):
    sizes = {w: json.loads(run("info", "--json", "--weights", w).stdout)["memory"]["weight_bytes"] for w in ("native", "int8")}
    assert sizes["int8"] < 0.65 * sizes["native"]


def test_quantised_files_stay_quantised(run):
    model = str(Path(__file__).parents[1] / "golden/gguf/llama.gguf")
    info = {w: json.loads(run("info", "--json", "--model", model, "--weights", w).stdout) for w in ("auto", "native")}
    assert info["auto"]["memory"]["weight_bytes"] < 0.4 * info["native"]["memory"]["weight_bytes"]
    assert info["auto"]["precision"] == "BF16 with the file's quantised weights"
    assert info["native"]["precision"] == "BF16"
