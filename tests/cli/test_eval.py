"""tinyserve eval: tables, files and errors as a person meets them."""
import json
import math


def prose(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(" ".join(f"In the year {i} the old harbour had {i * 7 % 90} ships, and the keeper of the light counted them." for i in range(60)))
    return file


def test_perplexity(run, tmp_path):
    text = prose(tmp_path)
    p = run("eval", "--text", text, "--context", "128..256,64", "--json", tmp_path / "r.json")
    assert p.returncode == 0, p.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["task"] == "ppl" and [r["context"] for r in report["results"]] == [128, 256, 64]
    for r in report["results"]:
        assert r["chunks"] == report["text_tokens"] // r["context"] > 1
        assert r["tokens"] == r["chunks"] * (r["context"] - r["context"] // 2 - 1)
        assert abs(math.log(r["ppl"]) - r["loss"]) < 1e-9 and 0 < r["loss"] < 9
        assert 0 < r["loss_standard_error"] < r["loss"]
        assert f"| {r['context']} | {r['chunks']} | {r['tokens']} | {r['loss']:.4f} |" in p.stdout


def test_perplexity_is_reproducible_and_count_limits_it(run, tmp_path):
    text = prose(tmp_path)
    outs = [run("eval", "--text", text, "--context", "128", "--count", "2", "--json", "-") for _ in range(2)]
    a, b = (json.loads(o.stdout[o.stdout.index("{\n"):])["results"] for o in outs)
    assert a == b and a[0]["chunks"] == 2


def test_wrong_command_lines(run, tmp_path):
    text = prose(tmp_path)
    for arguments, words in [
        ([], "--text"),
        (["--text", "/nowhere"], "/nowhere"),
        (["--text", text, "--context", "8m"], "--context 8m"),
        (["--text", text, "--context", "4"], "from 16"),
        (["--text", text, "--context", "64k"], "made for 32768"),
        (["--text", text, "--context", "32k"], "too few"),
        (["--text", text, "--task", "magic"], "ppl"),
    ]:
        p = run("eval", *arguments)
        assert p.returncode in (1, 2) and words in p.stderr and p.stderr.startswith("error: "), (arguments, p.stderr)
