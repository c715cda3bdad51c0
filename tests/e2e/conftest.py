"""Starts the real program on the bundled model, on a free loopback port, and gives the tests clients for it.

TINYSERVE names the program (default: build/release/tinyserve), TINYSERVE_MODEL the model folder or GGUF file, TINYSERVE_FLAGS
more flags for every server.
"""
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("TINYSERVE", str(ROOT / "build" / "release" / "tinyserve"))
MODEL = os.environ.get("TINYSERVE_MODEL", str(ROOT / "models" / "tiny-16m-32k"))
FLAGS = os.environ.get("TINYSERVE_FLAGS", "").split()
NAME = pathlib.Path(MODEL).name.removesuffix(".gguf")


class Server:
    """One running `tinyserve serve`."""

    def __init__(self, *flags, env=None, model=MODEL):
        self.log = tempfile.TemporaryFile(mode="w+")
        command = [PROGRAM, "serve", "--model", model, "--port", "0", *FLAGS, *flags]
        self.name = pathlib.Path(model).name.removesuffix(".gguf")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **(env or {})}
        )
        self.lines = []
        self.ready = threading.Event()
        self.port = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.ready.wait(60) or self.port is None:
            self.process.kill()
            raise RuntimeError(f"{' '.join(command)} did not start:\n{self.stderr()}")
        self.url = f"http://127.0.0.1:{self.port}"

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"http://[^ /]+:(\d+)/v1", line)
            if found and self.port is None:
                self.port = int(found.group(1))
                self.ready.set()
        self.ready.set()

    def stderr(self):
        self.log.seek(0)
        return self.log.read()

    def client(self, **options):
        options = {"api_key": "none", "max_retries": 0, "timeout": 120, **options}
        return openai.OpenAI(base_url=self.url + "/v1", **options)

    def socket(self, timeout=20):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=20) as reply:
            return reply.read().decode()

    def metrics(self):
        """Engine series by name, without labels; series with labels of their own keep them."""
        values = {}
        for line in self.get("/metrics").splitlines():
            if not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                values[series.replace(f'{{model_name="{self.name}"}}', "")] = float(value)
        return values

    def quiet(self, timeout=10):
        """Waits until the engine holds no request and no page; the metrics then."""
        end = time.time() + timeout
        while True:
            m = self.metrics()
            busy = [m["tinyserve:num_requests_running"], m["tinyserve:num_requests_waiting"], m["tinyserve:kv_cache_pages_used"]]
            if busy == [0, 0, 0]:
                return m
            assert time.time() < end, f"running, waiting, pages used: {busy}"
            time.sleep(0.02)

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * resource.getpagesize()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(20)
        return self.process.returncode


@pytest.fixture(scope="session")
def server():
    """The server most tests share."""
    s = Server()
    yield s
    assert s.process.poll() is None, f"the server died:\n{s.stderr()}"
    s.stop()


@pytest.fixture(scope="module")
def selecting():
    """A server whose answers attend by selection beyond 256 tokens."""
    s = Server("--policy", "tinyserve", "--budget", "64", "--coded", "128", "--select-from", "256", "--audit-dense", "0.05")
    yield s
    assert s.process.poll() is None, f"the server died:\n{s.stderr()}"
    s.stop()


@pytest.fixture
def start_server():
    """start_server(*flags): a server of the test's own."""
    servers = []

    def start(*flags, **options):
        servers.append(Server(*flags, **options))
        return servers[-1]

    yield start
    for s in servers:
        s.stop()


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def model():
    return NAME
