"""bench/kill_and_restart.py in small: clients at once on far too few pages, kill -9 in the middle of their answers, a restart."""
import json
import subprocess
import sys

from conftest import MODEL, PROGRAM, ROOT


def test_kill_9_in_the_middle_and_a_restart(tmp_path):
    figures = tmp_path / "figures.json"
    run = subprocess.run(
        [sys.executable, ROOT / "bench/kill_and_restart.py", "--program", PROGRAM, "--model", MODEL, "--clients", "12", "--families", "3",
         "--prefix", "448", "--own", "48", "--answer", "24", "--pages", "96", "--host-cache", "2MiB", "--json", figures],
        capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    runs = json.loads(figures.read_text())["runs"]
    assert runs["restarted"]["hit_pages"]["disk"] > 0
    for name in ("compaction off, tiers off", "compaction on, tiers off", "compaction off, tiers on", "compaction on, tiers on"):
        assert runs[name]["prompt_tokens_found"] > 0.2, name
