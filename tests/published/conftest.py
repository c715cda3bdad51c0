"""The published models, fetched on first use, each with a server of its own. What can stop a fetch stops the tests with its message."""
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("e2e_conftest", ROOT / "tests/e2e/conftest.py")
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)


def path_of(name):
    p = subprocess.run([sys.executable, ROOT / "tools/fetch_model.py", name], capture_output=True, text=True)
    if p.returncode:
        pytest.fail(f"the model {name} cannot be had: {p.stderr.strip().splitlines()[-1]}", pytrace=False)
    return p.stdout.strip()


@pytest.fixture(scope="session")
def servers():
    """servers(name): the server of a published model."""
    running = {}

    def get(name):
        if name not in running:
            running[name] = e2e.Server(model=path_of(name))
        return running[name]

    yield get
    for name, server in running.items():
        assert server.process.poll() is None, f"the server of {name} died:\n{server.stderr()}"
        server.stop()


@pytest.fixture
def start():
    """start(name, *flags): a server of the test's own, with flags."""
    running = []

    def get(name, *flags):
        running.append(e2e.Server(*flags, model=path_of(name)))
        return running[-1]

    yield get
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def qwen(servers):
    return servers("qwen2.5-coder-0.5b")


@pytest.fixture(scope="session")
def gemma(servers):
    return servers("gemma-3-270m")
