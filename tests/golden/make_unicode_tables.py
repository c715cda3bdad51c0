#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cc: what the `tokenizers` package takes each code point for.

The package mixes Unicode versions: its regular expressions, its char methods, its normaliser and its grapheme splitter
each carry their own tables. To give identical tokens for every script we ask the package about every code point and
keep the answer, either whole (small classes) or as the difference from Unicode 14, which is what the oldest libraries
we build on know (PCRE2 10.42: Unicode 14; utf8proc 2.8: Unicode 15). A newer library only makes a difference redundant.

Run with CPython 3.11 (whose unicodedata is Unicode 14) and `pip install tokenizers sentencepiece`:
    python tests/golden/make_unicode_tables.py src/text/unicode_tables.cc
"""
import os
import sys
import tempfile
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "the differences are taken from Unicode 14: use CPython 3.11"

ALL = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(ALL)
CATEGORY = {c: unicodedata.category(c) for c in ALL}


def pieces(pre_tokenizer, text=TEXT):
    return [p for p, _ in pre_tokenizer.pre_tokenize_str(text)]


def regex_class(pattern):
    found = pieces(pre_tokenizers.Split(Regex(pattern + "+"), "removed", invert=True))
    return {c for piece in found for c in piece}


def baseline(category):
    return {c for c in ALL if CATEGORY[c].startswith(category)}


def ranges(chars):
    out = []
    for code in sorted(map(ord, chars)):
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def merged_ranges(wanted, forbidden):
    """Ranges that hold all of `wanted` and none of `forbidden`; what is in neither may fall on either side."""
    out = []
    for code in range(0x110000):
        if code in forbidden:
            out.append(None)
        elif code in wanted:
            if out and out[-1] is not None:
                out[-1][1] = code
            else:
                out.append([code, code])
    return [r for r in out if r is not None]


def emit(name, rows, per_row="{{0x{:X}, 0x{:X}}}", kind="CodeRange"):
    cells = [per_row.format(*row) for row in rows]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 118:
            lines.append(line)
            line = "   "
        line += " " + cell + ","
    lines.append(line)
    body = "\n".join(lines)
    return (f"constexpr {kind} k{name}Rows[] = {{\n{body}\n}};\n"
            f"constinit const std::span<const {kind}> k{name} = k{name}Rows;\n")


def charsmap_of_rule(rule):
    """The double array that sentencepiece compiles from one normalisation rule."""
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        with open(path("rules.tsv"), "w") as f:
            f.write(rule + "\n")
        with open(path("text"), "w") as f:
            f.write("\n".join("hello world %d" % i for i in range(500)))
        sentencepiece.SentencePieceTrainer.train(
            input=path("text"), model_prefix=path("m"), vocab_size=40, hard_vocab_limit=False, minloglevel=2,
            model_type="unigram", normalization_rule_tsv=path("rules.tsv"))
        with open(path("m.model"), "rb") as f:
            return dict(protobuf_fields(dict(protobuf_fields(f.read()))[3]))[2]


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
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            value = data[i:i + size]
            i += size
        yield key >> 3, value


def main():
    out = []
    # --- char methods and other crates: whole classes.
    digits = pieces(pre_tokenizers.Digits(False))
    parity = next(i for i, p in enumerate(digits) if "0" in p) % 2
    out.append(emit("Numeric", ranges(c for p in digits[parity::2] for c in p)))
    kept = set("".join(pieces(pre_tokenizers.Punctuation("removed"))))
    out.append(emit("Punctuation", ranges(set(ALL) - kept)))
    space = set(ALL) - set("".join(pieces(pre_tokenizers.WhitespaceSplit())))
    out.append(emit("Whitespace", ranges(space)))
    lines = "\n".join(c + "a" for c in ALL if c not in space)
    out.append(emit("Word", ranges({p[0] for p in pieces(pre_tokenizers.Whitespace(), lines) if len(p) == 2})))
    strip_accents = normalizers.StripAccents()
    out.append(emit("CombiningMark", ranges(c for c in ALL if strip_accents.normalize_str(c) == "")))

    # --- the normaliser: code points that it takes for unassigned although Unicode 14 or later gives them a
    # decomposition or a combining class.
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    known, unknown = set(), set()
    for c in ALL:
        if nfkd.normalize_str(c) != c:
            known.add(ord(c))
            known.update(map(ord, nfkd.normalize_str(c) + nfd.normalize_str(c)))  # what it is composed of
        elif CATEGORY[c] == "Cn" or unicodedata.decomposition(c):
            unknown.add(ord(c))
        elif unicodedata.combining(c):
            probe = c + "\u0334" if unicodedata.combining(c) > 1 else "\u0345" + c
            (known if nfd.normalize_str("a" + probe) != "a" + probe else unknown).add(ord(c))
    out.append(emit("NotNormalized", merged_ranges(unknown - known, known)))

    # --- lower case that Unicode 14 does not know.
    lower = normalizers.Lowercase()
    pairs = [(ord(c), ord(lower.normalize_str(c))) for c in ALL if lower.normalize_str(c) != c.lower()]
    out.append(emit("Lower", pairs, kind="LowerPair"))

    # --- grapheme extenders assigned after Unicode 14.
    precompiled = normalizers.Precompiled(charsmap_of_rule("61\t62"))
    out.append(emit("Extend", ranges(c for c in ALL if CATEGORY[c] == "Cn" and precompiled.normalize_str("a" + c) == "b")))

    # --- regular expressions: differences of the general categories, \w, and the one script that patterns use.
    rows = []
    for category in "L M N P S Z Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf".split():
        more = ranges(regex_class(r"\p{%s}" % category) - baseline(category))
        if more:
            out.append(emit("Regex" + category, more))
            rows.append(category)
    word = regex_class(r"\w")
    for category in "L M Nd Nl Pc".split():
        word -= baseline(category)
    out.append(emit("RegexWordExtra", ranges(word)))
    newer = {c for c in ALL if CATEGORY[c] == "Cn"}
    out.append(emit("RegexAlphabetic", ranges(regex_class(r"\p{Alphabetic}") & newer)))
    out.append(emit("RegexHan", ranges(regex_class(r"\p{Han}"))))
    table = ",\n    ".join('{"%s", kRegex%sRows}' % (c, c) for c in rows)
    out.append("constexpr RegexCategory kRegexCategoryRows[] = {\n    " + table + "};\n"
               "constinit const std::span<const RegexCategory> kRegexCategories = kRegexCategoryRows;\n")

    with open(sys.argv[1], "w") as f:
        f.write("// Written by tests/golden/make_unicode_tables.py from the tokenizers package %s: do not edit.\n" %
                tokenizers.__version__)
        f.write('#include "text/unicode_tables.h"\n\n// clang-format off\nnamespace tinyserve::unicode {\n\n')
        f.write("\n".join(out))
        f.write("\n}  // namespace tinyserve::unicode\n// clang-format on\n")


if __name__ == "__main__":
    main()
