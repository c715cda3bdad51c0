"""tinyserve replay: tables, files and errors as a person meets them."""
import gzip
import json
import pathlib
import re
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MOONCAKE = ROOT / "tests/data/traces/mooncake-excerpt.jsonl"
AZURE = ROOT / "tests/data/traces/azure-excerpt.csv"


def test_compares_policies(run, tmp_path):
    p = run("replay", "--trace", MOONCAKE, "--fill", "0.9", "--compare", "free_queue,first_fit", "--json", tmp_path / "r.json", "--svg", tmp_path / "r.svg")
    assert p.returncode == 0, p.stderr
    assert "300 requests" in p.stdout and re.search(r"\| +free_queue \| +first_fit \|", p.stdout)
    report = json.loads((tmp_path / "r.json").read_text())
    queue, fit = report["policies"]
    assert (queue["policy"], fit["policy"]) == ("free_queue", "first_fit")
    for m in (queue, fit):
        assert m["completed"] == 300 and m["refused"] == 0 and m["preemptions"] == 0 or m["usable_share"] > 0.98
        assert len(m["samples"]) > 50 and all(0 <= s["external_fragmentation"] <= 1 for s in m["samples"])
        assert m["hit_tokens"] > 0
    assert fit["descriptors_mean"] < queue["descriptors_mean"] / 4
    picture = xml.etree.ElementTree.parse(tmp_path / "r.svg").getroot()
    texts = {t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"free_queue", "first_fit", "time (s, simulated)", "external fragmentation"} <= texts


def test_all_policies_by_name(run):
    p = run("replay", "--trace", AZURE, "--pages", "2000", "--compare", "all", "--samples", "20")
    assert p.returncode == 0, p.stderr
    assert "free_queue" in p.stdout and "first_fit" in p.stdout and "pool         2000 pages" in p.stdout


def test_json_on_stdout_holds_what_was_set(run):
    p = run("replay", "--trace", AZURE, "--requests", "100", "--pages", "3000", "--clock", "cpu", "--clock-step-us", "77", "--speed", "3",
            "--prefix-cache", "off", "--json", "-")
    assert p.returncode == 0, p.stderr
    report = json.loads(p.stdout[p.stdout.index("{\n"):])
    assert report["config"]["clock"]["fixed_us"] == 77 and report["config"]["speed"] == 3 and report["config"]["prefix_cache"] == "off"
    assert report["trace"]["requests"] == 100 and report["policies"][0]["pages"] == 3000 and report["policies"][0]["prompt_tokens"] == 0


def test_packed_traces_are_the_same(run, tmp_path):
    packed = tmp_path / "t.gz"
    packed.write_bytes(gzip.compress(AZURE.read_bytes()))
    outs = [run("replay", "--trace", t, "--pages", "2000", "--json", "-").stdout for t in (AZURE, packed)]
    a, b = (json.loads(o[o.index("{\n"):]) for o in outs)
    assert a["policies"][0]["simulated_s"] == b["policies"][0]["simulated_s"] and a["trace"] == b["trace"]


def test_wrong_command_lines(run):
    for arguments, words in [
        ([], "--trace"),
        (["--trace", MOONCAKE], "--pages"),
        (["--trace", MOONCAKE, "--pages", "10", "--fill", "0.5"], "either"),
        (["--trace", MOONCAKE, "--pages", "10", "--policy", "magic"], "first_fit"),
        (["--trace", MOONCAKE, "--pages", "10", "--clock", "sundial"], "h200"),
        (["--trace", "/nowhere", "--pages", "10"], "/nowhere"),
        (["--trace", ROOT, "--pages", "10"], "folder"),
        (["--trace", MOONCAKE, "--pages", "10000", "--requests", "5", "--svg", "/nowhere/x.svg"], "/nowhere/x.svg"),
    ]:
        p = run("replay", *arguments)
        assert p.returncode in (1, 2) and p.stderr.startswith("error: ") and p.stderr.count("\n") == 1, (arguments, p.stderr)
        assert words in p.stderr, (arguments, p.stderr)


def test_bad_traces_end_in_one_line_with_its_number(run, tmp_path):
    good = MOONCAKE.read_text().splitlines(keepends=True)[:3]
    for name, line in [("truncated", '{"timestamp": 5000'), ("negative", '{"timestamp":5000,"input_length":-1,"output_length":1,"hash_ids":[]}'),
                       ("huge", '{"timestamp":5000,"input_length":99999999999,"output_length":1,"hash_ids":[]}'),
                       ("back", '{"timestamp":-5,"input_length":1,"output_length":1,"hash_ids":[1]}')]:
        trace = tmp_path / name
        trace.write_text("".join(good) + line + "\n")
        p = run("replay", "--trace", trace, "--pages", "10000")
        assert p.returncode == 1 and p.stderr.startswith(f"error: {trace}:4: ") and p.stderr.count("\n") == 1, p.stderr
    trace = tmp_path / "utf8"
    trace.write_bytes(b'{"timestamp": 0, "a": "\xff"}\n')
    assert run("replay", "--trace", trace, "--pages", "10").stderr.startswith(f"error: {trace}:1: ")


def test_a_line_of_gigabytes(run, tmp_path):
    trace = tmp_path / "sparse"
    with open(trace, "wb") as file:
        file.truncate(10 << 30)  # zeros, and no disk space
    p = run("replay", "--trace", trace, "--pages", "10", timeout=20)
    assert p.returncode == 1 and "longer than 8 MiB" in p.stderr
