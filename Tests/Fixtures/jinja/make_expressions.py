"""Writes expressions.json: what jinja2 prints for several thousand expressions, or why it refuses them.

    python3 make_expressions.py

The expressions are products: every filter, test, method and operator with values of every type, and formats with numbers
and texts. A group has expressions by what they print, one or several, and those that are refused or forbidden. What prints an
address, or is random, is left out.
"""

import itertools
import json
import os
import platform
import warnings

import jinja2

from make_cases import environment

warnings.simplefilter("ignore")

VALUES = [
    "0", "7", "-3", "255", "true", "2.5", "-0.0", "1e20", "1e-7", "''", "'a b'", "'Hello, World'", "' x '", "'42'", "'-1.5e3'",
    "none", "[]", "[3, 1, 2]", "['b', 'A', 'c']", "(1, 'x')", "{}", "{'b': 1, 'a': 2}", "undefinedname",
    "9223372036854775808", "'ÉCOLE straße'", "range(4)",
]
NUMBERS = [
    "0", "1", "-1", "2", "7", "-7", "255", "1234567", "9223372036854775807", "-9223372036854775808", "18446744073709551616",
    "-99999999999999999999", "0.0", "0.5", "-2.5", "3.0", "1e16", "1e22", "1e308", "true",
]
TEXTS = ["''", "'a'", "'abcabc'", "'Hello World'", "'a\\r\\nb\\nc'", "'e\\u0301\\u00e9'", "'日本語 text'", "'  pad\\t'", "'x-y_z.1'"]
PEOPLE = "[{'n': 'bob', 'a': 3}, {'n': 'Al', 'a': 1}, {'n': 'BOB', 'a': 2}, {'n': 'al', 'a': 3}]"

ENV = environment()
GROUPS = {}


def kind_of(error):
    if isinstance(error, jinja2.exceptions.SecurityError):
        return "forbidden"
    if isinstance(error, jinja2.exceptions.UndefinedError):
        return "undefined"
    if isinstance(error, jinja2.exceptions.TemplateSyntaxError):
        return "syntax"
    return "other"


def add(group, expressions, template="{{ %s }}"):
    entries = GROUPS.setdefault(group, [])
    for expression in expressions:
        source = template % expression if "%s" in template else expression
        try:
            text = ENV.from_string(source).render()
        except Exception as error:
            entries.append([source, None, kind_of(error)])
            continue
        if " at 0x" in text or "object at" in text or "Markup(" in text or "<class" in text or "<built-in" in text:
            continue
        entries.append([source, text])


# --- Filters ---

PLAIN = ["abs", "capitalize", "count", "escape", "filesizeformat", "first", "float", "int", "items|list", "join", "last", "length",
         "list", "lower", "max", "min", "reverse", "round", "sort", "string", "striptags", "sum", "title", "tojson", "trim",
         "unique|list", "upper", "urlencode", "wordcount", "center(12)", "default('d')", "default('d', true)", "dictsort",
         "batch(2)|list", "slice(2)|list", "replace('a', 'b')", "indent", "xmlattr", "truncate(5, true, '..', 0)", "attr('real')",
         "forceescape", "d", "filesizeformat(true)", "float(1.5)", "int(9)", "int(0, 16)", "join(', ')", "reverse|list",
         "select|list", "reject|list", "map('string')|list", "sort(reverse=true)", "unique(true)|list"]
add("filters", (f"{value}|{name}" for name in PLAIN for value in VALUES))
add("int", (f"{text}|int({arguments})" for text in [
    "'٣'", "'１２'", "'0x1f'", "'1f'", "'0b101'", "'0o17'", "'017'", "'1_000'", "'1__0'", "'_1'", "' 12 '", "'+5'", "'--5'", "'1.9'",
    "'-1.9'", "'1e3'", "'inf'", "'nan'", "'1e400'", "'99999999999999999999'", "'z'", "'0x'", "''", "1e30", "-1e19", "2.9", "none", "[]",
    "'९९'", "'²'", "'0_0'", "'0x_f'"] for arguments in ["", "5", "0, 16", "0, 0", "0, 2", "0, 36", "none"]))
add("float", (f"{text}|float" for text in [
    "'1.5'", "'.5'", "'5.'", "'.'", "'1e5'", "'1e+5'", "'1e-5'", "'1e'", "' 2 '", "'٣.٥'", "'1_0.5'", "'1_.5'", "'inf'", "'-Infinity'",
    "'nan'", "'+1'", "'0x1'", "'1e400'", "18446744073709551616", "10**400", "true", "none", "'1,5'"]))
add("round", (f"{n}|round({a})" for n in ["2.5", "3.5", "-2.5", "2.675", "1234.5678", "7", "12345678901234567890", "true", "0.5", "1e300"]
              for a in ["", "1", "2", "-2", "0, 'ceil'", "0, 'floor'", "1, 'ceil'", "2, 'floor'", "-1", "0, 'x'"]))
add("slice and batch", (f"range({n})|{f}({c}{fill})|list" for n in [0, 1, 5, 6] for f in ["slice", "batch"] for c in [1, 2, 3, 7, -1, 0]
                        for fill in ["", ", 'x'"]))
add("groupby", [f"{PEOPLE}|groupby({a})|{rest}" for a in ["'a'", "attribute='n'", "'n', case_sensitive=true", "'zz', default='q'", "'zz'"]
                for rest in ["list", "map(attribute='grouper')|list", "map(attribute='list')|map('length')|list", "map(attribute=0)|list"]]
    + [f"[{{'a': {{'b': 2}}}}, {{'a': {{'b': 1}}}}]|groupby('a.b')", "[]|groupby('x')", "[(1, 2), (0, 3), (1, 4)]|groupby(0)",
       "['b', 'a']|groupby('x')", f"({PEOPLE}|groupby('a'))[0].list[0].n", f"({PEOPLE}|groupby('a'))[0]|length"])
add("selections", [f"{PEOPLE}|{f}" for f in [
    "selectattr('a', 'eq', 3)|list", "rejectattr('a', 'gt', 1)|list", "selectattr('zz')|list", "selectattr('zz', 'undefined')|list",
    "map(attribute='n')|list", "map(attribute='zz', default='-')|list", "map(attribute='n')|map('upper')|join(',')",
    "sort(attribute='a')|map(attribute='n')|list", "sort(attribute='a,n')|map(attribute='n')|list",
    "sort(attribute='n', case_sensitive=true)|map(attribute='n')|list", "sort(attribute='a', reverse=true)|map(attribute='n')|list",
    "unique(attribute='n')|list", "sum(attribute='a')", "sum('a', 10)", "max(attribute='a')", "min(attribute='n')", "join('-', 'n')",
    "join(attribute='a')", "map('attr', 'keys')|list|length", "first", "last", "selectattr('n', 'in', ['bob'])|list",
    "selectattr('a', 'odd')|list|length", "map('length')|list", "map()|list", "select('mapping')|list|length"]])
add("urlencode", (f"{v}|urlencode" for v in ["'a b&c'", "'a/b?c=d'", "'é日'", "{'a b': 'c&d', 'e': 1}", "[('x', 'y z'), ('q', '/')]", "'~_-.'",
                                             "5", "none", "2.5", "[1]", "['ab']", "'100%'", "'+'", "true", "{'k': none}"]))
add("truncate", (f"'The quick brown fox jumps over the dog'|truncate({a})" for a in [
    "", "10", "10, true", "10, false, '!'", "10, true, '…', 0", "30", "36", "34", "34, false, '...', 0", "2", "3, true", "5, false, ''"]))
add("indent", (f"{t}|indent({a})" for t in ["'a\\nb\\n\\nc'", "'a\\r\\nb'", "'x'", "''", "'a\\n'"] for a in [
    "", "2", "2, true", "2, false, true", "'> '", "'> ', true, true", "0", "width=3", "first=true"]))
add("striptags", (f"{t}|striptags" for t in ["'<b>x</b> y'", "'a <!-- c --> b'", "'1 &lt; 2 &amp; 3'", "'<a'", "'x  \\n y'", "'&#65;&#x42;'",
                                             "'a>b<c>d'", "'<!-- <b> -->t'"]))
add("tojson", (f"{v}|tojson({a})" for v in ["[1, 'é', none, true, 2.5]", "{'b': [1], 'a': {}}", "{1: 2, none: 3, true: 4, 2.5: 5}", "'</x>'",
                                            "18446744073709551616", "[]", "[[], {}]", "(1, 2)", "1e16", "'\\u2028\\x7f'"]
               for a in ["", "indent=2", "ensure_ascii=true", "sort_keys=true", "separators=(',', ':')", "indent=0", "indent='\\t'"]))
add("filesizeformat", (f"{n}|filesizeformat{a}" for n in ["0", "1", "2", "999", "1000", "1023", "1024", "1500000", "1e12", "1e30", "'2000'", "-5", "2.7"]
                       for a in ["", "(true)"]))
add("wordwrap", (f"{t}|wordwrap({a})" for t in [
    "'The quick brown fox jumps over the lazy dog'", "'a well-known state-of-the-art x--y -- z e-mail'", "'abcdefghijklmnopqrstuvwxyz'", "'a\\nbb ccc\\r\\ndddd'",
    "'  leading and  double '", "''", "'super-cali-fragil-istic--word, a-b c--d'", "'日本語 テキスト の 折り返し'", "'x-1-2 3-4-aa-bb'"]
    for a in ["", "10", "5", "1", "10, false", "7, true, '|'", "8, false, none, false", "6, true, '<br>', false", "0"]))
add("more filters", [
    "'a b'|wordcount", "'it''s'|wordcount", "'日本 語'|wordcount", "'x_y z-w'|wordcount", "[1,2]|attr('count')(1)", "{'a': 1}|attr('a')",
    "'%s-%s'|format(1, 2)", "'%(a)s'|format(a=3)", "'%s'|format", "'%d %d'|format(1)", "{'b': 1, 'A': 2}|dictsort(true)",
    "{'b': 1, 'A': 2}|dictsort(false, 'value')", "{'b': 1, 'A': 2}|dictsort(reverse=true)", "{'b': 1}|dictsort(by='x')",
    "'aXbX'|replace('X', '-', 1)", "'abc'|replace('', '-')", "5|replace(5, 6)", "'xxaxx'|trim('x')", "[1, 2]|join", "[[1, 2], [3]]|sum(start=[])",
    "'foo bar-baz (qux'|title", "'o\\'neil'|title", "'ÀB c'|capitalize", "'ß'|upper", "'İ'|lower", "'ΑΣ'|lower", "'a'|center(4)", "'abc'|center(6)",
    "'abc'|first", "''|first", "[]|last", "'abc'|last", "'abc'|reverse", "{'a': 1}|first", "{'a': 1, 'b': 2}|last", "{'a': 1}|list",
    "[1, 1.0, true, '1']|unique|list", "['a', 'A']|unique|list", "['a', 'A']|unique(true)|list", "[3, 'a']|sort", "[none]|sort", "[[2], [1]]|sort",
    "[1, 2]|max", "[]|max", "['a', 'B']|max", "['a', 'B']|max(true)", "'x'|nosuch", "[1]|map('nosuch')|list", "[1]|select('nosuch')|list",
    "x|default(5)", "none|default(5)", "none|default(5, true)", "''|d('e', boolean=true)", "x.y|default(1)", "[]|first|default('z')",
    "'a,b'|list", "5|list", "5|length", "5|string ~ 'x'", "[1, 2, 3]|batch(2, 0)|list", "'abc'|batch(2)|list"])

# --- Methods ---

METHODS = {
    "capitalize": [""], "casefold": [""], "swapcase": [""], "title": [""], "upper": [""], "lower": [""], "isalnum": [""], "isalpha": [""],
    "isascii": [""], "isdecimal": [""], "isdigit": [""], "isidentifier": [""], "islower": [""], "isnumeric": [""], "isprintable": [""],
    "isspace": [""], "istitle": [""], "isupper": [""], "expandtabs": ["", "4", "0", "1"], "splitlines": ["", "true"],
    "center": ["10", "11, '*'", "0"], "ljust": ["10", "5, '.'"], "rjust": ["10", "5, '.'"], "zfill": ["8", "0"],
    "strip": ["", "'a '", "none"], "lstrip": ["", "'aH'"], "rstrip": ["", "'c\\n'"], "split": ["", "'a'", "' ', 1", "none, 1", "''"],
    "rsplit": ["", "'a'", "' ', 1", "none, 1"], "partition": ["'b'", "' '", "''"], "rpartition": ["'b'", "'c'"],
    "removeprefix": ["'a'", "'abc'", "''"], "removesuffix": ["'c'", "'abc'", "''"], "replace": ["'a', 'X'", "'a', 'X', 1", "'', '-'", "'b', ''"],
    "startswith": ["'a'", "'b', 1", "'', 99", "('x', 'a')", "'c', -1", "'a', 0, 0", "'a', none, 1", "[]", "5", "'', 0, -1"],
    "endswith": ["'c'", "'b', 0, 2", "('c', 'd')", "'', 3", "'bc', -2", "'a', 0, -2"],
    "find": ["'b'", "'b', 2", "'b', 2, 4", "'', 1", "'', 99", "'c', -1", "'z'", "'a', -100", "'b', none, none"],
    "rfind": ["'b'", "'b', 2", "'b', 0, 3", "''", "'', 1, 2", "'z'"], "index": ["'b'", "'b', 2", "'z'", "'', 99"], "rindex": ["'b'", "'z'"],
    "count": ["'a'", "'a', 1", "'', 1", "'', 99", "'bc', 0, -1", "'a', 1, 3"], "join": ["['x', 'y']", "'ab'", "[1]", "[]", "{'k': 1}"],
    "format": ["", "1"], "format_map": ["{'a': 1}"], "translate": ["{97: 'X', 98: none, 99: 120}", "{}"], "nosuch": [""], "__len__": [""],
}
add("str methods", (f"{text}.{name}({arguments})" for name, several in METHODS.items() for arguments in several for text in TEXTS))
add("str predicates", (f"{text}.{name}()" for name in [m for m in METHODS if m.startswith("is")] for text in [
    "'Ab C'", "'abc'", "'ABC'", "'A1'", "'x'", "'_x1'", "'1x'", "'if'", "'é'", "'½'", "'²'", "'٣'", "'\\t\\n'", "' '", "'\\x00'", "'ǅ'", "'Abc Def'",
    "'AbC'", "'3D Model'", "'日本'", "'a b'", "'ªº'", "'They''re'", "'Ⅷ'", "'\\u200b'", "'😀'"]))
add("str case", (f"{text}.{name}()" for name in ["upper", "lower", "title", "capitalize", "swapcase", "casefold"] for text in [
    "'straße'", "'ﬁn'", "'ΌΣΟΣ ΑΣ'", "'İI ıi'", "'ǆ Ǆ ǅ'", "'they''re x-ray'", "'Ꭰꭰ'", "'ΐ'", "'ŉ'", "'ſK'", "'µ'", "'a1b c2D'"]))
add("other methods", [
    "[1, 2, 1].count(1)", "[1, 2, 1].index(1, 1)", "[1].index(9)", "[1, 2].copy()", "[1].append(2)", "(1, 2, 1).count(1)", "(1, 2).index(2)",
    "{'a': 1}.get('a')", "{'a': 1}.get('b')", "{'a': 1}.get('b', 5)", "{'a': 1}.keys()", "{'a': 1}.values()", "{'a': 1}.items()",
    "{'a': 1}.pop('a')", "{'a': 1}.update({})", "{'a': 1}.copy()", "{'items': 1}.items", "{'items': 1}['items']", "{'a': 1}.a", "{'a': 1}.b",
    "{'a': 1}['b'] is defined", "[1, 2][5]", "[1, 2][-1]", "'abc'[1]", "'abc'[-4]", "'abc'[::-1]", "[1, 2, 3][1:]", "(1, 2, 3)[:-1]", "'abc'[5:]",
    "range(10)[2:8:2]|list", "range(5)[-1]", "{1: 2}[1]", "{1: 2}[true]", "{'a': {'b': [1]}}.a.b[0]", "5 .bit_length()", "(255).bit_length()",
    "(2.5).is_integer()", "(2.0).is_integer()", "(0.75).as_integer_ratio()", "(5).real", "(5).imag", "(10**30).bit_length()", "true.real",
    "(5).numerator", "(2.5).imag", "(6).bit_count()", "(5).as_integer_ratio()", "none.x", "none.x.y", "undefinedname.x", "undefinedname()", "5()"])

# --- Operators ---

ARITHMETIC = ["+", "-", "*", "/", "//", "%", "**"]
SMALL = ["0", "1", "-2", "3", "0.5", "18446744073709551616", "true"]
add("arithmetic", (f"({a}) {op} ({b})" for op in ARITHMETIC[:6] for a in NUMBERS for b in NUMBERS))
add("powers", (f"({a}) ** ({b})" for a in ["0", "1", "-1", "2", "-2", "10", "0.5", "3.0", "true", "9223372036854775807"]
               for b in ["0", "1", "2", "3", "10", "63", "64", "65", "100", "-1", "-2", "0.5", "2.0"] if not (a.startswith("-") and b == "0.5")))
add("comparisons", (f"({a}) {op} ({b})" for op in ["==", "!=", "<", ">="] for a in NUMBERS for b in NUMBERS))
add("mixed operators", (f"{a} {op} {b}" for op in ["+", "*", "==", "<", "in", "~", "and", "or", "%"] for a in VALUES for b in [
    "2", "'a'", "[1, 2]", "(1,)", "{'a': 1}", "none", "undefinedname", "true", "1.5"]))
add("unary", (f"{op}{v}" for op in ["-", "+", "not "] for v in VALUES + NUMBERS))
add("large integers", [
    "9223372036854775807 + 1", "-9223372036854775808 - 1", "2 ** 200", "(2 ** 200) % 1000007", "(2 ** 200) // (3 ** 50)", "-(2 ** 100) // 7",
    "-(2 ** 100) % 7", "(2 ** 100) % -7", "(2 ** 64)|string|length", "10 ** 30 == 1e30", "10 ** 22 == 1e22", "9007199254740993 == 9007199254740992.0",
    "9007199254740993 > 9007199254740992.0", "2 ** 1024 > 1e308", "1e400 > 2 ** 2000", "(10 ** 400) * 1.0", "(10 ** 30) / (10 ** 28)",
    "(10 ** 400) / (10 ** 399)", "(10 ** 400) / 3", "{18446744073709551616: 'x'}[2 ** 64]", "{1e20: 'y'}[10 ** 20]", "[2 ** 64, 2 ** 65]|sum",
    "[2 ** 65, 2 ** 64]|sort", "(2 ** 64)|abs", "(-(2 ** 64))|abs", "(2 ** 64) is odd", "(2 ** 64 + 1) is odd", "(2 ** 64) is divisibleby(4)",
    "(2 ** 64) is number", "(2 ** 64) is integer", "(2 ** 64) is float", "0xFFFFFFFFFFFFFFFFFF", "0b1" + "0" * 70, "0o7777777777777777777777777",
    "1_000_000_000_000_000_000_000", "'a' * (2 ** 64)", "[1][2 ** 64]", "range(2 ** 64)", "3 * 'ab'", "-1 * 'ab'", "(2 ** 64)|round", "(2**63 - 1) * (2**63 - 1)",
    "10 ** 4299|string|length", "(10 ** 4300)|string|length", "(-7) // 2", "(-7) % 2", "7 // -2", "7 % -2", "-7.5 // 2", "-7.5 % 2", "5.5 // -2", "0 // 5",
    "-0.0 // 5", "1e308 * 10", "10.0 ** 400", "0 ** -1", "5 % 0", "5 / 0", "5.0 // 0", "1 < 2 < 3", "1 < 3 < 2", "1 == 1.0 == true", "'a' < 'B'",
    "[1, 2] < [1, 3]", "(1,) < (1, 0)", "none < 1", "'a' < 1", "1 in 'a'", "'' in 'abc'", "1 in {1: 2}", "[] in [[]]", "not 1 in [2]", "1 not in [2]"])

# --- Formats ---

PERCENT = ["%s", "%r", "%a", "%c", "%d", "%i", "%u", "%o", "%x", "%X", "%e", "%E", "%f", "%F", "%g", "%G", "%#x", "%#X", "%#o", "%5d", "%-5d|", "%05d",
           "%+d", "% d", "%+05d", "%-05d|", "%.3d", "%8.3d", "%08.3d", "%.2f", "%8.2f", "%-8.2f|", "%08.2f", "%+.1e", "%.0f", "%#.0f", "%#g", "%.3s", "%5s",
           "%-5s|", "%05s", "%5c", "%%", "%5%", "%ld", "%hd", "%b", "%", "%z", "%#06x", "%.10g", "%.0e", "%5.1s|", "%+s"]
add("percent", (f"'{f}' % ({v},)" for f in PERCENT for v in ["255", "-7", "0", "3.14159", "-0.5", "1e100", "'text'", "'x'", "true", "none",
                                                          "18446744073709551616", "[1]"]))
add("percent values", [
    "'%s %s' % (1, 2)", "'%s' % (1, 2)", "'%s %s' % (1,)", "'%s' % 5", "'%s' % [1, 2]", "'x' % 5", "'x' % [1]", "'x' % {'a': 1}", "'x' % ()",
    "'%(a)s %(b)d' % {'a': 1, 'b': 2}", "'%(a)s' % {}", "'%(a)s' % (1,)", "'%(a(b))s' % {'a(b)': 3}", "'%*d' % (5, 3)", "'%-*d|' % (5, 3)", "'%.*f' % (2, 3.14159)",
    "'%*d' % (-5, 3)", "'%(a)5.1f' % {'a': 2.25}", "'%s' % ((1, 2),)", "'%s%%' % 5", "'%d' % '5'", "'%x' % 2.5", "'%c' % 65", "'%c' % 'ab'", "'%c' % 0x1F600",
    "'%f' % '1'", "'%d' % 1e20", "'%d' % (10 ** 25)", "'%.2f' % (10 ** 25)", "'%s' % undefinedname", "'%d' % undefinedname", "'%5.3s|' % 'é日本語'"])
SPECS = ["", "5", "<5", ">5", "^5", "=5", "*^9", "05", "+", "-", " ", "+5", "#x", "x", "X", "#X", "b", "#b", "o", "#o", "d", "n", "c", "e", "E", "f", "F", "g", "G",
         "%", ".2", ".2f", ".0f", ",", "_", ",d", "_d", "_x", "_b", ",.2f", "_.3e", "010,", "012,.1f", "+,", "08.3f", "*=+8", "<08", "^08d", ".3s", "s", "5s", "5.1s",
         "z", ".0%", ".1%", "#.3g", ".10g", "x<", "é>4", "{", "10.3", ".1", ".17", "015,d", "+010_d", "020_x", "#020_b", "0", "00005", ">010", "q", "1q", ",,", "5.", ".5d"]
add("braces", (f"'{{:{spec}}}'.format({v})" for spec in SPECS for v in ["255", "-1234567", "0", "3.14159", "-1234567.891", "0.00001234", "1e22", "'text'", "true",
                                                                    "none", "[1]", "18446744073709551616"]))
add("braces fields", [
    "'{}{}'.format(1, 2)", "'{0}{1}{0}'.format(1, 2)", "'{a}-{b}'.format(a=1, b=2)", "'{}{0}'.format(1)", "'{0}{}'.format(1)", "'{}'.format()", "'{x}'.format(1)",
    "'{{}}'.format(1)", "'{'.format(1)", "'}'.format(1)", "'{!r}'.format('a')", "'{!s:>4}'.format('a')", "'{!a}'.format('é')", "'{!x}'.format(1)", "'{0!r:^7}'.format('a')",
    "'{:{}}'.format(5, 4)", "'{:{w}.{p}f}'.format(3.14159, w=8, p=2)", "'{:>{w}}'.format('a', w=5)", "'{0[0]}'.format([7])", "'{0[a]}'.format({'a': 8})",
    "'{a[b][0]}'.format(a={'b': [9]})", "'{0.real}'.format(5)", "'{0.nosuch}'.format(5)", "'{0[9]}'.format([1])", "'{:d}'.format('a')", "'{:s}'.format(5)",
    "'{:x}'.format(2.5)", "'{:5}'.format(none)", "'{}'.format(none)", "'{}'.format([1, 'a'])", "'{}'.format(undefinedname)", "'{:5}|'.format(undefinedname)",
    "'{:%}'.format(0.5)", "'{:c}'.format(65)", "'{:,}'.format(1234567.5)", "'{:_}'.format(10 ** 20)", "'{:e}'.format(10 ** 20)", "'{:b}'.format(2 ** 70)",
    "'{:.3}'.format('abcdef')", "'{:.3}'.format(2)", "'{:10}|'.format('é')", "'{:🙂>4}'.format(1)", "'{0.__class__}'.format(1)", "'{:+}'.format('a')"])

# --- Tests, functions, statements ---

TESTS = ["defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "sequence", "iterable", "callable",
         "odd", "even", "lower", "upper", "eq 7", "ne 7", "lt 7", "ge 7", "in [7, 'a b']", "sameas none", "divisibleby 7", "filter", "test", "escaped", "nosuch"]
add("tests", (f"{v} is {t}" for t in TESTS for v in VALUES))
add("functions", [
    "range(5)", "range(1, 5)|list", "range(5, 1, -2)|list", "range(0)", "range(1, 2, 0)", "range('a')", "range(2.5)", "dict(a=1)", "dict([('a', 1)])", "dict({'a': 1}, b=2)",
    "namespace(a=1).a", "cycler('a', 'b').next()", "cycler().next()", "cycler(1, 2).current", "joiner()()", "joiner('|')() ~ 'x'", "loop", "caller",
    "nosuchfunction(1)", "dict(1)", "range()", "joiner is callable", "cycler is defined"])
add("statements", [
    "{% set c = cycler('x', 'y') %}{% set j = joiner(',') %}{% for i in range(3) %}{{ j() }}{{ c.next() }}{% endfor %}",
    "{% set c = cycler(1, 2, 3) %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}",
    "{% for i in [[1, [2]], [3]] recursive %}{% if i is iterable %}<{{ loop(i) }}>{% else %}{{ i }}{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for i in [{'n': 'a', 'c': [{'n': 'b', 'c': []}]}, {'n': 'd', 'c': []}] recursive %}{{ loop.depth0 }}{{ i.n }}{{ loop.index }}{% if i.c %}({{ loop(i.c) }}){% endif %}{% endfor %}",
    "{% for i in [1, [2, 3], 4] if i != 4 recursive %}{{ loop(i) if i is not number else i }}{% else %}none{% endfor %}",
    "{% for i in [[]] recursive %}[{{ loop(i) }}]{% else %}empty{% endfor %}",
    "{% for i in [1] %}{{ loop(i) }}{% endfor %}",
    "{% for i in [1, 2, 3] recursive %}{{ loop.length }}{{ loop.last }}{% endfor %}",
    "{% for a, b in {'x': 1}.items() recursive %}{{ a }}{{ b }}{% endfor %}",
    "{% for g, items in [('a', 1), ('b', 2), ('a', 3)]|groupby(0) %}{{ g }}:{{ items }};{% endfor %}",
    "{% for g in [{'k': 1}, {'k': 2}]|groupby('k') %}{{ g.grouper }}={{ g.list }}{{ g }}{% endfor %}",
    "{% for row in [1, 2, 3, 4, 5]|slice(2) %}{{ row }}{% endfor %}", "{% for row in range(5)|batch(2, '-') %}{{ row }}{% endfor %}",
    "{% for i in range(3) %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i // 2) }}{% endfor %}",
    "{% for i in range(4) %}{% if loop.previtem is defined %}{{ loop.previtem }}{% endif %}{{ loop.nextitem }}{% endfor %}",
    "{% for i in [] %}x{% else %}e{% endfor %}", "{% for i in 5 %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [(1, 2)] %}{{ b }}{{ a }}{% endfor %}",
    "{% set x %}a{{ 1 }}{% endset %}{{ x }}", "{% set x | upper %}a{% endset %}{{ x }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set ns = namespace() %}{% set ns.a = 2 %}{{ ns.a }}",
    "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, 3, 4, c=5) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(x) m() %}<{{ x }}>{% endcall %}", "{% macro m(x) %}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.caller }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% if x %}1{% elif y is defined %}2{% else %}3{% endif %}",
    "{% block title %}t{{ 1 }}{% endblock %}", "{% set q = 1 %}{% block b %}{{ q }}{% endblock b %}", "{% for i in [1] %}{% block b %}{{ i }}{% endblock %}{% endfor %}",
    "{% raw %}{{ x }}{% endraw %}", "{# c #}x{#- d -#} y", "{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
    "{{ 1 if false }}", "{{ (1 if false) is undefined }}", "{{ 'a' 'b' }}", "{{ 1, 2 }}", "{{ () }}", "{{ [1, 2,] }}", "{{ {'a': 1,} }}", "{{ -2 ** 2 }}", "{{ 2 ** 3 ** 2 }}", "{{ -1|abs }}",
    "{{ not true or true }}", "{{ 1 ~ 2 + 3 }}", "{{ 'a' ~ none ~ true }}", "{{ x.y.z }}", "{{ x }}", "{{ x + 1 }}", "{{ [x] }}", "{% do 1 %}", "{% include 'x' %}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for i in [1, 2] %}{% set x = i %}{% endfor %}{{ x is defined }}", "{{ loop is defined }}", "{% for i in [1] %}{% for j in [2] %}{{ loop.depth }}{% endfor %}{% endfor %}",
    "{{ '<'|safe }}", "{% print 1, 2 %}", "{%- if true -%} a {%- endif -%} b",
], template="raw")

here = os.path.dirname(os.path.abspath(__file__))
seen = set()
for entries in GROUPS.values():
    entries[:] = [e for e in entries if not (e[0] in seen or seen.add(e[0]))]
    # Of tables that combine values with one another, every fourth entry says as much, and of the longest every eighth.
    if len(entries) > 1000:
        entries[:] = entries[::4]
    if len(entries) > 800:
        entries[:] = entries[::2]


def columns(entries):
    """Entries by their outcome, which takes less room."""
    printed, refused, forbidden = {}, [], []
    for source, text, *kind in entries:
        expression = source.removeprefix("{{ ").removesuffix(" }}")
        # Alone it stands for itself in {{ }}, unless it has marks of its own.
        expression = source if any(mark in expression for mark in ("{{", "{%", "{#")) else expression
        if text is not None:
            printed.setdefault(text, []).append(expression)
        elif kind == ["forbidden"]:
            forbidden.append(expression)
        else:
            refused.append(expression)
    printed = {text: same[0] if len(same) == 1 else same for text, same in printed.items()}
    parts = {"printed": printed, "refused": refused, "forbidden": forbidden}
    return {name: part for name, part in parts.items() if part}


groups = {name: columns(entries) for name, entries in GROUPS.items()}
with open(os.path.join(here, "expressions.json"), "w") as file:
    json.dump({"jinja2": jinja2.__version__, "python": platform.python_version(), "groups": groups}, file, ensure_ascii=False, separators=(",", ":"))
print({name: len(entries) for name, entries in GROUPS.items()}, sum(map(len, GROUPS.values())))
