"""Helpers for tests that run the program as a person or a script would."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = os.environ.get("TINYSERVE", str(ROOT / "build/release/tinyserve"))


@pytest.fixture
def program():
    if not os.path.exists(PROGRAM):
        pytest.fail(f"{PROGRAM} is not there; build it first, or name it in TINYSERVE")
    return PROGRAM


@pytest.fixture
def run(program):
    """run("generate", "hello", input="...") -> the finished process. stdin is empty unless given."""

    def go(*arguments, input="", timeout=120, **more):
        return subprocess.run([program, *map(str, arguments)], input=input, capture_output=True, text=True, timeout=timeout, **more)

    return go


@pytest.fixture
def bundled():
    return ROOT / "models/tiny-16m-32k"
