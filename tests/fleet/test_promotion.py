# SPDX-License-Identifier: Apache-2.0
"""Promotion rules: what is read from a file, how a version is judged in numbers and words, what moves by itself."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.errors import RegistryError, UsageError
from edge_contract.states import Phase, Status
from fleet.adapters import channels, tables, version_views
from fleet.adapters.rule_book import RuleBook
from fleet.core.execution import Execution
from fleet.core.lineage import Accuracy
from fleet.core.promotion import Evidence, Health, Latency, Parity, judge
from fleet.core.proofs import latency_of, parity_of, target_of
from fleet.core.rules import Rule, read_rules, rule_for
from tests.support.registry import PAIR, Registry, contents_of, wilson

SCORE = Accuracy(0.93, 0.923, 0.937, 5000, "test", "d" * 64)
FULL = Evidence(
    accuracy=SCORE,
    in_production=("1.0", replace(SCORE, value=0.935, low=0.928, high=0.942)),
    model_bytes=48_000,
    bundle_bytes=90_000,
    parity=Parity(3, (), 1, 0.03, "litert against float model, logits"),
    latencies=[Latency("rpi4", "model.tflite", "total", {"p50": 11.0, "p90": 14.5})],
    health=Health(1000.0, 2),
    approvals=["berta", "anna"],
    registered_by="anna",
    now=1000.0 + 25 * 3600,
)


def words(rule, evidence=FULL):
    return [outcome.words for outcome in judge(rule, evidence).outcomes]


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ({"accuracy_at_least": 0.915}, "accuracy 92.3 % ≥ 91.5 % (lower end of the 95 % interval; 93.0 % of 5000 test"),
        ({"accuracy_at_least": 0.925}, "accuracy 92.3 % < 92.5 %"),
        ({"accuracy_drop_at_most": 0.01}, "drop +0.5 points [-0.5, +1.5] ≤ 1.0 points: met"),
        ({"accuracy_drop_at_most": 0.004}, "> 0.4 points: not met"),
        ({"model_bytes_at_most": 48_000}, "largest model file 48000 ≤ 48000 bytes: met"),
        ({"bundle_bytes_at_most": 89_999}, "all files 90000 > 89999 bytes: not met"),
        ({"parity": True}, "3 pairs of runtimes are within their bounds, 1 steps at most: met"),
        ({"relative_error_at_most": 0.02}, "relative error 0.03 > 0.02 (litert against float model, logits): not met"),
        ({"latency_ms_at_most": {"rpi4": 15.0}}, "total p90 on rpi4 14.50 ms ≤ 15 ms: met"),
        ({"latency_ms_at_most": {"rpi4": 11}, "latency_quantile": "p50"}, "total p50 on rpi4 11.00 ms ≤ 11 ms: met"),
        ({"latency_ms_at_most": {"rpi5": 15.0}}, "no measurement of p90 on rpi5; attach one: not met"),
        ({"canary_healthy_hours": 24.0}, "canary healthy for 25.0 h on 2 devices ≥ 24 h: met"),
        ({"canary_healthy_hours": 24.0, "canary_devices": 3}, "in canary, but 2 of 3 devices run it: not met"),
        ({"approvals": 1}, "1 ≥ 1 approvals (berta): met"),  # anna registered it
        ({"approvals": 2}, "1 < 2 approvals (berta): not met"),
    ],
)
def test_a_condition_is_judged_in_words_with_its_numbers(conditions, sentence):
    (said,) = words(Rule("production", **conditions))
    assert sentence in said
    assert judge(Rule("production", **conditions), FULL).met is ("not met" not in said)


@pytest.mark.parametrize(
    ("change", "conditions", "sentence"),
    [
        ({"accuracy": None}, {"accuracy_at_least": 0.1}, "accuracy is not in the bundle's lineage: not met"),
        ({"in_production": None}, {"accuracy_drop_at_most": 0.0}, "nothing is in production to be compared with: met"),
        ({"in_production": ("0.9", None)}, {"accuracy_drop_at_most": 1.0}, "not in version 0.9's lineage: not met"),
        (
            {"in_production": ("0.9", replace(SCORE, data="e" * 64))},
            {"accuracy_drop_at_most": 1.0},
            "measured on other data than that of version 0.9: not met",
        ),
        (
            {"in_production": ("0.9", replace(SCORE, metric="agreement"))},
            {"accuracy_drop_at_most": 1.0, "other_data": True},
            "accuracy was measured as '', not 'agreement' like that of version 0.9: not met",
        ),
        ({"parity": None}, {"parity": True}, "the bundle has no parity.json: not met"),
        ({"parity": Parity(2, ("a / b: 9 steps",), 9, None)}, {"parity": True}, "1 of 2 pairs of runtimes are beyond"),
        ({"parity": Parity(0, (), 0, 0.01)}, {"parity": True}, "no two files of one plan"),
        ({"health": Health(None, 0)}, {"canary_healthy_hours": 1.0}, "not in channel canary yet (1 h asked): not met"),
        (
            {"health": Health(1000.0, 2, ((1000.0 + 20 * 3600, "device pi-9 FAILED"),))},
            {"canary_healthy_hours": 24.0},
            "canary healthy for 5.0 h since device pi-9 FAILED on 2 devices < 24 h: not met",
        ),
        (
            {"latencies": [Latency("rpi4", "m", "total", {"p90": 1.0}, "invalid")]},
            {"latency_ms_at_most": {"rpi4": 9.0}},
            "the measurement on rpi4 is invalid: not met",
        ),
    ],
)
def test_what_is_not_known_is_not_met_and_says_why(change, conditions, sentence):
    (said,) = words(Rule("production", **conditions), replace(FULL, **change))
    assert sentence in said


def test_of_several_measurements_the_slowest_counts():
    slow = Latency("rpi4", "model.tflite", "total", {"p90": 30.0})
    (said,) = words(Rule("c", latency_ms_at_most={"rpi4": 20.0}), replace(FULL, latencies=[*FULL.latencies, slow]))
    assert "30.00 ms > 20 ms" in said


def test_the_interval_of_the_drop_is_newcombes():
    # R. G. Newcombe (1998), method 10, first example of his table II: 56/70 and 48/80, difference 0.2 [0.0524, 0.3339].
    one, two = wilson(56, 70), wilson(48, 80)
    before = Accuracy(one["accuracy"], one["low"], one["high"], 70, "test")
    after = Accuracy(two["accuracy"], two["low"], two["high"], 80, "test")
    evidence = replace(FULL, accuracy=after, in_production=("1", before))
    (said,) = words(Rule("production", accuracy_drop_at_most=0.5), evidence)
    assert "drop +20.0 points [+5.2, +33.4]" in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[[rule]]\nchannel = 'production'\nacuracy_at_least = 0.9",
            r"\[rule 1\]: unknown key 'acuracy.*'; write 'acc",
        ),
        (
            "[[rule]]\nchannel = 'production'\naccuracy_at_least = 91.5",
            r"accuracy_at_least = '91.5'; give a share betw",
        ),
        ("[[rule]]\nchannel = 'a b'", r"\[rule 1\]: channel = 'a b'; give a channel"),
        ("[[rule]]\napprovals = 1", r"\[rule 1\]: key 'channel' is missing; write channel ="),
        ("[[rule]]\nchannel = 'x'\n[[rule]]\nchannel = 'x'\napprovals = true", r"\[rule 2\]: approvals = 'True'; give"),
        ("[[rule]]\nchannel = 'x'\ncanary_healthy_hours = inf", "canary_healthy_hours = 'inf'; give a positive"),
        ("[[rule]]\nchannel = 'x'\nlatency_ms_at_most = {rpi4 = 'fast'}", "latency_ms_at_most = .*; give a table of"),
        ("[[rule]]\nchannel = 'x'\nlatency_quantile = 'p42'", "latency_quantile = 'p42'; give one of p50, p90, p99"),
        ("[rule]\nchannel = 'x'", r"unknown key 'rule'; write each rule as a table \[\[rule\]\]"),
        ("[[rules]]\nchannel = 'x'", "unknown key 'rules'; write each rule"),
        ("channel = ", "not TOML: .*strop fleet rules show"),
        ("rule = [3]", r"\[rule 1\]: not a table"),
    ],
)
def test_a_bad_rules_file_is_refused_with_file_rule_key_and_fix(text, line):
    with pytest.raises(RegistryError, match=r"^rules\.toml.*" + line) as refused:
        read_rules(text, "rules.toml")
    assert "\n" not in str(refused.value)


def test_the_packaged_rules_can_be_read_and_a_file_of_ones_own_replaces_them(tmp_path):
    book = RuleBook(tmp_path / "rules.toml")
    assert book.is_default
    assert {rule.channel for rule in book.rules()} == {"candidate", "production"}
    assert not rule_for(book.rules(), "strop-agent", "candidate").parity  # software has no runtimes to compare
    assert rule_for(book.rules(), "digits", "candidate").parity
    book.path.write_text("[[rule]]\nchannel = 'gold'\napprovals = 2\n")
    assert [rule.to_json()["approvals"] for rule in book.rules()] == [2]
    book.path.write_bytes(b"\xff")
    with pytest.raises(RegistryError, match="cannot be read"):
        book.rules()


SHARES = st.floats(0, 1)


@given(low=SHARES, asked=SHARES, size=st.integers(0, 1 << 40), most=st.integers(0, 1 << 40))
def test_a_judgement_agrees_with_its_numbers_and_is_json(low, asked, size, most):
    score = Accuracy(min(1.0, low + 0.01), low, 1.0, 100, "test")
    rule = Rule("production", accuracy_at_least=asked, model_bytes_at_most=most)
    judged = judge(rule, replace(FULL, accuracy=score, model_bytes=size))
    assert [outcome.met for outcome in judged.outcomes] == [low >= asked, size <= most]
    assert judged.met is (judged.unmet == "")
    assert canonical.loads(canonical.dumps(judged.to_json()))["met"] is judged.met


KEYS = st.sampled_from([*Rule("x").to_json(), "latency_ms_at_most", "rpi4", "channel", "bogus"])
VALUES = st.one_of(st.booleans(), st.integers(-5, 1 << 60), st.floats(), st.text(max_size=8), st.just({"rpi4": 3}))


def _toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    return json.dumps(value) if isinstance(value, str) else repr(value)


@given(table=st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_rules_file_is_read_or_refused_in_one_line(table):
    text = "[[rule]]\n" + "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items())
    try:
        (rule,) = read_rules(text, "rules.toml")
    except RegistryError as error:
        assert "\n" not in str(error)
        return
    judged = judge(rule, FULL)
    assert all(outcome.words for outcome in judged.outcomes)
    assert rule_for([rule], "digits", rule.channel) in (rule, None)


DIGEST = "a" * 64


def bench(**changes):
    document = {
        "schema": "edgebench/1",
        "status": "valid",
        "artifact": {"sha256": DIGEST},
        "device": {"board": "Raspberry Pi 4 Model B", "arch": "aarch64"},
        "latency_us": {"invoke": {"p50": 900, "p90": 1000.0}, "total": {}},
    }
    return document | changes


def test_a_measurement_is_read_by_stage_board_and_file():
    found = latency_of(bench(), "", {DIGEST: "model.tflite"})
    assert (found.target, found.source, found.stage, found.ms) == (
        "rpi4",
        "model.tflite",
        "invoke",
        {"p50": 0.9, "p90": 1},
    )
    total = bench(latency_us={"invoke": {"p90": 1000}, "total": {"p90": 2000}})
    assert latency_of(total, "zero2", {DIGEST: "m"}).ms == {"p90": 2.0}
    assert target_of({"device": {"board": "Raspberry Pi Zero 2 W"}}) == "zero2"


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (bench(schema="other/1"), "unknown value 'other/1'; use one of edgebench/1"),
        (bench(artifact={"sha256": "b" * 64}), "is of file bbbbbbbbbbbb, which the bundle does not hold"),
        (bench(device={}), "does not tell the target; give --target"),
        (bench(latency_us={}), "holds no latency"),
        (bench(latency_us={"total": {"p90": 0}}), "a latency that is not positive"),
        (bench(latency_us={"total": {"p90": "soon"}}), "expected a number"),
        (bench(latency_us={"total": [1]}), "holds no latency"),
        ([], "expected an object"),
    ],
)
def test_a_measurement_that_proves_nothing_is_refused(document, line):
    with pytest.raises(RegistryError, match=line):
        latency_of(document, "", {DIGEST: "m"})


@pytest.mark.parametrize("document", [[], {}, {"pairs": [1]}, {"pairs": [{**PAIR}]}, {"pairs": [], "fidelity": 3}])
def test_a_foreign_parity_table_is_refused(document):
    with pytest.raises(RegistryError, match="is not a parity table"):
        parity_of(document)


def test_parity_follows_the_rule_of_the_exports_own_gate():
    bound = {"bound": {"steps": 1, "same_class": 0.99}}
    rows = [
        {**PAIR, **bound, "max_steps": 1},
        {**PAIR, **bound, "max_steps": 3, "alone_steps": 1},
        {**PAIR, **bound, "max_steps": 3, "alone_steps": 2},
        {**PAIR, **bound, "same_class": 0.98},
    ]
    assert [parity_of({"pairs": [row]}).beyond for row in rows] == [
        (),
        (),
        ("litert / pytorch: 3 steps",),
        ("litert / pytorch: 98.00 % same class",),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def registry(folder):
    made = Registry(folder)
    yield made
    made.store.close()


RULES = """
[[rule]]
channel = "candidate"
automatic = true
parity = true
[[rule]]
channel = "production"
automatic = true
accuracy_at_least = 0.9
accuracy_drop_at_most = 0.02
latency_ms_at_most = { rpi4 = 20.0 }
canary_healthy_hours = 2.0
approvals = 1
"""


def lineage(correct, parent=""):
    return {
        "accuracy": {"int8": wilson(correct, 1000), "teacher": wilson(999, 1000)},
        "data": "d" * 64,
        "parent": parent,
    }


def measured(registry, bundle, ms):
    (artefact,) = [f for f in registry.read(tables.model, bundle).manifest.files if f.path == "model.tflite"]
    return bench(artifact={"sha256": artefact.sha256}, latency_us={"total": {"p90": ms * 1000}})


def test_a_version_that_comes_to_meet_everything_is_marked_by_itself_when_the_last_evidence_arrives(registry):
    registry.rules(RULES)
    one = registry.add("1.0", lineage(960))
    (move,) = registry.promotion.step()
    assert (move.channel, move.verb, move.actor) == ("candidate", "rules", "rules")
    assert "1 pairs of runtimes are within their bounds" in move.reason
    registry.device("pi-1", running=one)
    registry.releases.promote("digits", "1.0", "anna")
    assert registry.promotion.attach("digits", "1.0", measured(registry, one, 12.5), "op") == []
    assert registry.promotion.approve("digits", "1.0", "berta") == []
    registry.now += 3600
    assert registry.promotion.step() == []
    (judged,) = [j for j in registry.promotion.check("digits", "1.0") if j["channel"] == "production"]
    assert [outcome["rule"] for outcome in judged["outcomes"] if not outcome["met"]] == ["canary_healthy_hours"]
    registry.now += 3601
    (move,) = registry.promotion.step()
    assert (move.channel, move.new) == ("production", one)
    assert "p90 on rpi4 12.50 ms ≤ 20 ms: met" in move.reason
    stored = registry.read(version_views.version_json, "digits", "1.0")["rules"]["production"]
    assert stored["met"]
    assert {outcome["rule"]: outcome["found"] for outcome in stored["outcomes"]}["latency_ms_at_most.rpi4"] == 12.5
    assert registry.promotion.step() == []  # nothing more to do


def test_trouble_in_the_canary_starts_its_hours_anew(registry):
    registry.rules("[[rule]]\nchannel = 'production'\nautomatic = true\ncanary_healthy_hours = 2")
    one = registry.add("1.0")
    registry.device("pi-1", running=one)
    registry.releases.set("digits", "canary", "1.0", "op")
    registry.now += 3600
    failed = Execution("j1", "r1", 1, 0, "pi-2", "digits", one, Status.FAILED, Phase.ROLLED_BACK, 0.0)
    failed = replace(failed, updated_at=registry.now, closed=True)
    registry.store.write(lambda db: tables.put_executions(db, [failed]))
    registry.now += 7000
    assert registry.promotion.step() == []
    ((outcome,),) = [j["outcomes"] for j in registry.promotion.check("digits", "1.0")]
    assert "1.9 h since device pi-2 FAILED" in outcome["words"]
    registry.now += 300
    assert [move.new for move in registry.promotion.step()] == [one]


def test_the_rules_never_undo_a_persons_word_and_never_go_back_to_an_older_version(registry):
    registry.rules("[[rule]]\nchannel = 'production'\nautomatic = true\nparity = true")
    a = registry.add("1.0")
    assert [move.new for move in registry.promotion.step()] == [a]
    b = registry.add("1.1")
    assert [move.new for move in registry.promotion.step()] == [b]
    assert registry.releases.demote("digits", "production", "op").new == a
    assert registry.promotion.step() == []  # b was taken out by a person
    c, bad = registry.add("1.2"), registry.add("1.3", parity=None)
    assert [move.new for move in registry.promotion.step()] == [c]  # the newest that meets the rules
    registry.releases.set("digits", "production", "1.3", "op", force=True, reason="tried by hand")
    assert registry.promotion.step() == []
    assert registry.read(channels.bundle_of, "digits", "production") == bad


def test_a_promotion_by_hand_needs_the_rules_or_a_reason_that_stays_in_the_history(registry):
    registry.rules("[[rule]]\nchannel = 'production'\naccuracy_at_least = 0.99")
    registry.add("1.0", lineage(960))
    with pytest.raises(RegistryError, match=r"rules of production are not met: accuracy 94.\d % < 99.0 %.*--force"):
        registry.releases.set("digits", "production", "1.0", "op")
    with pytest.raises(RegistryError, match="not met"):
        registry.releases.set("digits", "production", "1.0", "op", force=True)
    move = registry.releases.set("digits", "production", "1.0", "op", force=True, reason="urgent")
    assert move.reason.startswith("urgent (forced: accuracy")
    assert registry.promotion.step() == []


def test_who_registered_a_version_cannot_approve_it_and_an_approval_can_be_taken_back(registry):
    registry.rules("[[rule]]\nchannel = 'production'\napprovals = 2")
    registry.add("1.0", by="anna")
    with pytest.raises(RegistryError, match="'anna' registered it; another person must"):
        registry.promotion.approve("digits", "1.0", "anna")
    for name in ("berta", "carl", "carl"):
        registry.promotion.approve("digits", "1.0", name, note="read\nit")
    assert registry.promotion.check("digits", "1.0")[0]["met"]
    registry.promotion.approve("digits", "1.0", "carl", undo=True)
    assert not registry.promotion.check("digits", "1.0")[0]["met"]


def test_a_rules_file_that_cannot_be_read_moves_nothing_and_says_so(registry, caplog):
    registry.rules("[[rule]]\nchanel = 'production'")
    registry.add("1.0")
    assert registry.promotion.step() == []
    assert "no version is promoted: " in caplog.text
    assert "unknown key 'chanel'; write 'channel'" in caplog.text
    with pytest.raises(RegistryError, match="unknown key"):
        registry.promotion.check("digits", "1.0")


def test_a_huge_or_foreign_measurement_is_refused_and_leaves_nothing(registry):
    registry.rules("rule = []")
    one = registry.add("1.0")
    with pytest.raises(UsageError, match="more than 4194304 bytes"):
        registry.promotion.attach("digits", "1.0", measured(registry, one, 1.0) | {"x": "y" * 5_000_000}, "op")
    with pytest.raises(RegistryError, match="does not hold"):
        registry.promotion.attach("digits", "1.0", bench(), "op")
    assert registry.read(version_views.version_json, "digits", "1.0")["evidence"] == []


def test_versions_are_found_by_their_facts_and_shown_with_their_family(registry):
    registry.rules("rule = []")
    a = registry.add("1.0", {"recipe": "ab" * 32, "parent": "f" * 64})
    b = registry.add("1.1", {"recipe": "cd" * 32, "parent": a, **lineage(960, a)}, size=60_000)
    registry.add("2.0", {"recipe": "cd" * 32, "parent": b}, precision="float32")
    registry.releases.set("digits", "canary", "1.1", "op")

    def found(text):
        return sorted(row["version"] for row in registry.read(version_views.found_by, text))

    assert found("recipe:cdcdcdcd and size<50000 and precision:int8") == []
    assert found("recipe:cdcdcdcd and precision:int8") == ["1.1"]
    assert found("size<50000 and not channel:canary") == ["1.0", "2.0"]
    assert found("accuracy_low>0.9 or precision:float32") == ["1.1", "2.0"]
    assert found("") == ["1.0", "1.1", "2.0"]
    with pytest.raises(UsageError, match="versions have no fact 'colour'"):
        found("colour:red")
    tree = registry.read(version_views.family, "digits", "1.1")
    assert [(one["depth"], one["known"], one.get("version")) for one in tree] == [
        (-2, False, None),
        (-1, True, "1.0"),
        (0, True, "1.1"),
        (1, True, "2.0"),
    ]
    diff = registry.read(version_views.compared, registry.blobs, "digits", "1.0", "1.1")
    assert diff["files"].keys() == {"model.tflite"}
    assert diff["facts"]["accuracy"] == [None, 0.96]
    assert diff["kept"] == sum(
        f.size for f in registry.read(tables.model, b).manifest.files if f.path != "model.tflite"
    )


def test_a_family_that_bites_its_own_tail_ends(registry):
    registry.rules("rule = []")
    one = registry.add("1.0", {"parent": "e" * 64})
    versions = registry.read(tables.models)
    forged = [replace(versions[0], bundle="e" * 64, manifest=replace(versions[0].manifest, lineage={"parent": one}))]
    from fleet.core.lineage import relatives

    assert [(r.bundle, r.depth) for r in relatives([*versions, *forged], one)] == [("e" * 64, -1), (one, 0)]


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@given(said=st.dictionaries(st.sampled_from(["accuracy", "validation", "shipped", "inputs", "parent", "data"]), JUNK))
def test_no_lineage_of_other_makers_breaks_the_facts(said):
    from fleet.core.lineage import facts, parent
    from fleet.core.registry import ModelVersion
    from tests.support.registry import contents_of, manifest_of

    manifest = manifest_of("digits", "1", contents_of("1", parity=None), said)
    version = ModelVersion("digits", "1", DIGEST, manifest, 0.0)
    assert isinstance(parent(version), str)
    assert facts(version)["accuracy"] is None


def test_a_measurement_that_the_bundle_carries_counts_and_a_foreign_one_does_not(registry):
    registry.rules("[[rule]]\nchannel = 'production'\nlatency_ms_at_most = { rpi4 = 2.0 }")
    model = hashlib.sha256(contents_of("1.0")["model.tflite"]).hexdigest()
    shipped = canonical.dumps(bench(artifact={"sha256": model}))
    registry.add("1.0", files={"benchmarks/rpi4.json": shipped, "benchmarks/rpi5.json": b"[1, 2"})
    assert "invoke p90 on rpi4 1.00 ms ≤ 2 ms: met" in str(registry.promotion.check("digits", "1.0"))
    registry.add("1.1", files={"benchmarks/rpi4.json": shipped})  # of another version's file
    assert "no measurement of p90 on rpi4" in str(registry.promotion.check("digits", "1.1"))
