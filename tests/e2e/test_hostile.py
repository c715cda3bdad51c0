"""What a hostile or broken client can do over a socket. After each attack the server still answers and holds no page."""
import json
import os
import random
import resource
import selectors
import socket
import struct
import time

import pytest

LONG = json.dumps({"prompt": "Once upon a time", "max_tokens": 20000, "ignore_eos": True, "stream": True}).encode()


def post(path, body, extra=b""):
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (path.encode(), len(body), extra, body)


def read_reply(s, buffer=b""):
    """(status, body, rest) of one answer with a Content-Length; status 0 when the connection ended before."""
    while b"\r\n\r\n" not in buffer:
        data = s.recv(65536)
        if not data:
            return 0, b"", b""
        buffer += data
    head, rest = buffer.split(b"\r\n\r\n", 1)
    length = next(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length"))
    while len(rest) < length:
        data = s.recv(65536)
        if not data:
            return 0, b"", b""
        rest += data
    return int(head[9:12]), rest[:length], rest[length:]


def exchange(server, data):
    with server.socket() as s:
        s.sendall(data)
        return read_reply(s)


def error_of(body):
    return json.loads(body)["error"]


@pytest.fixture(autouse=True)
def still_well(server):
    yield
    began = time.time()
    status, body, _ = exchange(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 200 and time.time() - began < 2
    server.quiet()


def test_json_nested_a_hundred_thousand_deep(server):
    for deep in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000):
        status, body, _ = exchange(server, post("/v1/completions", b'{"prompt": ' + deep + b"}"))
        assert status == 400 and "deep" in error_of(body)["message"]


def test_bodies_that_are_no_json(server):
    bodies = [b"", b"\0", b"\0" * 1000, b"{", b"nul", b'{"prompt": "\xff\xfe"}', b'{"prompt": "a\0b"}', b'{"prompt": "\\ud800"}',
              b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "temperature": 1e400}', b"\xef\xbb\xbf", b'"' * 9999,
              b'{"prompt": "a"}' * 2, b"[]", b"5", b"\xf8\x88\x80\x80\x80"]
    for body in bodies:
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            status, answer, _ = exchange(server, post(path, body))
            assert status == 400, (path, body[:40])
            assert error_of(answer)["type"] == "invalid_request_error"


def test_nul_characters_in_texts_are_text(server):
    status, body, _ = exchange(server, post("/v1/completions", b'{"prompt": "a\\u0000b", "max_tokens": 1, "stop": "\\u0000"}'))
    assert status == 200
    status, body, _ = exchange(server, post("/tokenize", b'{"prompt": "a\\u0000b", "add_special_tokens": false}'))
    ids = json.loads(body)["tokens"]
    status, body, _ = exchange(server, post("/detokenize", json.dumps({"tokens": ids}).encode()))
    assert json.loads(body)["prompt"] == "a\0b"


def test_trees_far_larger_than_their_text(server):
    before = server.rss_bytes()
    status, body, _ = exchange(server, post("/v1/completions", b'{"prompt": [' + b"[]," * 8_000_000 + b"[]]}"))
    assert status == 400 and "JSON values" in error_of(body)["message"]
    members = b",".join(b'"%d":0' % i for i in range(200_000))
    status, body, _ = exchange(server, post("/v1/completions", b"{" + members + b"}"))
    assert status == 400
    assert server.rss_bytes() - before < 200 << 20


def test_sizes_past_the_limits(server):
    status, body, _ = exchange(server, b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000)
    assert status == 431
    status, body, _ = exchange(server, b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000)
    assert status == 431
    status, body, _ = exchange(server, b"GET /" + b"x" * 100_000)
    assert status == 431
    status, body, _ = exchange(server, b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
    assert status == 413
    with server.socket() as s:
        s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(64):
                s.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        except OSError:
            pass
        else:
            assert read_reply(s)[0] == 413


def test_announced_bodies_take_no_memory_until_they_come(server):
    before = server.rss_bytes()
    sockets = [server.socket() for _ in range(500)]
    for s in sockets:
        s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n{")
    time.sleep(0.3)
    assert server.rss_bytes() - before < 50 << 20
    for s in sockets:
        s.close()


def test_bad_chunks_and_smuggling(server):
    head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\n"
    for rest in (
        b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4;" + b"x" * 100_000,
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"Content-Length: -3\r\n\r\nabc",
        b"Transfer-Encoding: gzip\r\n\r\nabc",
        b"Bad Field: x\r\n\r\n",
        b"Host: y\r\nContent-Length: 0\r\n\r\n",
    ):
        with server.socket() as s:
            s.sendall(head + rest)
            status, body, _ = read_reply(s)
            assert status == 400, rest[:60]
            assert s.recv(1) == b"", "what follows cannot be trusted to begin a request"


def test_random_bytes(server):
    r = random.Random(11)
    for i in range(300):
        data = r.randbytes(r.randrange(1, 3000))
        if i % 4 == 1:
            data = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + data
        if i % 4 == 2:
            data = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + data  # a TLS hello
        if i % 4 == 3:
            data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + data
        with server.socket(timeout=5) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except ConnectionError:
                pass


def test_mutated_requests(start_server, model):
    """Good requests with bytes changed, removed and doubled: an answer or an end, never silence. A request that lost its
    max_tokens may ask for the whole context, which a large model takes minutes for: time ends it."""
    server = start_server("--request-timeout", "5")
    r = random.Random(3)
    good = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "n": 1,
                       "stop": ["x"], "logit_bias": {"5": 1}, "temperature": 0.5, "seed": 1, "logprobs": True, "top_logprobs": 2}).encode()
    statuses = {}
    for i in range(250):
        body = bytearray(good)
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(body))
            body[at : at + r.randrange(0, 4)] = r.choice([b"", r.randbytes(1), b"-", b"9" * 30, b'"', b"null", b"[", b"1e99", b"\\u0000"])
        status, answer, _ = exchange(server, post("/v1/chat/completions", bytes(body)))
        statuses[status] = statuses.get(status, 0) + 1
        assert status in (200, 400, 404, 504), (status, bytes(body), answer)
        json.loads(answer)
    assert statuses[400] > 30 and statuses.get(200, 0) > 0, statuses


def test_pipelining(server):
    with server.socket() as s:
        s.sendall(post("/tokenize", b'{"prompt": "a", "add_special_tokens": false}') + b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
                  + post("/v1/completions", b'{"prompt": "a", "max_tokens": 2}') + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        rest, bodies = b"", []
        for _ in range(4):
            status, body, rest = read_reply(s, rest)
            bodies.append((status, json.loads(body)))
    assert bodies[0][1]["count"] == 1 and "version" in bodies[1][1]
    assert bodies[2][1]["object"] == "text_completion" and bodies[3][0] == 404


def test_half_requests(server):
    whole = post("/v1/completions", LONG)
    for cut in (1, 10, 30, len(whole) - 1):
        for hard in (False, True):
            s = server.socket()
            s.sendall(whole[:cut])
            if hard:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()


def test_slow_loris(start_server):
    server = start_server("--header-timeout", "1", "--body-timeout", "1", "--idle-timeout", "1")
    sockets = [server.socket() for _ in range(200)]
    for i, s in enumerate(sockets):
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" if i % 2 else b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    began = time.time()
    ended = set()
    while len(ended) < len(sockets) and time.time() - began < 10:
        for i, s in enumerate(sockets):
            if i not in ended:
                try:
                    s.sendall(b"a")  # one byte now and then
                    s.setblocking(False)
                    if s.recv(4096) is not None:
                        ended.add(i)
                except BlockingIOError:
                    s.setblocking(True)
                except OSError:
                    ended.add(i)
        server.get("/health")
        time.sleep(0.1)
    assert len(ended) == len(sockets)
    assert time.time() - began < 5
    for s in sockets:
        s.close()


def test_a_reader_that_stops_reading(server):
    """Streams nobody reads end, and their memory is bounded."""
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True, "stream": True, "n": 16, "logprobs": 20,
                       "temperature": 1}).encode()
    before = server.rss_bytes()
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", server.port))
    s.sendall(post("/v1/completions", body))
    server.quiet(timeout=60)  # cut off long before 64,000 tokens are said
    assert server.rss_bytes() - before < 64 << 20
    s.close()


def open_many(port, count):
    """Up to `count` connections, opened without waiting for each."""
    sockets = []
    for _ in range(count):
        s = socket.socket()
        s.setblocking(False)
        try:
            s.connect(("127.0.0.1", port))
        except BlockingIOError:
            pass
        except OSError:
            s.close()
            continue
        sockets.append(s)
        if len(sockets) % 500 == 0:
            time.sleep(0.02)
    return sockets


@pytest.mark.parametrize("limit", [4096, 11_000])
def test_ten_thousand_connections(start_server, limit):
    """All at once, some of them half-way through a request: those within the limit are served, the others turned away."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 300)
    server = start_server("--max-connections", str(limit))
    before = server.rss_bytes()
    sockets = open_many(server.port, count)
    try:
        assert len(sockets) > count * 0.9
        for i, s in enumerate(sockets):
            try:
                s.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" if i % 2 else b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            except OSError:
                pass
        answers = {}
        selector = selectors.DefaultSelector()
        for s in sockets[1::2]:
            selector.register(s, selectors.EVENT_READ)
        end = time.time() + 20
        while selector.get_map() and time.time() < end:
            for key, _ in selector.select(0.5):
                try:
                    data = key.fileobj.recv(200)
                except OSError:
                    data = b""
                answers[data[9:12]] = answers.get(data[9:12], 0) + 1
                selector.unregister(key.fileobj)
        print("\nanswers", answers, "grown by", (server.rss_bytes() - before) >> 20, "MB")
        assert answers.get(b"200", 0) >= min(limit, len(sockets)) / 2 - 100
        assert server.rss_bytes() - before < 100 << 20
        assert server.process.poll() is None
    finally:
        for s in sockets:
            s.close()
    end = time.time() + 10
    while True:  # and it goes on as before
        try:
            assert json.loads(server.get("/health"))["status"] == "ok"
            break
        except OSError:
            assert time.time() < end
            time.sleep(0.05)
    server.quiet()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
