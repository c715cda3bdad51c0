#!/usr/bin/env python3
"""Writes src/text/jinja/unicode_tables.inc: character classes and case mappings of Python's unicodedata.

Templates are written against Python's str, so its tables decide what upper(), isalpha() or repr() do.
Run:  python3 tools/make_unicode_tables.py > src/text/jinja/unicode_tables.inc
"""
import sys
import unicodedata

CHARS = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]


def ranges(name, predicate):
    out, start, last = [], None, None
    for c in map(ord, filter(predicate, CHARS)):
        if last is not None and c == last + 1:
            last = c
            continue
        if start is not None:
            out.append((start, last))
        start = last = c
    if start is not None:
        out.append((start, last))
    emit(f"const CharRange k{name}Ranges[] = {{", [f"{{{a:#x},{b:#x}}}" for a, b in out])


def mapping(name, function):
    """Runs of characters with the same difference and a step of 1 or 2, and those that become several characters."""
    simple, special = [], []
    for ch in CHARS:
        to = function(ch)
        if to == ch:
            continue
        if len(to) == 1:
            simple.append((ord(ch), ord(to) - ord(ch)))
        else:
            special.append((ord(ch), [ord(t) for t in to]))
    runs = []
    for c, d in simple:
        if runs:
            first, last, step, delta = runs[-1]
            gap = c - last
            if d == delta and (gap == step or (first == last and gap in (1, 2))):
                runs[-1] = (first, c, gap, d)
                continue
        runs.append((c, c, 1, d))
    emit(f"const CaseRun k{name}Runs[] = {{", [f"{{{a:#x},{b:#x},{s},{d}}}" for a, b, s, d in runs])
    emit(f"const CaseSpecial k{name}Specials[] = {{",
         ["{%#x,{%s}}" % (c, ",".join(hex(t) for t in to + [0] * (3 - len(to)))) for c, to in special])


def emit(head, items):
    print(head)
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 119:
            print(line)
            line = "   "
        line += " " + item + ","
    print(line)
    print("};")


print("// Made by tools/make_unicode_tables.py from Unicode", unicodedata.unidata_version + ". Do not edit.")
ranges("Space", str.isspace)
ranges("Unprintable", lambda c: not c.isprintable())
ranges("Alpha", str.isalpha)
ranges("Numeric", str.isnumeric)
ranges("Digit", str.isdigit)
ranges("Decimal", str.isdecimal)
ranges("Upper", str.isupper)
ranges("Lower", str.islower)
ranges("Title", lambda c: unicodedata.category(c) == "Lt")
ranges("Cased", lambda c: c.isupper() or c.islower() or unicodedata.category(c) == "Lt")
ranges("CaseIgnorable", lambda c: unicodedata.category(c) in ("Mn", "Me", "Cf", "Lm", "Sk")
       or c in "'.:\u00b7\u0387\u055f\u05f4\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a")
mapping("Upper", str.upper)
mapping("Lower", str.lower)
mapping("Title", str.title)
