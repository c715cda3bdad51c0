"""tinyserve bench: that the figures are there, agree with each other and with the options."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def report(run, tmp_path, *arguments):
    file = tmp_path / "report.json"
    p = run("bench", *arguments, "--json", file)
    assert p.returncode == 0, p.stderr
    return json.loads(file.read_text()), p


def test_latency(run, tmp_path):
    r, p = report(run, tmp_path, "latency", "--depth", "0,64", "--batch-size", "1,2", "--input-len", "32", "--output-len", "4", "--iterations", "2")
    assert [(x["depth"], x["batch"]) for x in r["results"]] == [(0, 1), (64, 1), (0, 2), (64, 2)]
    for x in r["results"]:
        d = x["decode"]
        assert d["steps"] == 8 and 0 < d["ms_per_step"]["min"] <= d["ms_per_step"]["p50"] <= d["ms_per_step"]["p99"]
        assert x["prefill"]["tokens"] == 32 * x["batch"] and x["prefill"]["tokens_per_s_best"] >= x["prefill"]["tokens_per_s_median"] > 0
        assert d["kv_bytes_per_step"] == (x["depth"] + 32 + 2) * x["batch"] * r["runtime"]["kv_token_bytes"]
        assert d["weight_bytes_per_step"] == r["runtime"]["weight_bytes"]
    assert 1e8 < r["read_bandwidth_bytes_per_s"] < 1e13
    assert p.stdout.count("depth ") == 4 and "read bandwidth" in p.stdout


def test_latency_with_copied_depth_costs_what_a_real_one_does(run, tmp_path):
    times = []
    for how in ([], ["--fake-kv"]):
        r, _ = report(run, tmp_path, "latency", "--depth", "2000", "--input-len", "0", "--output-len", "32", "--iterations", "5", *how)
        times.append(r["results"][0]["decode"]["ms_per_step"]["min"])
    assert 0.33 < times[0] / times[1] < 3  # a loose bound: the machine may be busy


def test_throughput(run, tmp_path):
    r, _ = report(run, tmp_path, "throughput", "--requests", "6", "--input-len", "40", "--output-len", "10")
    assert abs(r["output_tokens_per_s"] * r["wall_s"] - 60) < 1e-6
    assert abs(r["total_tokens_per_s"] * r["wall_s"] - 300) < 1e-6
    assert r["steps"] < 60 and r["ttft_ms"]["count"] == 6 and r["itl_ms"]["count"] == 54


def test_serve_against_itself(run, tmp_path):
    r, _ = report(run, tmp_path, "serve", "--requests", "6", "--concurrency", "3", "--input-len", "30", "--output-len", "8")
    assert r["completed"] == 6 and r["failed"] == 0
    assert r["output_tokens"] == 48
    assert r["ttft_ms"]["count"] == 6 and r["ttft_ms"]["p50"] <= r["e2e_ms"]["p99"]


def test_serve_with_a_request_rate(run, tmp_path):
    r, _ = report(run, tmp_path, "serve", "--requests", "5", "--request-rate", "50", "--input-len", "8", "--output-len", "2")
    assert r["completed"] == 5 and r["request_rate"] == 50


def test_serve_reports_a_server_that_is_not_there(run):
    p = run("bench", "serve", "--url", "http://127.0.0.1:1")
    assert p.returncode == 1 and p.stderr.startswith("error: --url") and p.stderr.count("\n") == 1
    for url in ("ftp://x", "127.0.0.1:80", "http://"):
        assert run("bench", "serve", "--url", url).returncode == 1
    p = run("bench", "serve", "--extra-body", "{")
    assert p.returncode == 1 and "--extra-body" in p.stderr


def test_report_that_cannot_be_written(run):
    p = run("bench", "bandwidth", "--size", "16MiB", "--json", "/nowhere/report.json")
    assert p.returncode == 1 and "/nowhere/report.json" in p.stderr


def test_progress_goes_to_stderr_only(run):
    p = run("bench", "bandwidth", "--size", "16MiB", "--json", "-")
    assert "\r" not in p.stdout and "read_bandwidth_bytes_per_s" in p.stdout


def test_comparison_lists_its_rows():
    p = subprocess.run([sys.executable, ROOT / "bench/compare.py", "--list"], capture_output=True, text=True, timeout=30)
    assert p.returncode == 0
    for row in ("decode-tiny", "decode-1b-int8", "prefill-tiny-32k", "server-tiny", "startup"):
        assert row in p.stdout
    p = subprocess.run([sys.executable, ROOT / "bench/compare.py", "--rows", "nonsense"], capture_output=True, text=True, timeout=30)
    assert p.returncode == 2 and "nonsense" in p.stderr
