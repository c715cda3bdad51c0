"""tinyserve eval: tables, files and errors as a person meets them."""
import json
import math
import os


def prose(tmp_path, sentences=60):
    file = tmp_path / "text.txt"
    file.write_text(" ".join(f"In the year {i} the old harbour had {i * 7 % 90} ships, and the keeper of the light counted them." for i in range(sentences)))
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


TASKS = ["needle", "multineedle", "passkey", "recall"]


def test_facts_are_found(run, tmp_path):
    text = prose(tmp_path, 200)
    p = run("eval", "--task", ",".join(TASKS), "--text", text, "--context", "1k", "--count", "4", "--questions", "2",
            "--json", tmp_path / "r.json", "--svg", tmp_path / "r.svg")
    assert p.returncode == 0, p.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    rows = {r["task"]: r for r in report["results"]}
    assert list(rows) == TASKS and report["seed"] == 1
    for task, r in rows.items():
        assert (r["context"], r["policy"], r["budget"], r["bytes_share"], r["asked"]) == (1024, "full", None, 1, 4)
        assert r["tokens"] == (20 if task == "passkey" else 28) and r["loss"] > 0
        assert f"| {task} | 1024 | full | - | 1 | {r['correct']} of 4 | {r['loss']:.4f} |" in p.stdout
    # The bundled model was trained to find these.
    assert rows["needle"]["correct"] == rows["multineedle"]["correct"] == rows["passkey"]["correct"] == 4
    svg = (tmp_path / "r.svg").read_text()
    assert svg.startswith("<svg") and "multineedle 1024: wrong answers" in svg and "over dense attention" in svg


def test_policies_read_less_and_are_compared(run, tmp_path):
    text, maps = prose(tmp_path, 200), tmp_path / "maps.json"
    learnt = run("learn", "--text", text, "--tokens", "2048", "--maps-only", "--output", maps)
    assert learnt.returncode == 0 and "fitted to 2048 tokens" in learnt.stdout, learnt.stderr
    p = run("eval", "--task", "passkey", "--text", text, "--context", "1k", "--count", "2", "--policy", "full,tinyserve,streaming,quest,snapkv",
            "--budget", "64", "--coded", "64", "--selection-maps", maps, "--json", tmp_path / "r.json")
    assert p.returncode == 0, p.stderr
    rows = {r["policy"]: r for r in json.loads((tmp_path / "r.json").read_text())["results"]}
    assert list(rows) == ["full", "tinyserve", "streaming", "quest", "snapkv"]
    assert rows["full"]["bytes_share"] == 1 and all(r["bytes_share"] < 0.5 and r["budget"] == 64 for n, r in rows.items() if n != "full")
    assert rows["full"]["correct"] == 2
    # Whoever looks at the newest tokens alone does not see a key that lies far back.
    assert rows["streaming"]["loss"] > rows["tinyserve"]["loss"]
    # Maps of so little text, all of it alike, lose facts; the model's own do not.
    own = run("eval", "--task", "passkey", "--text", text, "--context", "1k", "--count", "2", "--policy", "tinyserve", "--budget", "64", "--coded", "64",
              "--json", tmp_path / "own.json")
    assert own.returncode == 0 and json.loads((tmp_path / "own.json").read_text())["results"][0]["correct"] == 2, own.stderr
    maps.write_text("{}")
    broken = run("eval", "--task", "passkey", "--text", text, "--context", "1k", "--policy", "tinyserve", "--selection-maps", maps)
    assert broken.returncode == 1 and "maps.json" in broken.stderr


def test_running_text_decoded_from_a_folder(run, tmp_path):
    prose(tmp_path, 100)
    (tmp_path / "ignored.json").write_text("{}")
    outs = [run("eval", "--text", tmp_path, "--context", "512", "--decode", "32", "--count", "2", "--seed", seed, "--json", "-") for seed in (1, 1, 2)]
    a, b, c = (json.loads(o.stdout[o.stdout.index("{\n"):])["results"][0] for o in outs)
    assert a["asked"] == a["tokens"] == 64 and 0 <= a["correct"] <= 64
    assert {k: a[k] for k in a if k != "seconds"} == {k: b[k] for k in b if k != "seconds"} and a["loss"] != c["loss"]


def test_policies(run, tmp_path):
    text = prose(tmp_path, 200)
    p = run("eval", "--task", "multineedle,ppl", "--text", text, "--context", "1k", "--count", "2", "--questions", "2", "--decode", "32",
            "--policy", "full,streaming,quest,tinyserve", "--budget", "64,128", "--json", tmp_path / "r.json", "--svg", tmp_path / "r.svg",
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert p.returncode == 0, p.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [(r["task"], r["policy"], r["budget"]) for r in rows] == [
        (t, *p) for t in ("multineedle", "ppl")
        for p in [("full", None), ("streaming", 64), ("streaming", 128), ("quest", 64), ("quest", 128), ("tinyserve", 64), ("tinyserve", 128)]]
    for r in rows:
        assert r["bytes_share"] == 1 if r["policy"] == "full" else 0.05 < r["bytes_share"] < 0.9
        if r["policy"] != "full":
            assert math.isclose(r["bytes"] / r["dense_bytes"], r["bytes_share"]) and "loss_over_full" in r
    found = {(r["policy"], r["budget"]): r["correct"] for r in rows if r["task"] == "multineedle"}
    assert found["full", None] == 2
    assert (tmp_path / "r.svg").read_text().count("<circle") == 2 * 7


def test_wrong_command_lines(run, tmp_path):
    text = prose(tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments, words in [
        ([], "--text"),
        (["--text", "/nowhere"], "/nowhere"),
        (["--text", text, "--context", "8m"], "--context 8m"),
        (["--text", text, "--context", "4"], "from 16"),
        (["--text", text, "--context", "64k"], "made for 32768"),
        (["--text", text, "--context", "32k"], "too few"),
        (["--text", text, "--task", "needle,magic"], "there is no 'magic'; there are ppl, needle"),
        (["--text", text, "--task", "needle", "--context", "8k"], "give a longer --text"),
        (["--text", text, "--task", "multineedle", "--context", "256"], "--task multineedle: a context of 256 tokens is too short"),
        (["--text", text, "--policy", "magic"], "there is no 'magic'; there are full"),
        (["--text", text, "--svg", "x.svg"], "--decode"),
        (["--text", tmp_path / "empty"], "no .txt or .md"),
    ]:
        p = run("eval", *arguments)
        assert p.returncode in (1, 2) and words in p.stderr and p.stderr.startswith("error: "), (arguments, p.stderr)


def test_learn_tries_layers_and_reports_on_held_out_steps(run, tmp_path):
    text, maps = prose(tmp_path, 200), tmp_path / "maps.json"
    p = run("learn", "--text", text, "--tokens", "1024", "--trials", "1k", "--decode", "8", "--questions", "1", "--budget", "32,64",
            "--output", maps, "--json", tmp_path / "r.json")
    assert p.returncode == 0, p.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert [layer["layer"] for layer in report["layers"]] == list(range(8))
    kept = [c for c in report["choice"] if c["kept"]]
    assert len(kept) == 1 and kept[0]["kl"] <= 1.05 * min(c["kl"] for c in report["choice"]) + 1e-12
    rows = {(r["policy"], r["budget"]): r for r in report["held_out"]}
    assert list(rows) == [(p, b) for p in ("quest", "moments", "oracle", "tinyserve") for b in (32, 64)]
    for r in rows.values():
        assert 0 < r["bytes_share"] < 1 and r["kl"] >= 0 and 0 < r["mass"] <= 1.001 and 0 < r["output_error"] < 1
    assert rows["tinyserve", 32]["output_error"] < rows["quest", 32]["output_error"]
    written = json.loads(maps.read_text())
    assert written["version"] == 2 and len(written["reads"]) == 8
    p = run("eval", "--task", "passkey", "--text", text, "--context", "1k", "--count", "1", "--policy", "tinyserve", "--selection-maps", maps)
    assert p.returncode == 0, p.stderr


def test_learn_says_what_it_lacks(run, tmp_path):
    text = prose(tmp_path, 60)
    p = run("learn", "--text", text, "--output", tmp_path / "m.json")
    assert p.returncode == 1 and "trials need text of their own" in p.stderr and "--maps-only" in p.stderr


def test_files_for_published_models_are_found_by_the_digest_of_the_weights(run, bundled, tmp_path):
    text, model = prose(tmp_path, 200), tmp_path / "model"
    model.mkdir()
    for file in bundled.iterdir():
        if file.name != "tinyserve_selection.json":
            (model / file.name).symlink_to(file)
    command = ["eval", "--model", model, "--task", "passkey", "--text", text, "--context", "256", "--count", "1", "--policy", "tinyserve"]
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    fitted = run(*command, env=environment, cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    [kept] = (tmp_path / "cache/tinyserve").iterdir()
    shipped = tmp_path / "models/selection"
    shipped.mkdir(parents=True)
    name = kept.name.rsplit("-", 1)[0] + ".json"  # what is kept has the number of the way it was fitted, too
    (shipped / name).write_text(kept.read_text().replace('"version":2', '"version":9'))
    p = run(*command, env=environment, cwd=tmp_path)
    assert p.returncode == 1 and f"models/selection/{name} is not a file of selection maps that this version reads" in p.stderr
