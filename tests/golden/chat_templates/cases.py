"""Expressions and statements that are rendered with jinja2 and with our interpreter."""

CONTEXT = {
    "a": 7, "b": -3, "zero": 0, "big": 9007199254740993, "f": 2.5, "g": -0.125, "t": True, "n": None,
    "s": "Hello World", "u": "Straße ÀÉ 你好 🙂", "empty": "", "html": "<a href='x'>\"&\"</a>",
    "xs": [3, 1, 2], "names": ["bob", "Alice", "carol", "alice"], "nested": [[1, 2], [3, [4, "5"]]],
    "d": {"z": 1, "a": {"b": [10, 20, 30]}, "items": "own", "n": None, "k y": 2.0},
    "people": [{"name": "Bo", "age": 30, "tag": {"x": 2}}, {"name": "al", "age": 25, "tag": {"x": 1}},
               {"name": "Cy", "age": 30}],
    "text": "line one\n  line two\n\nline four\n", "mixed": [1, "a", None, True, 2.0, [], {}],
}

EXPRESSIONS = r'''
1
-1
+1
1_000_000
0x1F
0o17
0b101
1.5
1e3
1.5e-3
1E2
2.0
100000000000000000.0
0.0001
0.00001
1e16
123456789012345680.0
1e22
1.0e-10
0.1 + 0.2
1 / 3
2 / 3 * 3
-0.0
"abc"
'abc' "def"
'it\'s'
"tab\tnl\nq\"\\"
"\x41\u00e9\U0001F642"
"\101\q"
'é ü 你'
true
True
false
none
None
[]
[1, 'a', 2.5, none, true]
[1,]
()
(1,)
(1, 2)
1, 2
{}
{'a': 1, "b": [1, {'c': none}]}
{1: 'x', none: 'y', (1, 2): 'z'}
{'a': 1, 'a': 2}
['it\'s', "a\"b", 'both\'"', 'nl\n\t\\', '\x00\x7f', 'é\u200b\xa0']
undefined_thing
[undefined_thing]
1 + 2 * 3
(1 + 2) * 3
2 ** 10
2 ** 3 ** 2
-2 ** 2
2 ** -1
2 ** 0.5
0 ** 0
7 // 2
-7 // 2
7 // -2
7 % 3
-7 % 3
7 % -3
7.5 % 2
-7.5 % 2
7.5 // 2
-7.5 // 2
7 / 2
6 / 2
1 - 2 - 3
100 - 5 * 3 + 2
a + b
a * f
f - g
t + t
t * 3
-t
+f
-f
- -3
a - -b
s + "!"
s * 2
2 * "ab"
"ab" * 0
"ab" * -1
[1] * 3
(1, 2) * 2
[1] + [2]
(1,) + (2,)
"a" ~ 1 ~ 2.0 ~ none ~ true ~ [1]
1 ~ 2 + 3
1 + 2 ~ 3 * 4
a ~ undefined_thing ~ b
1 < 2
1 < 2 < 3
1 < 3 < 2
3 > 2 >= 2
1 == 1.0
1 == true
"1" == 1
none == none
none == false
[1, 2] == [1, 2]
[1, 2] == (1, 2)
{'a': 1} == {'a': 1.0}
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
"a" < "b"
"Z" < "a"
"é" > "z"
[1, 2] < [1, 3]
[1] < [1, 0]
(1, 'a') < (1, 'b')
1 != 2 != 1
undefined_thing == undefined_other
undefined_thing == none
true and false
true or false
not true
not not true
1 and 2
0 or "x"
"" or none or []
0 and undefined_thing.x
not undefined_thing
true and not false or false
1 in [1, 2]
"ell" in "Hello"
"" in "abc"
"x" in {"x": 1}
1 in {"x": 1}
2 not in [1, 2]
not 2 in [1, 2]
none in [none]
1.0 in [1]
"a" in undefined_thing
undefined_thing in [1]
1 in (1, 2)
2 in range(3)
"z" in d
"z" in d.keys()
1 in d.values()
("z", 1) in d.items()
"yes" if true else "no"
"yes" if false else "no"
"yes" if false
1 if true else 2 if true else 3
1 if false else 2 if false else 3
(1 if t else 2) + 1
a if a > 5 else b
xs[0]
xs[-1]
xs[5]
xs[0:2]
xs[::-1]
xs[-2:]
xs[:-1]
xs[1:]
xs[::2]
xs[5:]
xs[-10:2]
xs[2:0:-1]
xs[:]
xs[none:2]
(1, 2, 3)[1:]
"hello"[1]
"hello"[-1]
"hello"[1:3]
"hello"[::-1]
"hello"[9]
"hello"[9:]
u[0]
u[4]
u[-1]
u[::-1]
u[3:8]
u[-3:]
u|length
range(10)[2]
d.z
d['z']
d.a.b[1]
d['a']['b'][-1]
d.missing
d['missing']
d["k y"]
d[1]
d.n
d.items()|list
d['items']
d.get('z')
d.get('q')
d.get('q', 5)
d.keys()
d.values()
d.items()
d.keys()|list
nested[1][1][0]
nested.1.1
nested[1].1.1
people.0.name
people[0].tag.x
people[2].tag
people[2].tag is defined
s.x
n.x
a.x
5.x
xs[1.0]
xs['a']
s[true]
mixed
d
nested
people
range(5)
range(1, 10, 3)
range(5, 0, -2)|list
range(0)|list
range(3)|list
range(-2, 2)|list
range(5)|length
range(5)|last
s.upper()
s.lower()
s.title()
"hELLO wORLD".capitalize()
"hello world-foo (bar) it's".title()
s.swapcase()
"  x y ".strip()
"  x ".lstrip() ~ "|"
"  x ".rstrip() ~ "|"
"xxhixx".strip("x")
"abcba".lstrip("ab")
"abcba".rstrip("ab")
"éaé".strip("é")
"\u00a0 x\u2003".strip()
"\n\n x".lstrip('\n')
"a,b,,c".split(",")
"a b  c ".split()
" a b  c ".split(" ")
"a,b,c".split(",", 1)
"a b c d".split(none, 2)
"a b c d ".split(maxsplit=1)
"a,b,c".rsplit(",", 1)
" a b c ".rsplit(none, 1)
"".split()
"".split(",")
"<think>x</think>\n\ny".split('</think>')[-1].lstrip('\n')
"<think>\nx\n</think>y".split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n')
"abc".startswith("ab")
"abc".startswith(("x", "a"))
"abc".endswith("c")
"abc".endswith("b", 0, 2)
"abc".startswith("b", 1)
"abc".startswith("")
"hello".find("l")
"hello".find("z")
"hello".rfind("l")
"héllo".find("l")
"hello".find("l", 3)
"hello".find("", 9)
"hello".index("e")
"hello".count("l")
"hello".count("")
"aaa".count("aa")
"hello".replace("l", "L")
"hello".replace("l", "L", 1)
"abc".replace("", "-")
"abc".replace("", "-", 2)
"a".join(["x", "y"])
", ".join("abc")
"".join([])
"abc".isalpha()
"ab1".isalnum()
"123".isdigit()
"²".isdigit()
"½".isnumeric()
"12".isdecimal()
"²".isdecimal()
" \t".isspace()
"".isspace()
"ab".islower()
"AB1".isupper()
"Ab".isupper()
"Hello World".istitle()
"Hello world".istitle()
"abc".isascii()
"é".isascii()
"é你".isalpha()
"a".center(6, "*")
"ab".center(5) ~ "|"
"a".ljust(4, ".")
"a".rjust(4)
"-5".zfill(5)
"5".zfill(3)
"a\nb\r\nc".splitlines()
"a\nb\n".splitlines(true)
"k=v=w".partition("=")
"k=v=w".rpartition("=")
"kv".partition("=")
"foobar".removeprefix("foo")
"foobar".removesuffix("bar")
"{} and {}".format(1, "x")
"{1} {0} {name}".format("a", "b", name="c")
"{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:x}|{:,}".format("a", "b", "c", 42, 3.14159, 255, 1234567)
"{0.name} {0[age]}".format(people[0])
"{!r} {!s}".format("q", "q")
"{{}}".format()
"{:+d} {:08.3f} {:e} {:%}".format(3, 3.14159, 12345.678, 0.25)
"{:*^9}".format("mid")
"{:#x} {:b} {:o} {:_}".format(255, 5, 8, 1234567)
"{:g} {:G}".format(0.00001, 1e20)
"%s" % "x"
"%s %s" % (1, "b")
"%d%%" % 5
"%05d|%5d|%-5d|%+d" % (42, 42, 42, 42)
"%.2f %.0f %5.1f %e %g" % (3.14159, 2.5, 2.25, 12345.678, 0.0001)
"%x %X %o %#x" % (255, 255, 8, 255)
"%r %s" % ("q'", none)
"%(name)s is %(age)d" % people[0]
"%5s|%-5s|%.2s" % ("ab", "ab", "abcdef")
"%*d" % (5, 42)
"%c%c" % (65, "z")
"%s" % [1, 2]
"%d" % 3.99
"ß".upper()
"İ".lower()|length
"ΑΣ".lower()
"ΑΣΑ".lower()
"ǆ".title()
"ﬁn".upper()
"ﬁn".capitalize()
"ŉ".upper()
u.upper()
u.lower()
u.title()
u.swapcase()
u|upper
u|title
s|upper
s|lower
s|length
s|count
s|title
s|capitalize
s|trim
"  x  "|trim ~ "|"
"xxaxx"|trim("x")
"hello world-foo (bar) [baz] {q} <r> it's"|title
5|upper
none|upper
[1]|upper
undefined_thing|upper
undefined_thing|trim
undefined_thing|length
xs|length
d|length
""|length
xs|first
xs|last
[]|first
[]|last
"abc"|first
"abc"|last
d|first
d|last
undefined_thing|first
xs|join
xs|join(", ")
xs|join(d="-")
people|join(", ", attribute="name")
"abc"|join(".")
[none, true, 1.0]|join("/")
undefined_thing|join(",")
d|join(",")
undefined_thing|default("x")
undefined_thing|default
undefined_thing|d(5)
""|default("x")
""|default("x", true)
none|default("x")
none|default("x", boolean=true)
d.missing|default("m")
xs|list
"abc"|list
d|list
(1, 2)|list
undefined_thing|list
xs|sort
xs|sort(reverse=true)
names|sort
names|sort(case_sensitive=true)
names|sort(reverse=true)
people|sort(attribute="age")|map(attribute="name")|list
people|sort(attribute="age,name")|map(attribute="name")|list
people|sort(attribute="name", reverse=true)|map(attribute="name")|list
[[2, 'b'], [1, 'z'], [2, 'a']]|sort
[3.5, 1, true]|sort
"hello"|sort
d|sort
names|unique|list
names|unique(case_sensitive=true)|list
[1, 1.0, true, 2]|unique|list
people|unique(attribute="age")|map(attribute="name")|list
xs|min
xs|max
[]|max
names|max
names|min
names|min(case_sensitive=true)
people|max(attribute="age")
"hello"|max
xs|sum
[1.5, 2]|sum
[]|sum
people|sum(attribute="age")
xs|sum(start=10)
[[1], [2]]|sum(start=[])
xs|reverse|list
"abc"|reverse
u|reverse
(1, 2)|reverse|list
d|reverse|list
names|map("upper")|list
names|map("upper")|join(",")
names|map("replace", "a", "4")|list
people|map(attribute="name")|list
people|map(attribute="tag.x", default="-")|list
people|map(attribute="tag.x")|list
people|map(attribute="nope", default=0)|list
nested|map(attribute=0)|list
nested|map(attribute="1")|list
nested|map("first")|list
xs|map("string")|list
[]|map("upper")|list
undefined_thing|map("upper")|list
mixed|select|list
mixed|reject|list
xs|select("odd")|list
xs|reject("odd")|list
xs|select(">", 1)|list
xs|select("in", [1, 2])|list
mixed|select("string")|list
mixed|select("none")|list
names|select("equalto", "bob")|list
names|reject("eq", "bob")|list
people|selectattr("age", "equalto", 30)|map(attribute="name")|list
people|selectattr("tag")|map(attribute="name")|list
people|selectattr("tag", "defined")|list|length
people|rejectattr("tag")|map(attribute="name")|list
people|selectattr("age", "lt", 28)|list
people|selectattr("tag.x", "gt", 1)|map(attribute="name")|list if false else 1
none|select|list
undefined_thing|selectattr("x")|list
xs|select("divisibleby", 3)|first
d|dictsort
{"b": 1, "A": 2, "a": 0}|dictsort
{"b": 1, "A": 2, "a": 0}|dictsort(true)
{"b": 1, "A": 2}|dictsort(by="value")
{"b": 1, "A": 2}|dictsort(false, "key", true)
d|items|list
{}|items|list
undefined_thing|items|list
"5"|int
"5.9"|int
5.9|int
-5.9|int
"x"|int
"x"|int(7)
"0x1f"|int(0, 16)
"ff"|int(base=16)
"101"|int(base=2)
" 12 "|int
"1_000"|int
"-3"|int
true|int
none|int
none|int(3)
[]|int(4)
"1e3"|int
"5"|float
"x"|float
"x"|float(1.5)
5|float
" 2.5 "|float
"1e400"|float
"inf"|float
"-inf"|float
"nan"|float
none|float
b|abs
f|abs
g|abs
true|abs
2.5|round
3.5|round
2.567|round(2)
2.675|round(2)
2.5|round(0, "ceil")
2.5|round(method="floor")
-2.5|round
1234|round(-2)
1250|round(-2)
1350|round(-2)
5|round
5|round(1)
2.55|round(1, "floor")
1e20|round
1234.5678|round(-2)
5|string
none|string
[1, "a"]|string
s|replace("l", "L")
s|replace("l", "L", 1)
s|replace("", "-")
12321|replace(2, "x")
s|replace("o", "")
text|indent
text|indent(2)
text|indent(2, true)
text|indent(width=2, blank=true)
text|indent("> ", first=true, blank=true)
"x"|indent(first=true)
""|indent(2, true)
html|e
html|escape
html|e|e
html|safe
html|safe|e
html|forceescape
html|e|length
html|e|upper
5|e
("<"|safe) + "<"
"<" + ("<"|safe)
("<"|e) ~ "<"
[html|e]
html|string
"%s-%s"|format(1, "x")
"%(a)s"|format(a=5)
"a b c"|wordcount
"it's a-b c_d 5"|wordcount
"x"|center(5) ~ "|"
"foo bar baz qux"|truncate(9)
"foo bar baz qux"|truncate(9, true)
"foo bar baz qux"|truncate(11)
"foo bar baz qux"|truncate(11, false, "…", 0)
xs|batch(2)|list
xs|batch(2, 0)|list
[1,2,3,4,5]|slice(3)|list
[1,2,3,4,5]|slice(3, 0)|list
d|attr("z")
s|attr("x")
d|tojson
d|tojson(indent=2)
d|tojson(indent=4)
d|tojson(sort_keys=true)
d|tojson(separators=(",", ":"))
d|tojson(indent=0)
[]|tojson(indent=2)
{}|tojson(indent=2)
[[], {}]|tojson(indent=1)
s|tojson
u|tojson
u|tojson(ensure_ascii=true)
html|tojson
"\"\\/\b\f\n\r\t\x01\x1f\x7f"|tojson
none|tojson
true|tojson
1.0|tojson
1e100|tojson
0.1|tojson
mixed|tojson
(1, 2)|tojson
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
"nan"|float|tojson
"inf"|float|tojson
"-inf"|float|tojson
big|tojson
nested|tojson(indent="\t")
names|map("tojson")|join(" ")
a is defined
undefined_thing is defined
undefined_thing is undefined
d.missing is defined
d.n is defined
d.n is none
n is none
n is not none
not n is none
s is string
a is string
a is number
f is number
t is number
a is integer
t is integer
f is integer
f is float
a is float
t is boolean
a is boolean
d is mapping
xs is mapping
xs is sequence
s is sequence
d is sequence
a is sequence
undefined_thing is sequence
d.keys() is sequence
xs is iterable
s is iterable
a is iterable
none is iterable
undefined_thing is iterable
range is callable
a is callable
undefined_thing is callable
a is odd
a is even
a is divisibleby(7)
a is divisibleby 7
a is eq 7
a is equalto(7)
a is ne 8
a is lt 8
a is gt(3)
a is ge 7
a is le 6
a is lessthan 8
a is greaterthan 8
a is in [7]
a is not in [7]
a is in(xs)
t is true
t is false
zero is false
"abc" is lower
"ABC" is upper
"abc" is upper
html is escaped
(html|e) is escaped
t is sameas true
1 is sameas true
a is odd and b is odd
a is defined and a is number
a is not defined or true
"upper" is filter
"nope" is filter
"odd" is test
"nope" is test
1 is eq 1.0
(a is odd) == true
dict(a=1, b=2)
dict({"a": 1}, b=2)
dict([("a", 1), ("b", 2)])
dict()
namespace(a=1, b="x")
namespace(a=1).a
namespace({"a": 2}).a
namespace().x
strftime_now("%Y-%m-%d")
strftime_now("%d %b %Y %H:%M:%S %A %B %j %p %%")
strftime_now("")
range(3).count(1)
xs.index(2)
xs.count(1)
xs.copy()
d.copy() == d
names[0].upper().lower()[0]
(s|upper).lower()
s|upper|lower|title
-a|abs
-xs|length
a|abs + 1
a + xs|length
not xs|length
xs|length > 2 and s
"x" * a|string|length
[1, 2, 3][1:][0]
{"a": {"b": 1}}.a.b
"a" if d.z == 1 and "z" in d else "b"
(d.a.b|length - 1) - 0
xs[xs|length - 1]
xs[(1 + 1)]
{"x": [1, 2]}["x"][0]
[x_undefined|default(1), 2]
'a' 'b' ~ 'c'
[1, 2,]|length
dict(**{"a": 1}, b=2) if false else 3
range(*[1, 4])|list
dict(**d["a"])
"{a}".format(**{"a": 1})
"a" is string and "b" is string
1 if a is defined else 0
s.split("o")|map("trim")|list
(xs + [4])|sum
(1, 2) in [(1, 2)]
{"a": 1} in [{"a": 1}]
[] == [] and {} == {}
1.0|string ~ 1e5|string
1e15|string ~ " " ~ 1e16|string ~ " " ~ 123456.789e3|string
3.0 * 2
10 / 5
7.0 // 2
big
big + 1
-9223372036854775807
1 == 1 in [1]
"%s" | format("a")
"a\
b"
{"a": [1, 2, {"b": "c"}]}|string|length
[0, 1, 2][true]
"abc"[-2:]|upper
("a", "b")|join("+")
namespace is callable
s is not string
(none or {}).x is defined
people[0]["name"] ~ people[1]["name"]
people|map(attribute="name")|map("lower")|sort|join(",")
cycler("a", "b").next()
cycler("a", "b").current
joiner("x")()
"1,2;3".replace(";", ",").split(",")|map("int")|sum
html|replace("<", "[")|e
d|length == d.keys()|length
undefined_thing ~ "x"
"" ~ undefined_thing is string
[1, 2] is eq [1, 2]
{"k": undefined_thing}
(undefined_thing, 1)
undefined_thing|string
undefined_thing|e
not undefined_thing.x is defined if false else "skip"
'<' in html and html.startswith('<')
"a.b.c".split(".")[1:-1]
"\\n"
'"'
"{{ not a tag }}"
"%}"
{"a":{"b":{}}}
1 if 0 else ""
[[1, 2], [3, 4]]|map("sum")|list
[[1, 2], [3]]|map("length")|sum
"tEsT"|capitalize
"ABC def"|capitalize
u|capitalize
true|string|lower
[true, false, none]|map("tojson")|join(" ")
{"a": 1}.items()|map("first")|list
"abc" == 'abc'
loop is defined
range(0, 10)[5]
(range(3)|list)[::-1]
"a" < "b" < "c"
a in xs or s in names
"x".join(names|map("first"))
'%s: %s' % ("a", {"b": 1})
"\u4f60\u597d"|length
"é"|length
"e\u0301"|length
"🙂"|length
"🙂"[0]
"a🙂b"[1:]
"\U0001F642".upper()
"ĳ"|upper
1.0 == 1 and true == 1
none is none is defined if false else 1
1 not in [2] and 1 not in {}
0.1 + 0.7
1e-7
123e-7
5e-324
1.7976931348623157e308
-1e-5
33.333333333333336
9.5367431640625e-07
4 // 0.5
1e308 * 10
-1e308 * 10
'' * 1000000000
range(3) == range(3)
[1, [2, [3]]]|string
'a' not in 'b' == true
'abc'|list|reverse|join
'Az'.lower() < 'B'.lower()
"a" "b" "c"|upper
d.a.b|sum / d.a.b|length
xs|sort|first ~ xs|sort|last
xs|map("float")|list
'x'|default('y')|upper
people|map(attribute='age')|unique|sort|list
'%.3f' % 2
'%s' % none
'%s %%' % 1
"{}".format([1])
'{:d}'.format(true)
'{}{}'.format('a', none)
'x: {0!r:>6}'.format('a')
'abc'.upper().center(9, '-')
'a-b_c d'.title()
'1a a1'.title()
'o\'neil'.capitalize()
'ab\x0bcd\x0cef\x1cgh\x85ij\u2028kl'.splitlines()
'ab c\u3000d\x1fe'.split()
'a\u00a0b'.split()
'x' in 'axb' in ['axb']
'abc'.find('c', -1)
'abc'.find('a', -1)
'abcabc'.rfind('a', 0, 3)
'abc'.rindex('c')
'aXbXc'.rsplit('X')
'a  b'.split(' ')
'aaa'.replace('aa', 'b')
'\t x \n'|trim|length
'{"a": 1}'|tojson
'\u2028'|tojson
'\ufeff'|tojson
['\ufeff', '\u2028', '\U000e0001', '\u0378']
'ab'|batch(1)|list
'abcd'|slice(2)|list
'b' > 'a' and not 'a' > 'b'
'%i' % 7
'%u' % 7
'% d' % 7
'%+.1e' % 12345.0
'%g' % 100000
'%g' % 1000000
'%G' % 0.00000123
'%#o' % 8
'%.3d' % 7
'%-8.3f|' % 2.0
'%08.3f' % -2.5
'%a' % 'x' if false else 2
'%5%' % () if false else 3
'%s' % ((1, 2),)
'' is lower
'1' is lower
'a1' is lower
1.5 is odd
3 is odd
[3, 4] | map('odd') | list if false else 1
{'a': 1}|length is eq 1
'a'|attr('upper') is callable
s.upper is callable
s.nope is callable
d.get is callable
xs|first is odd
xs.append is defined
d['a'].b.0
d.a['b'].2
'x'.upper
-1 // 2
-1 % 2
1 // -2
5 % -2.5
-5 % 2.5
0.5 ** 2
4 ** 0.5
10 ** 18
-10 ** 2
(-10) ** 3
1 + -1
1 - -1
1 - - 1
2 * -3
not 1 == 2
not (1 == 2)
1 or 1 / 0
0 and 1 / 0
'a' if 1 else 1 / 0
'%d' % true
true + 0.5
true // true
false == 0
true is number
'abc' * true
[1,2,3][false]
'''.strip("\n").split("\n")
# "a\<newline>b" was split; put it back together.
EXPRESSIONS = [e for e in "\n".join(EXPRESSIONS).replace('"a\\\nb"', "JOINED").split("\n")]
EXPRESSIONS = [e.replace("JOINED", '"a\\\nb"') for e in EXPRESSIONS]

# Failures of jinja2 that must be failures here.
ERRORS = r'''
undefined_thing.x
undefined_thing['x']
undefined_thing()
undefined_thing + 1
1 + undefined_thing
undefined_thing < 1
-undefined_thing
d.missing.x
d.missing['x']
xs[9].x
undefined_thing[1:]
1 / 0
1 // 0
1 % 0
1.0 / 0
0 ** -1
"a" + 1
1 + "a"
[1] + (1,)
"a" - "b"
none + 1
{} + {}
-"a"
"a" < 1
none < 1
[1] < ["a"]
{} < {}
1 in 5
1 in "abc"
1 in none
a()
"abc"()
none()
[].append(1)
xs.append(1)
xs.pop()
xs.sort()
d.update({})
d.pop("z")
d.clear()
d.setdefault("q", 1)
xs|first|first
5|length
none|length
none|list
5|join
none|first
names|map("upper")|length
names|map("nope")|list
names|select("nope")|list
5|tojson(1, 2, 3, 4, 5)
undefined_thing|tojson
[undefined_thing]|tojson
range|tojson
xs|map("upper")|tojson
d.keys()|tojson
range(3)|tojson
[1, "a"]|sort
[none, 1]|min
[[], {}]|sort
5|items
undefined_thing|int
undefined_thing|float
undefined_thing|abs
"a"|abs
none|round
"x"|round
range(1000000)
range(100001)
range("a")
range()
range(1, 2, 0)
range(1.5)
"abc".split("")
"abc".index("z")
"abc".startswith(1)
"abc".nope()
"abc".upper(1)
"abc".join(1)
"abc".join([1])
"abc".replace("a")
"%d" % "x"
"%s %s" % (1,)
"%s" % (1, 2)
"%(a)s" % 1
"%(zz)s" % d
"%q" % 1
"%" % 1
"{}".format()
"{x}".format(1)
"{".format(1)
"{} {0}".format(1)
"{:d}".format("x")
xs|dictsort
xs|nope
xs is nope
nope(1)
d|dictsort(by="x")
dict(1)
{[]: 1}
{{}: 1}
d[xs:1]
d[1:2]
xs["a":]
xs[::0]
raise_exception("stop here")
raise_exception("say " ~ a)
raise_exception()
"a" is in 5
"x" is divisibleby 2
a is divisibleby
a is eq
xs|batch
{"a": 1}|map
1 +
(1
[1
{1
{1: }
1 2
"abc
@
a b
a.
a[
a|
a is
not
1 if
f(
f(a=1, 2)
f(*xs, 1)
f(a=1, a=2)
f(**d, b)
1..2
a.1.5
$
1 === 1
a && b
!a
a ? 1 : 2
'a' 'b
x is is y
08
'''.strip("\n").split("\n")

STATEMENTS = [
    # White space.
    "a\n{% if true %}\nb\n{% endif %}\nc\n", "  {% if true %}  x  {% endif %}  \n y",
    "  {%+ if true %}x{% endif %}\n", "a {%- if true -%} b {%- endif -%} c", "a\n\n{{- 1 -}}\n\nb",
    "x {# comment #} y\n{# c #}\nz", "a {#- c -#} b", "  {# c #}\n  b", "a{#+ c +#}\nb", "{#--#}x", "{##}x",
    "{% raw %}{{ x }} {% if %}{% endraw %}!", "{%- raw -%}  {{ x }}  {%- endraw -%}  z", "  {% raw %}\n a{% endraw %}\nb",
    "  {% raw +%}x{% endraw +%}\ny" if False else "{% raw %}\n  x\n  {% endraw %}\ny", "a\r\nb\rc\n\n", "line\n", "line\n\n", "", "\n", "{{ 1 }}\n",
    "{% if true %}\n{% endif %}\n", "\t{% if true %}\tx\n\t{% endif %}\n", "a\n   {{ 1 }}\n   b", "   {{- 1 }}", "{{ 1 -}}   \n  x",
    "{% if true +%}\nx{% endif %}", "\u00a0{% if true %}x{% endif %}", "\u00a0{%- if true %}x{% endif %}", "{{'a'}}{{'b'}}\n{{'c'}}\n\nd",
    "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ '}}' }}{{ \"%}\" }}", "{{\n  1\n  +\n  2\n}}", "{%\nif true\n%}x{%\nendif\n%}",
    "{ { x } } {x} {", "a { b } % } # }", "{{ 1 }}}", "{{1}}{2}",
    # if
    "{% if a > 5 %}big{% elif a > 3 %}mid{% else %}small{% endif %}", "{% if b > 5 %}big{% elif b > 3 %}mid{% else %}small{% endif %}",
    "{% if a == 1 %}1{% elif a == 7 %}7{% elif true %}t{% endif %}", "{% if undefined_thing %}x{% else %}y{% endif %}",
    "{% if xs %}x{% endif %}{% if not empty %}e{% endif %}", "{% if a %}{% if b %}ab{% else %}a{% endif %}{% endif %}",
    "{% if a: %}x{% endif %}" if False else "{% if 1, 2 %}t{% endif %}", "{% if false %}x{% endif %}.",
    # for
    "{% for x in xs %}{{ x }},{% endfor %}", "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in xs if x > 1 %}{{ x }}{% else %}none{% endfor %}", "{% for x in xs if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in xs if x > 1 %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{% for c in u %}[{{ c }}]{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for x in xs %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for x in xs %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "{% for x in xs %}{{ loop.previtem is defined }}{% endfor %}",
    "{% for x in xs %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1,1,2,2,1] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in xs %}{% for y in xs %}{{ loop.index }}{{ loop.depth }}{% endfor %}|{{ loop.index }}{{ loop.depth0 }} {% endfor %}",
    "{% for x in xs %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in xs %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in xs %}{% for y in xs %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endfor %}{{ x }}{% endfor %}",
    "{% for x in undefined_thing %}x{% else %}none{% endfor %}", "{% for x in 5 %}x{% endfor %}", "{% for x in none %}x{% endfor %}", "{% for a, b in [1] %}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for x in xs|sort %}{{ x }}{% endfor %}", "{% for x in xs|map('string') %}{{ x ~ loop.last }}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}{{ x is defined }}", "{% set x = 1 %}{% for x in [2] %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "{% for x in xs %}{% set y = x %}{% endfor %}{{ y is defined }}",
    "{% set g = xs|map('string') %}{% for x in g %}{{ x }}{% endfor %}-{% for x in g %}{{ x }}{% endfor %}",
    "{% set g = xs|reverse %}{{ g|first }}{{ g|list }}", "{% set g = xs|select %}{{ 1 in g }}{{ g|list }}",
    "{% for i in [[1, [2, [3]]]] recursive %}{{ i[0] }}{% if i[1] %}({{ loop([i[1]]) }}){% endif %}{% endfor %}",
    "{% for x in (1, 2) %}{{ x }}{% endfor %}", "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in [1, 2] + [3] %}{{ x }}{% endfor %}",
    "{% for x in xs -%}  {{ x }}  {%- endfor %}", "{% for m in people if m.tag is defined %}{{ m.name }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for x in d.a.b[::-1] %}{{ x }} {% endfor %}", "{{ loop }}", "{% for x in xs %}{{ loop }}{% endfor %}", "{{ range }}", "{{ namespace(a=namespace(b=[1])) }}", "{% for x in xs %}{{ loop.nope is defined }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for x in xs if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ x }}{% endfor %}",
    # set
    "{% set x = 5 %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set (x, y) = [1, 2] %}{{ x + y }}", "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x }}", "{% set x | upper %}a{{ s }}b{% endset %}{{ x }}", "{% set x | trim | replace('a', 'b') %}  aa  {% endset %}[{{ x }}]",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "{% set x = x|default(3) %}{{ x }}", "{% set a = a + 1 %}{{ a }}",
    "{% set ns = namespace(x=1) %}{% for i in xs %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "{% set ns = namespace() %}{% set ns.a = [1] %}{{ ns.a }}{{ ns }}",
    "{% set d.z = 5 %}", "{% set nope.z = 5 %}", "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a + ns.b }}", "{% set x = y = 1 %}", "{% set 1 = 2 %}", "{% set x[0] = 1 %}", "{% set true = 1 %}",
    "{% set ns = namespace(l=[]) %}{% for x in xs %}{% set ns.l = ns.l + [x * 2] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(a=1) %}{% set other = ns %}{% set other.a = 2 %}{{ ns.a }}", "{% set messages = xs[1:] %}{{ messages }}{% set messages = messages[1:] %}{{ messages }}",
    # macro
    "{% macro f(x, y=2) %}{{ x }}-{{ y }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(y=5, x=4) }}", "{% macro f() %}x{% endmacro %}{{ f() ~ f() }}{{ f()|upper }}",
    "{% macro f(x) %}{{ x is defined }}{% endmacro %}{{ f() }}{{ f(1) }}", "{% macro f(x, y=x) %}{{ y }}{% endmacro %}{{ f(3) }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, a=3) }}", "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(y=2) }}", "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(1, x=2) }}",
    "{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}{% set x = 2 %}{{ f() }}", "{% set x = 1 %}{% macro f() %}{% set x = 2 %}{{ x }}{% endmacro %}{{ f() }}{{ x }}",
    "{% macro f(a) %}{% for x in a %}{{ loop.index }}{{ x }}{% endfor %}{% endmacro %}{{ f('ab') }}{{ f(xs) }}", "{% macro f(x) -%}\n  {{ x }}\n{%- endmacro -%}\n[{{ f(1) }}]",
    "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}", "{% macro f(n) %}{% for i in range(n) %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) f(3) %}[{{ i }}]{% endcall %}",
    "{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}", "{% macro f() %}x{% endmacro %}{% call f() %}y{% endcall %}", "{% macro f() %}x{% endmacro %}{{ f is callable }}{{ f.name }}{{ f.arguments }}",
    "{% macro f(x='d') %}{{ x }}{% endmacro %}{{ f(none) }}{{ f('') }}{{ f(undefined_thing) }}", "{% macro outer() %}{% macro inner(x) %}({{ x }}){% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer() }}",
    "{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}", 
    "{% macro f(a, b=1, c) %}{% endmacro %}", "{% macro f(x) %}{{ x }}{% endmacro %}{{ xs|map('string')|list }}{{ [f(1), f(2)]|join }}", "{% macro t(s) %}{{ s.type ~ ('[' ~ t(s.of) ~ ']' if s.of else '') }}{% endmacro %}{{ t({'type': 'l', 'of': {'type': 'm', 'of': {'type': 'i'}}}) }}",
    # other blocks
    "{% with x = 1, y = 2 %}{{ x + y }}{% endwith %}{{ x is defined }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", "{% set x = 1 %}{% with x = 2, y = x %}{{ x }}{{ y }}{% endwith %}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aaa{% endfilter %}", "{% generation %}x{{ a }}{% endgeneration %}y", "{% generation %}\nx\n{% endgeneration %}\ny", "{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q is defined }}",
    "{% print 1, 2 %}" if False else "{% print a %}", "{% set j = joiner(', ') %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}",
    # errors
    "{% if %}{% endif %}", "{% if true %}", "{% endif %}", "{% else %}", "{% for x xs %}{% endfor %}", "{% for x in xs %}", "{% nope %}", "{% set %}", "{% macro %}{% endmacro %}", "{{", "{{ 1", "{% if true", "{# x", "{% raw %}x",
    "{% break %}", "{% if true %}{% endfor %}", "{% for x in xs %}{% endif %}", "{{ 1 }", "{{ }}", "{% %}", "{{ a b }}", "{% if a = 1 %}{% endif %}", "{% for 1 in xs %}{% endfor %}", "{% call 5 %}{% endcall %}", "{{ raise_exception('no: ' ~ s) }}",
    "{% if false %}{{ raise_exception('never') }}{% endif %}ok", "{% if a == 7 %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}", "{% if false %}{{ 1|nope }}{% endif %}ok", "{% if false %}{{ 1 is nope }}{% endif %}ok", "{{ 1|nope if false else 2 }}", "{{ 1|nope if true else 2 }}", "{% if true %}{{ 1|nope }}{% endif %}ok",
    "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% do xs.append(1) %}", "{% for x in xs %}{{ x }}{% endfor %}{% endfor %}", "{% elif %}", "{% set x = 1 }}", "{{ 1 %}", "{% set x %}{% endset", "{% with x %}{% endwith %}",
    "{{ 'a' if }}", "{% filter nope %}{% endfilter %}", "{% set x | nope %}{% endset %}", "{{ ''.join(['a', 'b'], 'c') }}", "{% for x in xs %}{% if x == 2 %}{{ raise_exception('two') }}{% endif %}{{ x }}{% endfor %}",
]
