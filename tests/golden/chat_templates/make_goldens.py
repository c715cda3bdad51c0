#!/usr/bin/env python3
"""Makes expressions.json, statements.json and families.json: what jinja2 renders for the cases in cases.py and for the
templates in families/.

    python3 -m venv venv && venv/bin/pip install jinja2==3.1.6
    venv/bin/python tests/golden/chat_templates/make_goldens.py

The environment is set up as transformers sets its own up for chat templates: immutable sandbox, trim_blocks,
lstrip_blocks, loop controls, the generation tag, tojson without HTML escapes, raise_exception and strftime_now (here
with a frozen clock).
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

import cases
import chats

HERE = pathlib.Path(__file__).resolve().parent
NOW = datetime.datetime(2024, 7, 26, 9, 5, 7)


class Raised(jinja2.exceptions.TemplateError):
    pass


class GenerationTag(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %}: a block of its own scope, as when no mask is asked for."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("render_body"), [], [], body).set_lineno(line)

    @staticmethod
    def render_body(caller):
        return caller()


def make_environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise Raised(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: NOW.strftime(fmt)
    return env


ENV = make_environment()


def run(case, source, context):
    try:
        output = ENV.from_string(source).render(**json.loads(json.dumps(context)))
        if " at 0x" in output:  # a generator or function printed as an address: no template means that
            case["error"] = "prints an address"
        else:
            case["output"] = output
    except Raised as e:
        case["error"], case["raised"] = "raise_exception", str(e)
    except Exception as e:  # whatever Python raises is an error of the template here
        case["error"] = f"{type(e).__name__}: {e}"
    return case


def write(name, templates, contexts, done):
    expected = sum("error" in c for c in done)
    names = [c["name"] for c in done]
    assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]
    with open(HERE / name, "w") as f:
        json.dump({"templates": templates, "contexts": contexts, "cases": done}, f, ensure_ascii=False, indent=1)
        f.write("\n")
    print(f"{name}: {len(done)} cases, {expected} of them errors")


def main():
    print("jinja2", jinja2.__version__, "python", sys.version.split()[0])
    done = []
    for i, expression in enumerate(cases.EXPRESSIONS):
        source = "{{ " + expression + " }}"
        done.append(run({"name": f"{i}: {expression}", "template": source, "context": "shared"}, source, cases.CONTEXT))
    for i, expression in enumerate(cases.ERRORS):
        source = "{{ " + expression + " }}"
        case = run({"name": f"error {i}: {expression}", "template": source, "context": "shared"}, source, cases.CONTEXT)
        if "error" not in case:
            sys.exit(f"no error: {expression} gives {case['output']}")
        done.append(case)
    write("expressions.json", {}, {"shared": cases.CONTEXT}, done)
    done = [run({"name": f"{i}: {s[:60]}", "template": s, "context": "shared"}, s, cases.CONTEXT)
            for i, s in enumerate(cases.STATEMENTS)]
    write("statements.json", {}, {"shared": cases.CONTEXT}, done)

    templates = {p.stem: p.read_text() for p in sorted((HERE / "families").glob("*.jinja"))}
    done = []
    for name, source in templates.items():
        for chat, context in chats.CHATS.items():
            done.append(run({"name": f"{name} / {chat}", "template": name, "context": chat}, source, context))
    write("families.json", templates, chats.CHATS, done)
    for name in templates:
        good = [c for c in done if c["template"] == name and "output" in c]
        assert len(good) >= 3, f"{name} renders too few chats: {[c.get('error') for c in done if c['template'] == name]}"


if __name__ == "__main__":
    main()
