#!/usr/bin/env python3
"""Trains small tokenizers of every kind and writes what the `tokenizers` and `sentencepiece` packages make of some
twenty thousand strings: the oracle of src/text/tokenizer_golden_test.cc.

Writes into tests/golden/tokenizers/:
  NAME/tokenizer.json or NAME/tokenizer.model   the tokenizers
  goldens.tar.xz                                strings.bin, NAME.bin, NAME.decode.bin (formats below), and
                                                components.json: every normaliser, pre-tokenizer and decoder by itself

strings.bin: for each string u32 length, then its bytes (little-endian throughout; not always valid UTF-8).
NAME.bin: for each string, and then for each piece of text-valid (each file cut behind the first newline at or beyond
4096 bytes, over and over; then the whole file; files in order of name): u16 crc32 of the ids (i32 each) folded to 16
bits, u16 number of ids, u16 crc32 of the decoded text folded. String i is encoded with special tokens when i is even,
with special tokens in the text taken as text when i % 7 == 3, and decoded without special tokens when i % 3 == 0.
NAME.decode.bin: 300 random lists of ids: u8 length, u16 each, u16 folded crc32 of the text with special tokens, u16
without.

Run with CPython 3.11 and `pip install tokenizers sentencepiece==0.1.97 numpy`, from the root of the repository:
    python tests/golden/make_tokenizer_goldens.py [NAME...]
With names, only these tokenizers are made anew. 0.1.97 is the libsentencepiece of Debian 12, which we link: 0.2 chooses
differently between segmentations of equal score (in 2 of the strings).
"""
import io
import json
import lzma
import os
import random
import struct
import sys
import tarfile
import tempfile
import unicodedata
import zlib

import numpy
import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, "tests/golden/tokenizers")
rng = random.Random(20240607)

GPT2_EXTRA = ["<|endoftext|>"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
GPT4O = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def special(text, **flags):
    return AddedToken(text, special=True, normalized=False, **flags)


# ---------------------------------------------------------------------------------------------- text

def text_valid():
    files = {}
    with tarfile.open(os.path.join(ROOT, "tests/data/text-valid.tar.xz")) as tar:
        for member in tar.getmembers():
            if member.isfile():
                files[os.path.basename(member.name)] = tar.extractfile(member).read()
    return [files[name] for name in sorted(files)]


def cut(data):
    pieces, begin = [], 0
    while begin < len(data):
        end = data.find(b"\n", begin + 4096)
        end = len(data) if end < 0 else end + 1
        pieces.append(data[begin:end])
        begin = end
    return pieces + [data]


def assigned():
    """Code points by script, more or less: the first word of the name; those after Unicode 14 by their block of 256."""
    groups = {}
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    known = pre_tokenizers.Split(Regex(r"[\p{L}\p{M}\p{N}\p{P}\p{S}]+"), "removed", invert=True)
    for piece, _ in known.pre_tokenize_str(everything):
        for c in piece:
            name = unicodedata.name(c, "").split(" ")[0].split("-")[0] or "U%04X" % (ord(c) >> 8)
            groups.setdefault(name, []).append(c)
    return groups


def words(alphabet, count, low=1, high=9):
    return ["".join(rng.choice(alphabet) for _ in range(rng.randint(low, high))) for _ in range(count)]


def make_strings():
    out = []
    groups = assigned()
    spaces = [" ", " ", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u2003", "\u200b", "\u180e", "\u0085", "\u2028"]
    joiners = spaces + [".", ",", "'", "-", "!", "؟", "。", "’", "1", "42", "2024", "٣", "Ⅷ", "½", "'s", "'LL", "▁"]
    for name in sorted(groups):
        alphabet = groups[name]
        for _ in range(5 if len(alphabet) < 8 else 13):
            parts = []
            for word in words(alphabet, rng.randint(1, 8)):
                parts += [word, rng.choice(joiners)]
            out.append("".join(parts))
    # Every assigned character once, 64 a string, with a letter between now and then.
    flat = [c for name in sorted(groups) for c in groups[name]]
    for i in range(0, len(flat), 64):
        out.append("".join(flat[i:i + 64]))
    rest = [chr(rng.choice([rng.randrange(0xE000, 0xF900), rng.randrange(0x20000, 0x110000)])) for _ in range(4000)]
    for i in range(0, len(rest), 8):
        out.append("a".join(rest[i:i + 8]))

    people = list("👨👩👧👦🧑👮💂🕵🏃🤝❤💋") + ["👩‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👩🏽‍💻", "❤️‍🔥", "1️⃣", "#️⃣", "🇩🇪", "🇺🇸", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
    glue = ["", "\u200d", "\ufe0f", "\ufe0e", "🏻", "🏿", " ", "\u20e3", "a", "\U000e0067"]
    for _ in range(1200):
        out.append("".join(rng.choice(people) + rng.choice(glue) for _ in range(rng.randint(1, 9))))

    marks = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))]
    bases = list("aeiouAEIOUncsKſÅΩµﬁ①㎏ｶﾞ가각각กนअकযরא") + ["\u1100\u1161\u11a8", "ﷺ", "ǆ", "ẛ̣", "\u0344", "\u2126"]
    for _ in range(2500):
        s = ""
        for _ in range(rng.randint(1, 6)):
            s += rng.choice(bases) + "".join(rng.choice(marks) for _ in range(rng.choice([0, 1, 1, 2, 3, 6])))
        out.append(s)
    controls = [chr(c) for c in list(range(0x20)) + list(range(0x7F, 0xA1))] + list("\u200b\u200e\u202e\u2066\ufeff\ufffd\u00ad")
    for _ in range(900):
        out.append("".join(rng.choice(controls) if rng.random() < 0.4 else rng.choice("ab 1.") for _ in range(rng.randint(1, 20))))
    ws = " \t\n\r\x0b\x0c\x1c\x1f\u0085\u00a0\u1680\u180e\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
    for _ in range(1200):
        s = ""
        for _ in range(rng.randint(1, 6)):
            run = rng.choice([" ", " ", "\n", "\r\n", "\t", rng.choice(ws)])
            s += rng.choice(["", "a", "word", "x1", "1", ".", "é"]) + run * rng.choice([1, 1, 2, 3, 7, 40])
        out.append(s + rng.choice(["", "end", " "]))

    english = "I we you they he it don't can't I'm you've she'll we'd John's THEY'RE it'S 'tis o'clock rock'n'roll".split()
    ascii_words = english + words("abcdefghijklmnopqrstuvwxyz", 200) + words("ABCdef_123", 60) + ["ſ", "'ſ", "K", "ﬀ"]
    for _ in range(2500):
        s = ""
        for _ in range(rng.randint(1, 14)):
            s += rng.choice(ascii_words) if rng.random() < 0.7 else str(rng.randrange(10 ** rng.randint(1, 12)))
            s += rng.choice([" ", " ", " ", "", "\n", "  ", ", ", ".", "; ", " == ", "(", ")", "{\n    ", "/*", "://", "-", "'", "\"", "…", "—"])
        out.append(s)
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end|>", "<s>", "</s>", "<unk>", "<pad>",
             "<0x0A>", "<0xE2>", "[MASK]", "[SINGLE]", "[LEFT]", "[RIGHT]", "[BOTH]", "Éclair", "éclair", "ECLAIR", "<tool>",
             "<tool_call>", "<tool", "\n\n", "   ", "▁▁", "<|reserved_0|>", "[MASK", "plain", "unplain", "<bos>", "  <x>"]
    for _ in range(2600):
        s = ""
        for _ in range(rng.randint(1, 7)):
            s += rng.choice(["", " ", "  ", "\n", "a", "word ", "é", "_", "1", "\u3000", ".", "▁", "日本"]) + rng.choice(added)
        out.append(s + rng.choice(["", " ", "x", " tail", "\n"]))
    for n in [1, 2, 3, 255, 256, 257, 1000, 5000, 20000]:
        out += ["a" * n, " " * n, "\n" * n, "é" * n, "▁" * n, "日" * n, " a" * n, "ab" * n, "1" * n, "👨‍👩" * n, "e\u0301" * n, "'" * n]
    out += ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(300, 3000))) for _ in range(40)]
    out += ["", "a", " ", "\0", "\0\0a\0"]

    out = [s.encode() for s in out]
    broken = [b"\x80", b"\xff", b"\xc0\x80", b"\xc3", b"\xe2\x96", b"\xf0\x9f\x91", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
              b"\xe0\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xc3\xc3\xa9", b"\xe2\x28\xa1", b"\xf0\x80", b"\xef\xbf"]
    for _ in range(2500):
        base = bytearray(rng.choice(out)[:rng.randint(0, 80)])
        for _ in range(rng.randint(1, 5)):
            at = rng.randint(0, len(base))
            if rng.random() < 0.6:
                base[at:at] = rng.choice(broken)
            elif base:
                base[min(at, len(base) - 1)] = rng.randrange(256)
        out.append(bytes(base))
    return out


# ---------------------------------------------------------------------------------------------- tokenizers

def training_text(strings, files):
    prose = b"".join(data[20000:60000] for data in files).decode(errors="replace").split("\n")
    mixed = [s.decode(errors="replace") for s in rng.sample(strings[:9000], 2500)]
    return prose + [s for s in mixed if len(s) < 400]


def train_bpe(tokenizer, text, size, alphabet=None, specials=(), **options):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), show_progress=False,
                                  initial_alphabet=alphabet or [], **options)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def edited(tokenizer, change):
    """The tokenizer after a change to its JSON."""
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def byte_level(text, pre, size, normalizer=None, specials=GPT2_EXTRA):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    return train_bpe(t, text, size, pre_tokenizers.ByteLevel.alphabet(), specials)


def sentencepiece_style(text, specials=("<unk>", "<s>", "</s>")):
    """BPE as SentencePiece trains it: characters, bytes for the rest."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    bytes_ = ["<0x%02X>" % b for b in range(256)]
    train_bpe(t, [line for line in text if line.isascii() or rng.random() < 0.2], 1000, None, list(specials) + bytes_,
              limit_alphabet=300)
    t.pre_tokenizer = None

    def bytes_are_ordinary(data):
        data["added_tokens"] = [a for a in data["added_tokens"] if a["content"] not in bytes_]
    return edited(t, bytes_are_ordinary)


def train_sentencepiece(text, folder, name, kind, **options):
    path = os.path.join(folder, name)
    with open(path + ".txt", "w") as f:
        f.write("\n".join(line.replace("\0", "") for line in text if line))
    sentencepiece.SentencePieceTrainer.train(
        input=path + ".txt", model_prefix=path, vocab_size=1500, model_type=kind, hard_vocab_limit=False,
        character_coverage=0.98, minloglevel=2, num_threads=1, **options)
    with open(path + ".model", "rb") as f:
        return f.read()


def protobuf_fields(data):
    i = 0

    def varint():
        nonlocal i
        shift = value = 0
        while True:
            byte = data[i]
            i += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while i < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            yield key >> 3, data[i:i + size]
            i += size


def unigram_of(model):
    """Vocabulary, unknown id and charsmap of a SentencePiece unigram model."""
    vocab, charsmap = [], b""
    for number, value in protobuf_fields(model):
        if number == 1:
            piece = dict(protobuf_fields(value))
            vocab.append((piece[1].decode(), struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0))
        if number == 3:
            charsmap = dict(protobuf_fields(value))[2]
    return vocab, [v[0] for v in vocab].index("<unk>"), charsmap


def make_tokenizers(text, folder):
    out = {}
    BL = pre_tokenizers.ByteLevel
    out["gpt2"] = byte_level(text, BL(add_prefix_space=False), 900)

    t = byte_level(text, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BL(add_prefix_space=False, use_regex=False)]), 1100, specials=[])
    t.add_special_tokens([special(x) for x in ["<|begin_of_text|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]])
    t.add_special_tokens([special("<|reserved_%d|>" % i) for i in range(8)])
    bos = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B:1", special_tokens=[("<|begin_of_text|>", bos)])])

    def ignore_merges(data):
        # Two rules less, so that two words are in the vocabulary that merges do not lead to.
        data["model"]["ignore_merges"] = True
        data["model"]["merges"] = [m for m in data["model"]["merges"] if "".join(m) not in ("Ġthe", "Ġand")]
    out["llama3"] = edited(t, ignore_merges)

    t = byte_level(text, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"), BL(add_prefix_space=False, use_regex=False)]), 900,
        normalizer=normalizers.NFC(), specials=[])
    t.add_special_tokens([special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<tool>", normalized=True)])
    out["qwen2"] = t

    out["gpt4o"] = byte_level(text, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(GPT4O), "isolated"), BL(add_prefix_space=False, use_regex=False)]), 800)
    out["deepseek"] = byte_level(text, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
        pre_tokenizers.Split(Regex("[一-龥\u3040-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(Regex(DEEPSEEK), "isolated"),
        BL(add_prefix_space=False, use_regex=False)]), 800, normalizer=normalizers.Sequence([]))
    out["falcon"] = byte_level(text, pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), BL(add_prefix_space=True), pre_tokenizers.Digits(False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]), 800)

    # SentencePiece-style BPE in the three serialisations in use.
    t = sentencepiece_style(text)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    bos = t.token_to_id("<s>")
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)])
    out["llama2"] = t

    m = edited(t, lambda data: data.update(normalizer=None))
    m.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", False)
    m.add_special_tokens([special("[MASK]", lstrip=True), special("<|im_start|>", rstrip=True)])
    out["mistral"] = m
    m = edited(t, lambda data: data.update(normalizer=None, post_processor=None))
    m.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", True)
    m.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "always", True)])
    out["metaspace"] = m
    m = edited(t, lambda data: data.update(normalizer=None, post_processor=None))
    m.normalizer = normalizers.Replace(" ", "▁")
    m.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    m.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    m.add_tokens([AddedToken("\n" * n, normalized=False) for n in range(2, 6)] +
                 [AddedToken("▁" * n, normalized=False) for n in range(2, 6)])
    out["gemma"] = m

    # Unigram, with the compiled rules of SentencePiece's nmt_nfkc.
    some = [line for line in text if line.isascii() or rng.random() < 0.02]
    out["spm_unigram"] = train_sentencepiece(some, folder, "unigram", "unigram")
    out["spm_bpe"] = train_sentencepiece(some, folder, "bpe", "bpe",
                                         byte_fallback=True, normalization_rule_name="identity",
                                         remove_extra_whitespaces=False, split_digits=True)
    vocab, unk, charsmap = unigram_of(out["spm_unigram"])
    t = Tokenizer(models.Unigram(vocab, unk, False))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", True)
    t.decoder = decoders.Metaspace("▁", "always", True)
    t.add_special_tokens(["<s>", "</s>", "<unk>"])
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))])
    out["unigram"] = t
    vocab = vocab + [("<0x%02X>" % b, -20.0) for b in range(256)]
    t = Tokenizer(models.Unigram(vocab, unk, True))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Strip(False, True),
                                         normalizers.Replace(Regex(" {2,}"), "▁")])
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", True)
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "first", True)])
    t.add_special_tokens(["<s>", "</s>", "<unk>"])
    out["unigram_bytes"] = t

    # What is left: characters without bytes, affixes, every kind of added token.
    t = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
                                         normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.Digits(True)])
    train_bpe(t, text, 900, None, ["<unk>"], limit_alphabet=150, continuing_subword_prefix="##", end_of_word_suffix="</w>")
    t.add_tokens([AddedToken("[SINGLE]", single_word=True, normalized=False), AddedToken("[LEFT]", lstrip=True, normalized=False),
                  AddedToken("[RIGHT]", rstrip=True, normalized=False),
                  AddedToken("[BOTH]", lstrip=True, rstrip=True, normalized=False),
                  AddedToken("Éclair", normalized=True), AddedToken("plain", single_word=True, normalized=True),
                  AddedToken("<tool", normalized=True), AddedToken("<tool>", normalized=False)])
    t.add_special_tokens([special("[MASK]", lstrip=True), AddedToken("<s>", special=True, normalized=True)])
    t.post_processor = processors.RobertaProcessing(("<unk>", 0), ("[MASK]", t.token_to_id("[MASK]")))
    out["affixes"] = t

    out["tiny"] = Tokenizer.from_file(os.path.join(ROOT, "models/tiny-16m-32k/tokenizer.json"))
    return out


# ---------------------------------------------------------------------------------------------- records

def folded(data):
    crc = zlib.crc32(data)
    return (crc ^ crc >> 16) & 0xFFFF


def ids_hash(ids):
    return folded(numpy.asarray(ids, dtype="<i4").tobytes())


def record(tokenizer, strings):
    spm = None
    if isinstance(tokenizer, bytes):
        spm = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
    out = io.BytesIO()
    for i, raw in enumerate(strings):
        text = raw.decode(errors="replace")
        if spm:
            ids = spm.encode(text)
            decoded = spm.decode(ids)
        else:
            tokenizer.encode_special_tokens = i % 7 == 3
            ids = tokenizer.encode(text, add_special_tokens=i % 2 == 0).ids
            decoded = tokenizer.decode(ids, skip_special_tokens=i % 3 == 0)
        out.write(struct.pack("<HHH", ids_hash(ids), min(len(ids), 65535), folded(decoded.encode())))
    return out.getvalue()


def record_decoding(tokenizer):
    out = io.BytesIO()
    spm = isinstance(tokenizer, bytes)
    if spm:
        tokenizer = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
    size = tokenizer.vocab_size() if spm else tokenizer.get_vocab_size()
    pick = random.Random(7)
    for _ in range(300):
        ids = [pick.randrange(size) for _ in range(pick.randint(1, 24))]
        out.write(struct.pack("<B%dH" % len(ids), len(ids), *ids))
        for skip in [False, True]:
            text = tokenizer.decode(ids) if spm else tokenizer.decode(ids, skip_special_tokens=skip)
            out.write(struct.pack("<H", folded(text.encode())))
    return out.getvalue()


# ---------------------------------------------------------------------------------------------- components

INPUTS = [
    "", "a", " ", "Hello world!", "  two  spaces  ", "don't I'LL 'tis", "x1 22 333 4444 ½ Ⅷ ٣٤", "tab\tnew\nline\r\nend\n\n",
    "é e\u0301 ﬁ ﬃ Å Å ①", "İSTANBUL ǅ ẞ Σς", "日本語の文 漢字", "नमस्ते ক্ষ ৌ", "한국어 각", "👩‍👩‍👧‍👦 🇩🇪 1️⃣",
    "\u00a0\u3000\u2003\u180e\u200b\u0085\u2028|", "\x00\x01\x7f\ufeff\ufffd", "a-b--c - d", "snake_case CamelCase", "...?! «quoted» ¿que?",
    "▁mark▁▁here ▁", "aaaa baab aab", "[x] {y} (z) a{x", "\u0301\u0323a\u0323\u0301", "ſ ʼn ŉ K", "ᲀ Ა Ა \U00010d50\u1c89", "e\u0897 a\u1ad0", "x.y.z", "..", "-", "--a",
]
TOKENS = [
    ["▁Hello", "▁world", "!"], ["▁", "▁▁", "a"], ["Hello", "</s>", "▁x"], ["<0xE2>", "<0x96>", "<0x81>", "a"], ["<0xE2>", "a", "<0x41>", "<0xFF>"],
    ["<0xC3>", "<0xA9>", "<0xFF>"], ["ĠHello", "Ċ", "Ã", "©"], ["Ã", "Ġ", "日"], ["  a ", " b  ", " "], ["a", "", "b"], ["<0x+F>", "<0xZZ>", "<0xe9>"], [],
    [" lead", "xx", "x"], ["▁▁a▁b", "▁c"],
]


def component_cases():
    cases = []

    def normalizer(config):
        t = Tokenizer.from_str(json.dumps({**EMPTY, "normalizer": config}))
        cases.append({"kind": "normalizer", "config": config, "outputs": [t.normalizer.normalize_str(s) for s in INPUTS]})

    def pre_tokenizer(config):
        t = Tokenizer.from_str(json.dumps({**EMPTY, "pre_tokenizer": config}))
        outputs = [[p for p, _ in t.pre_tokenizer.pre_tokenize_str(s)] for s in INPUTS]
        cases.append({"kind": "pre_tokenizer", "config": config, "outputs": outputs})

    def decoder(config):
        t = Tokenizer.from_str(json.dumps({**EMPTY, "decoder": config}))
        cases.append({"kind": "decoder", "config": config, "outputs": [t.decoder.decode(tokens) for tokens in TOKENS]})

    for kind in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"]:
        normalizer({"type": kind})
    for left in [False, True]:
        for right in [False, True]:
            normalizer({"type": "Strip", "strip_left": left, "strip_right": right})
    for pattern, content in [({"String": " "}, "▁"), ({"String": "aa"}, "b"), ({"String": "."}, ""), ({"Regex": r"\s+"}, " "),
                             ({"Regex": " {2,}"}, "▁"), ({"Regex": "a|b"}, "xx"), ({"String": "▁"}, " ")]:
        normalizer({"type": "Replace", "pattern": pattern, "content": content})
    normalizer({"type": "Prepend", "prepend": "▁"})
    normalizer({"type": "Prepend", "prepend": "ab"})
    normalizer({"type": "Sequence", "normalizers": []})
    normalizer({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
                                                    {"type": "Prepend", "prepend": "▁"}]})
    with open(os.path.join(OUT, "unigram/tokenizer.json")) as f:
        charsmap = next(n for n in json.load(f)["normalizer"]["normalizers"] if n["type"] == "Precompiled")
    t = Tokenizer.from_str(json.dumps({**EMPTY, "normalizer": charsmap}))
    cases.append({"kind": "normalizer", "config": "the Precompiled of unigram", "outputs": [t.normalizer.normalize_str(s) for s in INPUTS]})

    behaviours = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    for prefix in [False, True]:
        for regex in [False, True]:
            pre_tokenizer({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex})
    for behaviour in behaviours:
        for invert in [False, True]:
            for pattern in [{"String": "-"}, {"String": "aa"}, {"Regex": r"\s"}, {"Regex": r"\w+"}, {"Regex": "[^.]"}]:
                pre_tokenizer({"type": "Split", "pattern": pattern, "behavior": behaviour, "invert": invert})
        pre_tokenizer({"type": "Punctuation", "behavior": behaviour})
    pre_tokenizer({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False})
    for scheme in ["always", "first", "never"]:
        for split in [False, True]:
            pre_tokenizer({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split})
    pre_tokenizer({"type": "Metaspace", "replacement": "_", "add_prefix_space": True})
    for each in [False, True]:
        pre_tokenizer({"type": "Digits", "individual_digits": each})
    for kind in ["Whitespace", "WhitespaceSplit", "BertPreTokenizer"]:
        pre_tokenizer({"type": kind})
    pre_tokenizer({"type": "CharDelimiterSplit", "delimiter": "-"})
    pre_tokenizer({"type": "CharDelimiterSplit", "delimiter": "の"})
    pre_tokenizer({"type": "FixedLength", "length": 3})
    pre_tokenizer({"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
        {"type": "Digits", "individual_digits": True}]})
    pre_tokenizer({"type": "Sequence", "pretokenizers": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "Punctuation", "behavior": "Isolated"}]})

    # Ruby's syntax of regular expressions.
    for pattern in [r"\s+", r"\S+", r"\d+", r"\D", r"\w", r"\W+", r"\h+", r"\H", r"\b\w", r"\Ba", "$", "^.", ".", "(?m:.)+", "(?m:e.)", r"\p{^L}+",
                    r"\P{L}", r"[^\S\n]+", r"[\S]+", r"[[:alpha:]]+", r"[[:digit:][:space:]]+", r"\p{Han}+", r"[\p{Han}の]+", "a{,2}", "a{2}+", "(?:a{1,2})+b", "a{2}?",
                    "a{1,2}?", "a{2,}", r"\x{e9}", r"\xe", r"\u00e9", "x*", "(?i)ISTANBUL|'ll", "(?i:s)", r"\p{Greek}+", r"[\d.]+", r"(?<=a)b", "(?>a+)b", "[]a]+", r"\{",
                    "a{x", "a{", r"\p{Lu}", r"\p{Letter}", r"\p{Nd}", r"\p{Alpha}+", r"\A.", r".\z", "a++b", "a?+a", r"[a-cé-ü]+", r"[^\p{L}\p{N}\s]+", "'s|'t", r"\v", r"\n",
                    r"(?=b)", r"a|", LLAMA3, QWEN2, GPT4O, DEEPSEEK, r"\p{Upper}", r"\p{Lower}+", r"\p{Word}+", r"\p{Space}", r"\p{Alnum}+", r"\p{M}", r"\p{S}+"]:
        pre_tokenizer({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False})

    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    for config in [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "ByteFallback"},
                   {"type": "Fuse"}, replace, strip, {"type": "Strip", "content": " ", "start": 2, "stop": 0},
                   {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
                   {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
                   {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
                   {"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "#"},
                   {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
                   {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, replace, strip]},
                   {"type": "Sequence", "decoders": []}]:
        decoder(config)
    return {"inputs": INPUTS, "tokens": TOKENS, "cases": cases}


EMPTY = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}


def main():
    assert sentencepiece.__version__ == "0.1.97", sentencepiece.__version__
    files = text_valid()
    strings = make_strings()
    print(len(strings), "strings,", sum(map(len, strings)), "bytes")
    assert len(strings) >= 20000
    everything = strings + [piece for data in files for piece in cut(data)]
    with tempfile.TemporaryDirectory() as folder:
        tokenizers = make_tokenizers(training_text(strings, files), folder)
    archive = os.path.join(OUT, "goldens.tar.xz")
    members = {}
    only = sys.argv[1:]
    if only:
        with tarfile.open(archive) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    members["strings.bin"] = b"".join(struct.pack("<I", len(s)) + s for s in strings)
    for name, tokenizer in tokenizers.items():
        if only and name not in only:
            continue
        if name != "tiny":
            os.makedirs(os.path.join(OUT, name), exist_ok=True)
            path = os.path.join(OUT, name, "tokenizer.model" if isinstance(tokenizer, bytes) else "tokenizer.json")
            with open(path, "wb") as f:
                f.write(tokenizer if isinstance(tokenizer, bytes) else
                        (json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))).encode())
            if not isinstance(tokenizer, bytes):
                tokenizer = Tokenizer.from_file(path)
        members[name + ".bin"] = record(tokenizer, everything)
        members[name + ".decode.bin"] = record_decoding(tokenizer)
        print(name, len(members[name + ".bin"]))
    members["components.json"] = json.dumps(component_cases(), ensure_ascii=False).encode()
    with lzma.open(archive, "wb", preset=9) as xz, tarfile.open(fileobj=xz, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
