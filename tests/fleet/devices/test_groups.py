# SPDX-License-Identifier: Apache-2.0
"""Labels, groups, pages of devices, and settings by layers, in the database."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fleet.queries import measured
from edge_contract.errors import UsageError
from edge_contract.messages import DesiredState
from fleet.adapters import fleet_query, labels, tables
from fleet.core.facts import Known, facts_of
from fleet.core.groups import MAX_LABELS, Group, check_labels, in_order, read_words
from fleet.core.paging import page_of
from fleet.core.query import parse
from fleet.core.twin import OWN, Layer, change, check_settings, compare, effective

HOSTILE = ["'; DROP TABLE devices; --", "<script>alert(1)</script>", 'a"b\\c', "%", "_", "ä\u2028"]


def found(bureau, query):
    return bureau.read(lambda db: fleet_query.matching(db, query, bureau.now))


def test_labels_groups_and_queries_on_every_database(bureau):
    groups = bureau.operations.groups
    bureau.enrolled("pi-1", "pi-2", "pi-3")
    for name, board in (("pi-1", "Raspberry Pi 5"), ("pi-2", "Raspberry Pi 4"), ("pi-3", "Raspberry Pi 5")):
        bureau.birth(name, model=board)
        bureau.report(name, temperature_c=60.0 + int(name[-1]), inferences=int(name[-1]))
    groups.label(["pi-1", "pi-2"], {"site": "a", "lab": ""}, [], "op")
    groups.label_where("board:rpi5", {"fast": ""}, [], "op")
    groups.label(["pi-2"], {"site": "b"}, ["lab"], "op")
    assert found(bureau, "site in (a,b)") == ["pi-1", "pi-2"]
    assert found(bureau, "tag:lab or temperature>=63") == ["pi-1", "pi-3"]
    assert found(bureau, "board:rpi5 and not site:a") == ["pi-3"]
    assert found(bureau, "model:digits:1.0.0 and online and in_sync") == ["pi-1", "pi-2", "pi-3"]
    groups.new("hot", "temperature>61", [], 0, "op")
    groups.new("mine", "", ["pi-1", "pi-2"], 0, "op")
    groups.new("both", "group:hot and group:mine", [], 0, "op")
    assert found(bureau, "group:both") == ["pi-2"]
    assert found(bureau, "group:*o*") == ["pi-2", "pi-3"]
    assert {one["name"]: one["devices"] for one in groups.shown()} == {"hot": 2, "mine": 2, "both": 1}
    groups.change_members("mine", ["pi-3"], ["pi-2"], "op")
    assert groups.show("both")["names"] == ["pi-3"]
    assert bureau.audited("group.members") == [("mine", {"add": ["pi-3"], "drop": ["pi-2"]})]
    bureau.operations.standings.quarantine("pi-3", "a test", "op")
    assert found(bureau, "quarantined") == ["pi-3"]
    assert found(bureau, "clone or channel:production or drift:alarm or latency_p95_ms>0") == []


def test_names_and_values_are_only_texts_to_the_database(desk):
    desk.enrolled("pi", "other")
    for text in HOSTILE:
        with pytest.raises(UsageError):
            check_labels({text: ""})
    for text in HOSTILE[:5]:
        desk.operations.groups.label(["pi"], {"site": text}, [], "op")
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        assert found(desk, f'site:"{quoted}"') == ["pi"]
    assert found(desk, "device:\"x' OR '1'='1\"") == []
    with pytest.raises(UsageError):
        check_labels({"site": "line\nbreak"})
    with pytest.raises(UsageError):
        check_labels({f"l{i}": "" for i in range(MAX_LABELS + 1)})
    with pytest.raises(UsageError, match="not enrolled"):
        desk.operations.groups.label(["pi", "nobody"], {"site": "z"}, [], "op")
    assert found(desk, "site:z") == []


def test_a_device_has_a_bounded_number_of_labels(desk):
    desk.enrolled("pi")
    desk.operations.groups.label(["pi"], {f"a{i}": "" for i in range(MAX_LABELS)}, [], "op")
    with pytest.raises(UsageError, match="more than"):
        desk.operations.groups.label(["pi"], {"one-more": ""}, [], "op")
    desk.operations.groups.label(["pi"], {"one-more": ""}, ["a0"], "op")


REFUSED = {
    "no name": ({"name": "a b"}, "is not a group name"),
    "a path": ({"name": "../x"}, "is not a group name"),
    "both kinds": ({"query": "online", "members": ["pi"]}, "not both"),
    "itself": ({"name": "g", "query": "group:g"}, "is in itself: g → g"),
    "a circle": ({"name": "far", "query": "not group:near"}, "is in itself"),
    "a stranger": ({"members": ["nobody"]}, "not enrolled"),
    "nonsense": ({"query": "and"}, "column 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_group_that_cannot_be_is_refused_whole(desk, case):
    wishes, what = REFUSED[case]
    desk.enrolled("pi")
    desk.operations.groups.new("near", "group:far and online", [], 0, "op")
    with pytest.raises(UsageError, match=what):
        desk.operations.groups.new(wishes.get("name", "g"), wishes.get("query", ""), wishes.get("members", []), 0, "op")
    assert [one["name"] for one in desk.operations.groups.shown()] == ["near"]


def test_a_group_that_another_one_names_is_not_deleted(desk):
    desk.operations.groups.new("a", "online", [], 0, "op")
    desk.operations.groups.new("b", "group:a", [], 0, "op")
    with pytest.raises(UsageError, match="group 'b' names it"):
        desk.operations.groups.delete("a", "op")
    desk.operations.groups.delete("b", "op")
    desk.operations.groups.delete("a", "op")


def test_a_group_comes_after_those_that_it_names():
    groups = [Group("c", query="group:b or group:a"), Group("b", query="group:a"), Group("a", members=frozenset())]
    assert [one.name for one in in_order(groups)] == ["a", "b", "c"]


def test_lazy_facts_are_those_of_the_record(desk):
    desk.enrolled("pi")
    desk.birth("pi", model="Raspberry Pi 5")
    desk.report("pi", temperature_c=61.25, inferences=7, config={"heartbeat_s": 5.0, "ignored": {"x": "why"}})
    record = desk.read(lambda db: tables.device(db, "pi"))
    (known,) = desk.read(lambda db: list(fleet_query.load(db, None, desk.now, ("tag",))))
    assert dict(known) == facts_of(record, now=desk.now)
    assert (known.record.reported, known.record.desired, known.record.board) == (
        record.reported,
        record.desired,
        record.board,
    )


# Pages.

ROWS = st.lists(st.one_of(st.none(), st.integers(-2, 2), st.sampled_from(["a", "b", "B"])), max_size=12)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(1, 5), st.booleans())
def test_pages_together_are_the_sorted_list(values, limit, is_descending):
    rows = [(value, f"n{i}", i) for i, value in enumerate(values)]
    whole = page_of(rows, limit=1000, is_descending=is_descending).rows
    pages, cursor = [], ""
    while True:
        page = page_of(rows, limit=limit, cursor=cursor, is_descending=is_descending)
        pages += page.rows
        if not page.cursor:
            break
        cursor = page.cursor
    assert pages == whole
    numbers = [values[i] for i in whole if isinstance(values[i], int)]
    assert numbers == sorted(numbers, reverse=is_descending)


def test_a_page_goes_on_where_it_was_though_rows_went():
    rows = [(None, name, name) for name in "abcd"]
    first = page_of(rows, limit=2)
    assert page_of(rows[2:], limit=2, cursor=first.cursor).rows == ["c", "d"]
    for cursor in ("x", "e30", "WzEsMl0"):
        with pytest.raises(UsageError, match="cursor"):
            page_of(rows, limit=2, cursor=cursor)


def test_devices_in_pages_sorted_by_a_fact_or_a_label(desk):
    desk.enrolled("a", "b", "c")
    for name, heat in (("a", 50.0), ("b", 70.0)):
        desk.birth(name)
        desk.report(name, temperature_c=heat)
    desk.operations.groups.label(["c"], {"floor": "1"}, [], "op")

    def names(sort, query=None, **more):
        page = desk.read(lambda db: fleet_query.page(db, query, desk.now, sort=sort, **more))
        return [known.record.device for known in page.rows]

    assert names("") == ["a", "b", "c"]
    assert names("-device") == ["c", "b", "a"]
    assert names("-temperature") == ["b", "a", "c"]
    assert names("floor", limit=1) == ["c"]
    assert names("temperature", parse("online")) == ["a", "b"]


def test_the_measurement_of_queries_runs():
    rows = measured(60)
    assert {text: count for text, count, _, _ in rows}["all"] == 60
    assert 0 < {text: count for text, count, _, _ in rows}["site:a"] < 60


# Settings.


def test_the_stronger_layer_wins_and_the_reason_is_told(bureau):
    ops = bureau.operations
    bureau.enrolled("pi-1", "pi-2")
    ops.groups.label(["pi-1"], {"site": "a"}, [], "op")
    ops.groups.new("all-of-us", "all", [], 0, "op")
    ops.groups.new("site-a", "site:a", [], 5, "op")
    ops.groups.set_config("all-of-us", {"heartbeat_s": 60, "models": {"digits": {"window_s": 30}}}, "op")
    ops.groups.set_config("site-a", {"heartbeat_s": 30, "source": "camera"}, "op")
    ops.twin.set_config("pi-1", {"source": "file", "models": {"digits": {"source": "left"}}}, "op")
    assert bureau.desired("pi-2").config == {"heartbeat_s": 60, "models": {"digits": {"window_s": 30}}}
    assert bureau.desired("pi-1").config == {
        "heartbeat_s": 30,
        "source": "file",
        "models": {"digits": {"window_s": 30, "source": "left"}},
    }
    version = bureau.desired("pi-1").version
    bureau.report("pi-1", version=version, config={"heartbeat_s": 30.0, "source": "", "ignored": {"source": "unknown"}})
    told = ops.twin.explain("pi-1")
    rows = {one["name"]: one for one in told["settings"]}
    assert (told["desired_version"], told["reported_version"]) == (version, version)
    assert (rows["source"]["origin"], rows["source"]["state"], rows["source"]["reason"]) == (OWN, "rejected", "unknown")
    assert rows["source"]["overruled"] == [{"origin": "group site-a", "value": "camera"}]
    assert (rows["heartbeat_s"]["origin"], rows["heartbeat_s"]["state"]) == ("group site-a", "in force")
    assert found(bureau, "rejected:source") == ["pi-1"]
    sent = DesiredState.from_bytes(bureau.messages("twin/desired", "pi-1")[-1])
    assert (sent.version, sent.config) == (version, bureau.desired("pi-1").config)
    # What is taken away lets the weaker layer count again.
    ops.twin.set_config("pi-1", {"source": None, "models": None}, "op")
    assert bureau.desired("pi-1").config["source"] == "camera"
    ops.groups.label(["pi-1"], {}, ["site"], "op")
    assert bureau.desired("pi-1").config == {"heartbeat_s": 60, "models": {"digits": {"window_s": 30}}}
    ops.groups.delete("all-of-us", "op")
    assert bureau.desired("pi-1").config == {}


def test_settings_for_all_that_fit_a_query(desk):
    desk.enrolled("a", "b", "c")
    desk.operations.groups.label(["a", "b"], {"site": "x"}, [], "op")
    assert desk.operations.twin.set_where("site:x", {"heartbeat_s": 60}, "op") == ["a", "b"]
    assert [desk.desired(name).config for name in "abc"] == [{"heartbeat_s": 60}, {"heartbeat_s": 60}, {}]
    before = len(desk.sent)
    desk.operations.twin.set_where("site:x", {"heartbeat_s": 60}, "op")
    assert len(desk.sent) == before
    assert desk.audited("device.config")[0][1]["where"] == "site:x"
    with pytest.raises(UsageError, match="column"):
        desk.operations.twin.set_where("", {"heartbeat_s": 1}, "op")


def test_a_device_that_joins_a_dynamic_group_later_gets_its_settings(desk):
    desk.enrolled("pi")
    desk.birth("pi")
    desk.operations.groups.new("hot", "temperature>80", [], 0, "op")
    desk.operations.groups.set_config("hot", {"swap": "stop"}, "op")
    assert desk.operations.twin.settle_all() == 0
    desk.report("pi", temperature_c=85.0)
    assert desk.operations.twin.settle_all() == 1
    assert desk.desired("pi").config == {"swap": "stop"}
    desk.report("pi", temperature_c=50.0)
    desk.operations.look_after(0.0)
    assert desk.desired("pi").config == {}


def test_settings_from_before_there_were_layers_stay_the_devices_own(desk):
    desk.enrolled("pi")
    desk.store.write(lambda db: desk.operations.desk.book.desire(db, "pi", config={"source": "old"}))
    desk.operations.groups.new("everyone", "all", [], 0, "op")
    desk.operations.groups.set_config("everyone", {"source": "new", "heartbeat_s": 9}, "op")
    assert desk.desired("pi").config == {"source": "old", "heartbeat_s": 9}
    desk.operations.groups.set_config("everyone", {"heartbeat_s": None}, "op")
    assert desk.desired("pi").config == {"source": "old"}


VALUES = st.one_of(st.integers(0, 3), st.text("xy", max_size=2), st.booleans())
CONFIGS = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(CONFIGS, min_size=1, max_size=4))
def test_of_layers_the_last_one_that_speaks_wins(configs):
    merged = effective([Layer(str(i), config) for i, config in enumerate(configs)])
    for name in "abc":
        said = [config[name] for config in configs if name in config]
        assert (name in merged, merged.get(name)) == (bool(said), said[-1] if said else None)
    for row in compare([Layer(str(i), config) for i, config in enumerate(configs)], None, 1):
        assert (row.wanted, row.state) == (merged[row.name], "waiting")


def test_settings_that_are_none_are_refused():
    for wrong in ([], "x", {"": 1}, {"a": float("nan")}, {"a": "x" * 20_000}, {"models": {"m": {"a": {"b": 1}}}}):
        with pytest.raises(UsageError):
            check_settings(wrong, "here")
    assert change({"a": 1}, {"a": ""}) == {}


def test_words_of_labels():
    assert read_words(["site=a=b", "lab"]) == {"site": "a=b", "lab": ""}
    for wrong in ("=a", "a=", "2=b", "not", "Online=yes"):
        with pytest.raises(UsageError):
            read_words([wrong])
    assert Known(desk_record(), 0.0, tags={"x": ""})["tag"] == ("x",)


def desk_record():
    from fleet.core.inventory import DeviceRecord

    return DeviceRecord("pi", 0.0)


def test_a_tag_and_a_label_of_one_name_are_one(desk):
    desk.enrolled("pi")
    desk.operations.groups.label(["pi"], {"lab": ""}, [], "op")
    desk.operations.groups.label(["pi"], {"lab": "north"}, [], "op")
    assert desk.read(lambda db: labels.labels(db, "pi")) == {"lab": "north"}
    assert found(desk, "tag:lab") == []
