"""Hang-ups, limits, keys, ports and the end."""
import concurrent.futures
import json
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request

import openai
import pytest

from conftest import MODEL, PROGRAM

LONG = dict(prompt="Once upon a time", max_tokens=20000, temperature=1, extra_body={"ignore_eos": True})


def raw_post(server, body):
    data = json.dumps(body).encode()
    s = server.socket()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return s


def drain(s):
    try:
        while s.recv(1 << 16):
            pass
    except OSError:
        pass


def wait_for(condition, timeout=10):
    end = time.time() + timeout
    while not condition():
        assert time.time() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_hanging_up_frees_the_pages(server, stream, hard):
    server.quiet()
    s = raw_post(server, {"prompt": "Once upon a time", "max_tokens": 20000, "ignore_eos": True, "stream": stream, "n": 4})
    wait_for(lambda: server.metrics()["tinyserve:num_requests_running"] == 4)
    if stream:
        assert s.recv(100)
    generated = server.metrics()["tinyserve:generation_tokens_total"]
    if hard:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    after = server.quiet(timeout=3)
    assert after["tinyserve:generation_tokens_total"] - generated < 2000


def test_hanging_up_during_a_long_prefill(server):
    server.quiet()
    s = raw_post(server, {"prompt": [list(range(100, 8000)) * 4], "max_tokens": 5})
    wait_for(lambda: server.metrics()["tinyserve:num_requests_running"] == 1)
    time.sleep(0.3)
    s.close()
    server.quiet(timeout=5)


def test_closing_a_stream_of_the_client(server, client, model):
    aborted = 'tinyserve:request_success_total{finished_reason="abort",model_name="tiny-16m-32k"}'
    before = server.metrics()[aborted]
    stream = client.completions.create(model=model, stream=True, **LONG)
    for i, _ in enumerate(stream):
        if i == 3:
            break
    stream.close()
    assert server.quiet(timeout=3)[aborted] == before + 1


def test_a_full_queue_says_429(start_server, model):
    server = start_server("--max-running", "1", "--max-queued", "2")
    client = server.client()
    running = raw_post(server, {**LONG, **LONG["extra_body"], "max_tokens": 30000, "stream": True})
    # Somebody reads it: a stream that nobody reads is cut off after a while, and the queue moves on.
    threading.Thread(target=drain, args=(running,), daemon=True).start()
    wait_for(lambda: server.metrics()["tinyserve:num_requests_running"] == 1, 60)
    waiting = [raw_post(server, {"prompt": "Hello", "max_tokens": 2}) for _ in range(2)]
    wait_for(lambda: server.metrics()["tinyserve:num_requests_waiting"] == 2, 60)
    with pytest.raises(openai.RateLimitError) as e:
        client.completions.create(model=model, prompt="Hello", max_tokens=2)
    assert e.value.code == "queue_full" and int(e.value.response.headers["retry-after"]) >= 1
    # A client that tries again, as openai's does by itself, comes through once there is room.
    refused = 'tinyserve:http_requests_total{path="/v1/completions",status="429"}'
    with concurrent.futures.ThreadPoolExecutor() as pool:
        patient = pool.submit(server.client(max_retries=60).completions.create, model=model, prompt="Hello", max_tokens=2)
        wait_for(lambda: server.metrics()[refused] >= 2, 60)
        running.shutdown(socket.SHUT_RDWR)
        assert patient.result(120).usage.completion_tokens == 2
    for s in waiting:
        assert b"200 OK" in s.recv(100)
        s.close()
    server.quiet(timeout=60)


def test_api_key(start_server, model):
    server = start_server("--api-key", "secret")
    assert "ok" in server.get("/health")
    with pytest.raises(openai.AuthenticationError) as e:
        server.client(api_key="wrong").models.list()
    assert e.value.code == "invalid_api_key"
    assert [m.id for m in server.client(api_key="secret").models.list()] == [model]
    for path in ("/metrics", "/v1/models", "/version"):
        with pytest.raises(urllib.error.HTTPError) as e:
            server.get(path)
        assert e.value.code == 401


def test_a_taken_port_is_said_so(server):
    run = subprocess.run([PROGRAM, "serve", "--model", MODEL, "--port", str(server.port)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert str(server.port) in run.stderr and "another program has that port" in run.stderr


def test_loopback_only_by_default(server):
    """Nothing but 127.0.0.1 is bound."""
    with open(f"/proc/{server.process.pid}/net/tcp") as f:
        listening = [l.split()[1] for l in f.readlines()[1:] if l.split()[3] == "0A"]
    assert f"0100007F:{server.port:04X}" in listening and f"00000000:{server.port:04X}" not in listening


def test_the_first_line_tells_how_to_ask(server, model):
    """The curl command printed at the start works as it stands."""
    command = server.lines[0][server.lines[0].index("curl ") :].strip()
    run = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    if run.returncode == 127:
        pytest.skip("no curl here")
    assert json.loads(run.stdout)["choices"][0]["message"]["content"]


def test_sigterm_drains(start_server, model):
    server = start_server()
    client = server.client()
    stream = client.completions.create(model=model, prompt="Once upon a time", max_tokens=150, temperature=1, stream=True,
                                       extra_body={"ignore_eos": True})
    chunks = iter(stream)
    next(chunks)
    kept = server.socket()
    kept.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
    kept.recv(1000)
    server.process.send_signal(signal.SIGTERM)

    def refused():
        try:
            server.socket(timeout=1).close()
            return False
        except OSError:
            return True

    wait_for(refused)
    body = b'{"prompt": "a"}'
    kept.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert b"503" in kept.recv(1000)
    rest = list(chunks)
    assert rest[-1].choices[0].finish_reason == "length", "what was running is finished"
    assert server.process.wait(10) == 0


def test_a_second_sigterm_stops(start_server, model):
    server = start_server()
    stream = server.client().completions.create(model=model, stream=True, **LONG)
    next(iter(stream))
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.process.poll() is None
    began = time.time()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(10)
    assert time.time() - began < 3
    with pytest.raises(Exception):
        list(stream)


def test_metrics(server, client, model):
    before = server.quiet()
    # Tokens no other test sends: what the prefix cache holds already is not counted.
    prompt = [list(range(5000, 5006))]
    client.completions.create(model=model, prompt=prompt, max_tokens=7, extra_body={"ignore_eos": True})
    after = server.quiet()
    grown = lambda name: after["tinyserve:" + name] - before["tinyserve:" + name]
    assert grown("generation_tokens_total") == 7
    assert grown("prompt_tokens_total") == 6
    assert grown("time_to_first_token_seconds_count") == 1
    assert grown("inter_token_latency_seconds_count") == 6
    assert grown("e2e_request_latency_seconds_count") == 1
    assert grown("request_queue_time_seconds_count") == 1
    assert after["tinyserve:kv_cache_usage_perc"] == 0
    assert 'tinyserve:http_requests_total{path="/v1/completions",status="200"}' in after


def test_start_up_is_quick(start_server, client):
    began = time.time()
    server = start_server()
    server.client().completions.create(model="tiny-16m-32k", prompt="Hello", max_tokens=1)
    print(f"\nfirst answer after {time.time() - began:.2f} s")
    assert time.time() - began < 10
