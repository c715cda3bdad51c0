"""lm-eval's local-completions on two small offline tasks: multiple choice (scores prompts) and generation."""
import json
import os
import pathlib
import subprocess
import sys

from conftest import MODEL

HERE = pathlib.Path(__file__).parent


def test_local_completions(server, model, tmp_path):
    arguments = f"model={model},base_url={server.url}/v1/completions,tokenizer={MODEL},tokenizer_backend=huggingface," \
                "tokenized_requests=True,num_concurrent=4,max_retries=1,max_length=2048"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"),
           "TOKENIZERS_PARALLELISM": "false", "OPENAI_API_KEY": "none"}
    run = subprocess.run(
        [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", arguments,
         "--tasks", "tinyserve_recall_choice,tinyserve_recall_generate", "--include_path", str(HERE / "lm_eval_task"),
         "--batch_size", "4", "--output_path", str(tmp_path / "out")],
        cwd=HERE / "lm_eval_task", env=env, capture_output=True, text=True, timeout=400,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    [results] = (tmp_path / "out").rglob("results_*.json")
    scores = json.loads(results.read_text())["results"]
    print("\n", json.dumps(scores))
    # The model was trained to recall what it read: wrong scores (shifted by a token, say) would be near chance, 0.25.
    assert scores["tinyserve_recall_choice"]["acc,none"] >= 0.9
    assert scores["tinyserve_recall_generate"]["exact_match,number"] >= 0.8
    server.quiet()
