"""Which metrics a PromQL expression names, and with which labels: enough of the grammar for that, and no more."""

import re
from dataclasses import dataclass

KEYWORDS = frozenset(
    "and or unless by without on ignoring group_left group_right bool offset atan2 start end inf nan".split()
)
TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
      | (?P<number>0x[0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)?)
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
      | (?P<operator>=~|!~|!=|==|<=|>=|[-+*/%^<>=@,(){}\[\]:])""",
    re.VERBOSE,
)
LABEL_LISTS = frozenset("by without on ignoring group_left group_right".split())


@dataclass(frozen=True, order=True)
class Selector:
    """A metric as an expression names it."""

    name: str
    # (label, operator, value)
    matchers: tuple[tuple[str, str, str], ...] = ()


def tokens(expression: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"no PromQL at {expression[at:at + 30]!r}")
        at = match.end()
        if match.lastgroup != "skip":
            found.append((match.lastgroup or "", match.group()))
    return found


def selectors(expression: str) -> list[Selector]:
    """All metrics that an expression names, in order."""
    found: list[Selector] = []
    rest = tokens(expression)
    at = 0
    while at < len(rest):
        kind, text = rest[at]
        following = rest[at + 1][1] if at + 1 < len(rest) else ""
        at += 1
        if text == "[":
            at = past(rest, at, "]")
        elif text == "{":
            raise ValueError("a selector without a metric's name")
        elif kind != "name":
            continue
        elif text.lower() in LABEL_LISTS and following == "(":
            at = past(rest, at, ")")
        elif text.lower() in KEYWORDS or following == "(":
            continue
        elif is_aggregation(rest, at):
            continue
        elif following == "{":
            end = past(rest, at, "}")
            found.append(Selector(text, matchers(rest[at + 1 : end - 1])))
            at = end
        else:
            found.append(Selector(text))
    return found


def is_aggregation(rest: list[tuple[str, str]], at: int) -> bool:
    """Whether what was just read is the `sum` of `sum by (…) (…)`."""
    return at < len(rest) and rest[at][1].lower() in ("by", "without")


def past(rest: list[tuple[str, str]], at: int, closing: str) -> int:
    while rest[at][1] != closing:
        at += 1
    return at + 1


def matchers(within: list[tuple[str, str]]) -> tuple[tuple[str, str, str], ...]:
    texts = [text for _, text in within if text != ","]
    triples = zip(texts[0::3], texts[1::3], texts[2::3], strict=True)
    return tuple((label, operator, value[1:-1]) for label, operator, value in triples)


def sums(expression: str) -> list[Selector]:
    """The metrics that stand somewhere within a `sum`, `avg` or `count`."""
    found: list[Selector] = []
    for match in re.finditer(r"\b(?:sum|avg|count)\b\s*(?:(?:by|without)\s*\([^)]*\)\s*)?\(", expression):
        depth, at = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(expression[at], 0)
            at += 1
        found += selectors(expression[match.end() : at - 1])
    return found


def self_test() -> None:
    """What is said above, on examples."""
    cases = {
        'sum by (le) (rate(a_bucket{x="1",y=~"b{c}|d"}[5m])) > 0.5': [
            Selector("a_bucket", (("x", "=", "1"), ("y", "=~", "b{c}|d")))
        ],
        "max by (queue) (a) and on (queue) b == 0 unless c": [Selector("a"), Selector("b"), Selector("c")],
        "time() - max(a:b:rate5m offset 5m) < 1h30m": [Selector("a:b:rate5m")],
        'label_replace(a, "end", "ok", "", "") or 0 * b': [Selector("a"), Selector("b")],
        "sum(rate(a[5m])) by (x) / on (y) group_left (z) count(b)": [Selector("a"), Selector("b")],
        "absent(a)": [Selector("a")],
    }
    for expression, wanted in cases.items():
        assert selectors(expression) == wanted, (expression, selectors(expression))
    assert sums("sum(rate(a[5m])) / max(b)") == [Selector("a")]
