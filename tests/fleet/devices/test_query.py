# SPDX-License-Identifier: Apache-2.0
"""The query language: what is read is what is printed, and what fits is what a naive reading says."""

import fnmatch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_contract.errors import UsageError
from edge_contract.messages import DesiredState, ModelState, ReportedState
from fleet.core.facts import FIELDS, RESERVED, Known, facts_of
from fleet.core.inventory import DeviceRecord
from fleet.core.query import MAX_CONDITIONS, MAX_DEPTH, MAX_LENGTH, Query, parse
from fleet.core.query_nodes import All, AnyOf, Everything, Is, Measure, Not

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf", "Co", "Cn")), max_size=12)
SIMPLE = st.sampled_from(["a", "b", "rpi5", "lab", "1.0.0", "yes", "no", "A*", "*b", "r?i5", "not", "in", "9" * 20])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LABELS = st.sampled_from(["site", "floor", "Line-2"])
NUMERIC = st.sampled_from(["temperature", "inferences", "last_seen", "drift", "floor"])
OPS = st.sampled_from(["<", "<=", ">", ">="])
FIELD = st.one_of(LABELS, st.sampled_from(["board", "tag", "group", "device", "runtime"]), WORDS.map("model:{}".format))


def conditions(words):
    return st.one_of(
        st.just(Everything()),
        st.builds(Is, FIELD, st.lists(words, min_size=1, max_size=3).map(tuple)),
        st.builds(Is, st.sampled_from(["online", "in_sync"]), st.sampled_from([("yes",), ("no",), ("yes", "no")])),
        st.builds(Measure, NUMERIC, OPS, NUMBERS),
        st.builds(Measure, st.sampled_from(["agent", "model:digits"]), OPS, st.sampled_from(["1.2", "0.10.3", "v2"])),
    )


def trees(words):
    def longer(inner):
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.one_of(st.builds(Not, inner), st.builds(All, several), st.builds(AnyOf, several))

    return st.recursive(conditions(words), longer, max_leaves=8)


@settings(max_examples=100, deadline=None)
@given(trees(WORDS))
@example(Not(Not(Is("model:a b", ('x"\\', "(")))))
def test_what_is_printed_reads_as_the_same_query(tree):
    assert parse(str(Query(tree))) == Query(tree)


FACTS = st.fixed_dictionaries(
    {
        "site": st.sampled_from(["a", "b", None]),
        "floor": st.sampled_from(["1", "2.5", "roof", None]),
        "board": st.sampled_from([("rpi5", "Raspberry Pi 5"), ("rpi4",), ()]),
        "tag": st.sampled_from([(), ("lab",), ("lab", "b")]),
        "device": st.sampled_from(["a", "pi-b"]),
        "online": st.booleans(),
        "in_sync": st.booleans(),
        "temperature": st.sampled_from([None, 0.0, 70.5]),
        "inferences": st.sampled_from([None, 1.0]),
        "drift": st.sampled_from([None, ("ALARM", 0.3), ("OK", None)]),
        "agent": st.sampled_from(["1.2.0", "0.9", "2", ""]),
        "model:digits": st.sampled_from([None, ("1.10.0", "ab" * 32)]),
    }
)


def naive(node, facts):
    """Read a tree without the language's own helpers."""
    if isinstance(node, Everything):
        return True
    if isinstance(node, Not):
        return not naive(node.of, facts)
    if isinstance(node, (All, AnyOf)):
        return (all if isinstance(node, All) else any)([naive(one, facts) for one in node.of])
    fact = facts.get(node.field)
    values = fact if isinstance(fact, tuple) else (fact,)
    if isinstance(node, Is):
        return any(naive_is(value, word) for value in values for word in node.values)
    return any(naive_compares(value, node) for value in values)


def naive_is(value, word):
    if isinstance(value, bool):
        return word in (("yes", "true", "on") if value else ("no", "false", "off"))
    if isinstance(value, str):
        return fnmatch.fnmatchcase(value.lower(), word.lower().replace("[", "[[]"))
    try:
        return value is not None and float(word) == value
    except ValueError:
        return False


def naive_compares(value, node):
    if isinstance(node.value, str):
        if not isinstance(value, str) or not value[:1].isdigit():
            return False
        numbers = [[int(part) for part in text.strip("v").split(".")] + [0] * 9 for text in (value, node.value)]
        here, there = numbers[0][:9], numbers[1][:9]
    else:
        try:
            here, there = float(value), node.value
        except (TypeError, ValueError):
            return False
    return {"<": here < there, "<=": here <= there, ">": here > there, ">=": here >= there}[node.op]


@settings(max_examples=150, deadline=None)
@given(trees(SIMPLE), FACTS)
def test_what_fits_is_what_a_naive_reading_says(tree, facts):
    assert Query(tree).matches(facts) == naive(tree, facts)


REFUSED = {
    "nothing": ("", "column 1: expected a condition, found the end"),
    "an open bracket": ("(site:a", "column 8: expected ')', found the end"),
    "a lonely and": ("site:a and", "column 11: expected a condition, found the end"),
    "two conditions": ("site:a board:b", "column 8: expected 'and', 'or' or the end, found 'board'"),
    "no operator": ("site", "column 5: expected ':', '<', '>' or 'in' after 'site', found the end"),
    "no number": ("temperature>hot", "column 13: expected a number, found 'hot'"),
    "a unit of another": ("temperature>3d", "column 13: expected a number, found '3d'"),
    "endless": ("temperature>1e999", "column 13: expected a number, found '1e999'"),
    "a flag that is compared": ("online>1", "column 7: expected ':' or 'in': 'online' is no number"),
    "a flag's wrong word": ("online:maybe", "column 8: expected yes or no, found 'maybe'"),
    "no version": ("agent>new", "column 7: expected a version, such as 1.2, found 'new'"),
    "an open quote": ('site:"a', "column 6: a text without its closing quote"),
    "a backslash": ("site:a\\", "column 7: '\\\\' outside of quotes"),
    "an empty list": ("site in ()", "column 10: expected a word, found ')'"),
    "SQL": ("device:x; DROP TABLE devices", "column 11: expected 'and', 'or' or the end, found 'DROP'"),
    "a NUL": ("site:a\x00", "column 7: '\\x00' cannot be printed"),
    "a number as a name": ("5:a", "column 1: expected a condition, found '5'"),
    "a quoted name": ('"site":a', "column 1: expected a condition, found 'site'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_told_with_its_column(case):
    text, what = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"query: {what}")


def test_length_depth_and_conditions_are_bounded():
    for text in (
        "a:" + "b" * MAX_LENGTH,
        "(" * (MAX_DEPTH + 1) + "online" + ")" * (MAX_DEPTH + 1),
        "not " * (MAX_DEPTH + 1) + "online",
        " or ".join(["online"] * (MAX_CONDITIONS + 1)),
    ):
        with pytest.raises(UsageError):
            parse(text)
    assert parse("(" * (MAX_DEPTH - 1) + "online" + ")" * (MAX_DEPTH - 1))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text("ab:<>=!()\"'\\, andotri0123.*?", max_size=60))
def test_any_text_is_a_query_or_one_line_about_a_column(text):
    try:
        query = parse(text)
    except UsageError as error:
        assert "\n" not in str(error).removeprefix(text)
        assert "column" in str(error)
    else:
        assert parse(str(query)) == query
        query.matches({"a": "b"})


def test_a_pattern_of_stars_is_not_slow():
    fact = "a" * 5000
    assert not parse("site:" + "*a" * 300 + "b").matches({"site": fact})  # a backtracking match would take for ever


NOW = 1_000_000.0


def record(**changes):
    slots = {"digits": ModelState("ab" * 32, "ab" * 32, "", "", "1.2.0", unrecognized={"accelerator": "failed"})}
    health = {"temperature_c": 71.5, "inferences": 9, "errors": 0, "rss_kb": 25_000, "uptime_s": 7200.0}
    config = {"heartbeat_s": 10.0, "ignored": {"colour": "unknown setting"}}
    told = ReportedState("pi", "b", 3, slots, config, {"rows": 4}, health, NOW)
    board = {"model": "Raspberry Pi 5 Model B", "machine": "aarch64", "cores": 4, "accelerators": ["edgetpu"]}
    known = {"boot": "b", "session": 1, "last_seen": NOW - 7200, "agent_version": "0.10.1", "runtime": "litert"}
    desired = DesiredState(3, {"digits": "ab" * 32}, {})
    given = {**known, "runtime_version": "2.1.0", "board": board, "reported": told, "desired": desired}
    return DeviceRecord("pi", NOW - 10 * 86_400, **{**given, **changes})


FITS = [
    "device:pi",
    "board:rpi5",
    'board:"raspberry pi 5*"',
    "machine:aarch64 and cores>=4",
    "site in (a,b) and not tag:lab",
    "tag:roof and group:hot",
    "model:digits",
    "model:digits:1.2.0",
    "model:digits>=1.2 and model:digits<1.10",
    "model:digits:abab",
    "model:digits=ABABAB",
    "model:digits in (1.1.*,1.2.*)",
    "agent>0.9 and agent<0.11",
    "runtime:litert and runtime_version>=2",
    "accelerator:edgetpu and accelerator:failed",
    "not online and last_seen>1h and last_seen<0.1 and last_seen<=3h",
    "enrolled>1w",
    "temperature>70 and rss_mb<30 and uptime_h:2",
    "drift>0.2 and drift:alarm",
    "latency_p95_ms<20",
    "quarantined and clone and in_sync",
    "rejected:colour",
    "channel:production",
    "floor>2 and floor<3",
    "outbox_rows:4",
    "all",
]


@pytest.mark.parametrize("text", FITS)
def test_the_facts_of_a_device(text):
    around = {
        "tags": {"site": "a", "roof": "", "floor": "2.5"},
        "groups": ["hot"],
        "drift": ("ALARM", 0.31),
        "latency_p95_us": 12_000.0,
        "quarantined": True,
        "cloned": True,
        "channels": ["production"],
    }
    expected = text != "model:digits:abab"  # four digits of a bundle are too few
    assert parse(text).matches(facts_of(record(), now=NOW, **around)) == expected
    assert parse(text).matches(Known(record(), NOW, **around)) == expected


def test_what_is_not_known_fits_nothing():
    empty = facts_of(DeviceRecord("new", NOW), now=NOW)
    for name, kind in FIELDS.items():
        word = {"flag": ":yes", "word": ":x", "version": ">0"}.get(kind, ">-1e9")
        fits = parse(f"{name}{word}").matches(empty)
        assert fits == (name in ("enrolled", "in_sync")), name
    assert parse("not drift>0.2").matches(empty)


def test_every_word_of_the_language_is_reserved():
    assert {*FIELDS, "and", "or", "not", "in", "all"} <= RESERVED
