"""Query-aware selection through the real openai client: terms of a request's own, the account of what was read, and its audit."""
import json
import pathlib

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "src" / "cli" / "calibration_text.txt").read_text()[:9000]
MEMBERS = {"bytes_share", "exact_share", "coded_share", "estimated_share", "audit"}


def ask(server, selection=None, stream=False, **more):
    body = {"ignore_eos": True, **({"tinyserve": selection} if selection is not None else {})}
    options = dict(model=server.name, prompt=TEXT, max_tokens=48, temperature=0, extra_body=body, **more)
    if not stream:
        return server.client().completions.create(**options)
    *_, last = server.client().completions.create(**options, stream=True, stream_options={"include_usage": True})
    return last


def account(answer):
    return answer.usage.model_dump().get("tinyserve")


def test_usage_says_what_was_read(selecting):
    answer = ask(selecting)
    read = account(answer)
    assert set(read) == MEMBERS
    assert 0 < read["bytes_share"] < 0.6
    assert read["exact_share"] + read["coded_share"] + read["estimated_share"] == pytest.approx(1, abs=1e-3)
    audit = read["audit"]
    assert audit["reads"] > 0 and audit["draws"] > 0
    for what in ("estimated", "coded"):
        low, high = audit[what + "_error_interval"]
        assert low <= audit[what + "_error"] <= high
        assert audit[what + "_share"] == pytest.approx(read[what + "_share"] + audit[what + "_error"], abs=1e-6)
    assert 0 < audit["dense"]["reads"] < audit["reads"]
    # The same when it is streamed, and for a chat.
    assert account(ask(selecting, stream=True)) == read
    chat = selecting.client().chat.completions.create(
        model=selecting.name, messages=[{"role": "user", "content": TEXT}], max_tokens=8, temperature=0,
        extra_body={"ignore_eos": True, "tinyserve": {"budget": 32}})
    assert set(account(chat)) == MEMBERS
    metrics = selecting.quiet()
    assert metrics["tinyserve:selection_reads_total"] >= audit["reads"]
    assert metrics["tinyserve:selection_audit_draws_total"] >= audit["draws"]
    assert metrics["tinyserve:selection_dense_checks_total"] >= audit["dense"]["reads"]
    assert 0 < metrics["tinyserve:selection_audited_estimated_share"] < 1


def test_a_request_has_terms_of_its_own(selecting):
    usual = account(ask(selecting))
    assert account(ask(selecting, {"policy": "full"})) is None
    assert account(ask(selecting, {"select_from": 100000})) is None
    assert account(ask(selecting, {"budget": 512}))["bytes_share"] > usual["bytes_share"]
    assert account(ask(selecting, {"budget_share": 0.01}))["bytes_share"] < account(ask(selecting, {"budget_share": 0.3}))["bytes_share"]
    assert account(ask(selecting, {"coded": 0}))["coded_share"] == 0
    assert "audit" not in account(ask(selecting, {"audit": False}))
    assert account(ask(selecting, {"top_p": 0.2}))["bytes_share"] < usual["bytes_share"]
    held = [account(ask(selecting, {"epsilon": e}))["audit"]["estimated_share"] for e in (0.01, 0.2)]
    assert held[0] < held[1]
    # Greedy answers repeat, even where their budget follows the audit.
    assert ask(selecting, {"epsilon": 0.05}).choices[0].text == ask(selecting, {"epsilon": 0.05}).choices[0].text


def test_a_full_request_is_answered_as_by_a_dense_server(selecting, server):
    assert ask(selecting, {"policy": "full"}).choices[0].text == ask(server).choices[0].text
    assert account(ask(server)) is None


@pytest.mark.parametrize("selection, param", [
    (7, "tinyserve"), ([], "tinyserve"), ({"bugdet": 1}, "tinyserve.bugdet"), ({"policy": "quest"}, "tinyserve.policy"),
    ({"policy": 3}, "tinyserve.policy"), ({"budget": 0}, "tinyserve.budget"), ({"budget": 1.5}, "tinyserve.budget"),
    ({"budget": "64"}, "tinyserve.budget"), ({"budget": 1 << 40}, "tinyserve.budget"), ({"budget_share": 2}, "tinyserve.budget_share"),
    ({"top_p": 0}, "tinyserve.top_p"), ({"epsilon": 1}, "tinyserve.epsilon"), ({"coded": -1}, "tinyserve.coded"),
    ({"select_from": -1}, "tinyserve.select_from"), ({"audit": "yes"}, "tinyserve.audit"),
    ({"budget": 9, "epsilon": 0.1}, "tinyserve.epsilon"), ({"budget": 9, "budget_share": 0.1}, "tinyserve.budget_share"),
    ({"epsilon": 0.1, "audit": False}, "tinyserve.audit"), ({"policy": "full", "budget": 9}, "tinyserve.budget"),
])
def test_bad_values_are_refused_by_name(selecting, selection, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(selecting, selection)
    assert refused.value.param == param and refused.value.type == "invalid_request_error"
    assert param.split(".")[-1] in refused.value.message


def test_a_dense_server_refuses_what_it_cannot_do(server):
    for selection in ({"policy": "tinyserve"}, {"budget": 64}, {"epsilon": 0.1}, {"audit": True}):
        with pytest.raises(openai.BadRequestError):
            ask(server, selection)
    assert ask(server, {"policy": "full"}).usage.completion_tokens == 48


def test_codes_survive_a_restart(start_server, tmp_path):
    flags = ("--policy", "tinyserve", "--budget", "32", "--coded", "64", "--select-from", "256",
             "--disk-cache", str(tmp_path / "pages"), "--disk-cache-size", "256MiB")
    first = start_server(*flags)
    text = ask(first).choices[0].text
    first.stop()
    second = start_server(*flags)
    assert json.loads(second.get("/debug/kv"))["tiers"]["disk"]["pages"] > 50, second.stderr()
    answer = ask(second)
    assert answer.choices[0].text == text
    tiers = json.loads(second.get("/debug/kv"))["tiers"]
    assert tiers["hit_pages"]["disk"] > 0 and tiers["disk"]["corrupt"] == 0
    assert account(answer)["exact_share"] > 0
