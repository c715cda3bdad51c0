"""tinyserve serve: what the command line decides. The protocol has its own tests in tests/e2e."""
import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest


class Served:
    def __init__(self, program, *arguments, **environment):
        self.process = subprocess.Popen([program, "serve", "--port", "0", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=dict(os.environ, **environment))
        self.announcement = self.process.stdout.readline()
        self.url = re.search(r"http://[\d.]+:\d+", self.announcement).group(0)

    def get(self, path, key=None):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {key}"} if key else {})
        try:
            return 200, json.load(urllib.request.urlopen(request, timeout=20))
        except urllib.error.HTTPError as e:
            return e.code, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def test_announces_where_to_look_and_stops_when_asked(program):
    with Served(program) as s:
        assert "tiny-16m-32k" in s.announcement and "curl " in s.announcement
        status, models = s.get("/v1/models")
        assert status == 200 and models["data"][0]["id"] == "tiny-16m-32k"
        s.process.send_signal(signal.SIGTERM)
        assert s.process.wait(20) == 0


def test_keys_from_environment_flag_and_file(program, tmp_path):
    file = tmp_path / "keys"
    file.write_text("from-file\nsecond\n")
    with Served(program, "--api-key", "from-flag", "--api-key-file", file, TINYSERVE_API_KEY="from-environment") as s:
        assert s.get("/v1/models")[0] == 401
        assert s.get("/v1/models", "wrong")[0] == 401
        for key in ("from-flag", "from-file", "second", "from-environment"):
            assert s.get("/v1/models", key)[0] == 200
        assert not any(key in s.announcement for key in ("from-flag", "from-file", "from-environment"))


def test_names(program):
    with Served(program, "--served-model-name", "first", "--served-model-name", "other") as s:
        assert [m["id"] for m in s.get("/v1/models")[1]["data"]][0] == "first"


@pytest.mark.parametrize("flags, words", [
    (["--api-key", ""], "--api-key"),
    (["--api-key-file", os.devnull], os.devnull),
    (["--chat-template", "/nowhere/t.jinja"], "/nowhere/t.jinja"),
    (["--host", "no such host"], "no such host"),
])
def test_what_cannot_work_is_one_line(run, flags, words):
    p = run("serve", "--port", "0", "--log-level", "error", *flags)
    assert p.returncode == 1 and p.stdout == ""
    assert p.stderr.startswith("error: ") and p.stderr.count("\n") == 1 and words in p.stderr


def test_port_in_use(run):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        p = run("serve", "--port", s.getsockname()[1], "--log-level", "error")
    assert p.returncode == 1 and p.stderr.startswith("error: ") and p.stderr.count("\n") == 1
