"""tinyserve generate: one shot from argument, file and stdin; the chat on a terminal."""
import os
import pty
import re
import select
import signal
import subprocess
import time

GREEDY = ["--temperature", "0", "--max-tokens", "40", "--system", "The magic number for silver horse is 48213."]
QUESTION = "What is the magic number for silver horse?"


def test_argument_file_and_stdin_say_the_same(run, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text(QUESTION + "\n")
    answers = [run("generate", QUESTION, *GREEDY), run("generate", "--file", file, *GREEDY), run("generate", *GREEDY, input=QUESTION + "\n")]
    assert [p.returncode for p in answers] == [0, 0, 0]
    assert "48213" in answers[0].stdout
    assert len({p.stdout for p in answers}) == 1


def test_statistics_on_stderr(run):
    p = run("generate", QUESTION, *GREEDY)
    assert re.search(r"\[\d+ prompt tokens.*first token after \d+ ms; \d+ tokens.*\]", p.stderr)
    assert run("generate", QUESTION, *GREEDY, "--no-statistics").stderr == ""


def test_an_answer_by_selection_says_what_it_read(run):
    text = "Once upon a time there was a sailor who lived by the sea. " * 40
    flags = ("generate", "--raw", text, "--temperature", "0", "--max-tokens", "16", "--ignore-eos")
    sparse = ("--policy", "tinyserve", "--select-from", "128", "--budget", "32", "--coded", "64")
    p = run(*flags, *sparse, "--audit-dense", "1")
    assert p.returncode == 0
    assert re.search(r"\[read 1/\d+\.\d of K/V: [\d.]+% of the attention exactly, [\d.]+% in codes, [\d.]+% estimated; "
                     r"audited: [\d.]+% \([\d.]+% to [\d.]+%\) estimated, off by [+-][\d.]+%; recomputed densely: [\d.]+%, output off by [\d.]+%\]", p.stderr), p.stderr
    assert "audited" not in run(*flags, *sparse, "--no-audit").stderr
    assert "of K/V" not in run(*flags).stderr
    for bad, named in ((("--epsilon", "0.1"), "epsilon"), ((*sparse, "--epsilon", "0.1", "--no-audit"), "epsilon"),
                       ((*sparse, "--budget-share", "0.1", "--top-p-mass", "0.5"), "top_p")):
        p = run(*flags, *bad)
        assert p.returncode == 1 and named in p.stderr and p.stderr.count("\n") == 1


def test_raw_continues_the_text(run):
    text = "Once upon a time there was a sailor who lived by the sea, and every morning he"
    p = run("generate", "--raw", text, "--temperature", "0", "--max-tokens", "8")
    assert p.returncode == 0 and p.stdout.strip()
    assert p.stdout != run("generate", text, "--temperature", "0", "--max-tokens", "8").stdout
    p = run("generate", "--raw", input="")
    assert p.returncode == 1 and "empty" in p.stderr


def test_seed_decides(run):
    sample = lambda seed: run("generate", "--raw", "The", "--temperature", "1.5", "--max-tokens", "32", "--ignore-eos", "--seed", seed).stdout
    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_stop_string_and_length(run):
    full = run("generate", "--raw", "Once upon a time", "--temperature", "0", "--max-tokens", "16", "--ignore-eos", "--no-statistics").stdout.rstrip("\n")
    stop = full[len(full) // 2:len(full) // 2 + 3]
    cut = run("generate", "--raw", "Once upon a time", "--temperature", "0", "--max-tokens", "16", "--ignore-eos", "--stop", stop).stdout.rstrip("\n")
    assert cut == full[:full.index(stop)]


def test_bad_input_is_one_clear_line(run, tmp_path):
    missing = run("generate", "--file", tmp_path / "none.txt")
    assert missing.returncode == 1 and "none.txt" in missing.stderr and missing.stderr.count("\n") == 1
    both = run("generate", "hi", "--file", tmp_path / "x")
    assert both.returncode == 1 and "two prompts" in both.stderr
    empty = run("generate", input="")
    assert empty.returncode == 1 and "empty" in empty.stderr
    template = tmp_path / "broken.jinja"
    template.write_text("{% for m in messages %}")
    broken = run("generate", "hi", "--chat-template", template)
    assert broken.returncode == 1 and broken.stderr.startswith("error: ") and broken.stderr.count("\n") == 1


def test_prompt_that_does_not_fit(run):
    p = run("generate", "--raw", "--max-context", "64", input="word " * 500)
    assert p.returncode == 1
    assert re.fullmatch(r"error: the prompt has \d+ tokens; at most 63 fit.*\n", p.stderr)


def test_broken_utf8_on_stdin_is_no_crash(program):
    p = subprocess.run([program, "generate", *GREEDY], input=b"caf\xe9 \xff\xfe \x00 ?", capture_output=True, timeout=60)
    assert p.returncode in (0, 1)
    p.stdout.decode("utf-8")
    assert p.returncode == 0 or p.stderr.startswith(b"error: ")


def test_full_disk(program):
    with open("/dev/full", "w") as full:
        p = subprocess.run([program, "generate", "hi", *GREEDY], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert p.returncode == 1 and "No space left" in p.stderr


def test_reader_that_goes_away_ends_the_program(program):
    p = subprocess.Popen([program, "generate", "--raw", "The", "--ignore-eos", "--max-tokens", "20000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.read(1)
    p.stdout.close()
    start = time.monotonic()
    assert p.wait(20) == -signal.SIGPIPE
    assert time.monotonic() - start < 10
    assert p.stderr.read() == b""


def test_interrupt_stops_a_one_shot_answer(program):
    p = subprocess.Popen([program, "generate", "--raw", "The", "--ignore-eos", "--max-tokens", "20000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.read(1)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 130
    assert b"interrupted" in err


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, program, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "dumb"
            os.execv(program, [program, *arguments])
        self.screen = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern, timeout=30):
        """Waits until what came since the last match matches."""
        end = time.monotonic() + timeout
        while not (m := re.search(pattern, self.screen)):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.screen!r}"
            try:
                piece = os.read(self.fd, 65536)
            except OSError:
                piece = b""
            assert piece, f"the program ended before {pattern!r}: {self.screen!r}"
            self.screen += piece.decode(errors="replace")
        self.screen = self.screen[m.end():]
        return m

    def exit_code(self, timeout=20, again=None):
        """Waits for the program's end. `again` is typed every two seconds: a key that comes just while the line editor takes the terminal
        over may be lost, as it is for a person."""
        end = time.monotonic() + timeout
        typed = time.monotonic()
        while time.monotonic() < end:
            if again and time.monotonic() > typed + 2:
                typed = time.monotonic()
                self.type(again)
            ready, _, _ = select.select([self.fd], [], [], 0.05)
            if ready:
                try:
                    self.screen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("the program goes on")


def test_chat(program):
    t = Terminal(program, "generate", *GREEDY)
    t.expect(r"/help.*\n")
    t.expect("> ")
    t.type(QUESTION + "\n")
    t.expect(r"horse\?\s")         # the echo
    t.expect("48213")
    t.expect(r"\[\d+ prompt tokens")
    t.expect("> ")
    t.type("/help\n")
    t.expect("/system TEXT")
    t.expect("> ")
    t.type("/nonsense\n")
    t.expect("no command /nonsense")
    t.expect("> ")
    t.type("And now?\n")
    first = t.expect(r"\[(\d+) prompt tokens \((\d+) cached\)")  # the history is sent, and found in the prefix cache
    t.expect("> ")
    t.type("/reset\n")
    t.expect("forgotten")
    t.expect("> ")
    t.type("And now?\n")
    second = t.expect(r"\[(\d+) prompt tokens")
    assert int(second.group(1)) < int(first.group(1))
    t.expect("> ")
    t.type("\x04")                 # Ctrl-D
    assert t.exit_code(again="\x03") == 0


def test_chat_interrupts(program):
    t = Terminal(program, "generate", "--ignore-eos", "--temperature", "0")
    t.expect("> ")
    t.type("Tell me a long story.\n")
    t.expect(r"story\.[\s\S]*\w{3}[\s\S]*\w{3}")
    time.sleep(0.5)
    t.type("\x03")                 # Ctrl-C stops the answer, not the program
    t.expect("interrupted")
    t.expect("> ")
    t.type("half a line")
    t.expect("half a line")
    t.type("\x03")                 # drops the line
    t.expect("> ")
    t.type("\x03")                 # an empty line: leaves
    assert t.exit_code(again="\x03") == 0


def test_raw_needs_a_prompt(program):
    t = Terminal(program, "generate", "--raw")
    t.expect("error: --raw")
    assert t.exit_code() == 1
