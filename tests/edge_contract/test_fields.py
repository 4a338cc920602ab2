# SPDX-License-Identifier: Apache-2.0
"""Reading field by field: each fault names its path, and nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.errors import ContractError, ManifestError, RecipeError
from edge_contract.fields import Fields

GOOD = {
    "text": "a",
    "integer": 3,
    "number": "0x1.8000000000000p+0",
    "flag": True,
    "items": [1, "a"],
    "object": {"b": 1},
    "digest": "0" * 64,
    "texts": ["a", "b"],
    "integers": [1, -2],
    "numbers": [1, 0.5],
}
READ = {
    "text": "a",
    "integer": 3,
    "number": 1.5,
    "flag": True,
    "items": [1, "a"],
    "object": {"b": 1},
    "digest": "0" * 64,
    "texts": ("a", "b"),
    "integers": (1, -2),
    "numbers": (1.0, 0.5),
}
BAD = {
    "text": [1, None, "\ud800"],
    "integer": [1.0, "1", True, 2**63, -(2**63) - 1],
    "number": ["1", True, None, float("nan")],
    "flag": [0, 1, "true", None],
    "items": [{}, "ab", None],
    "object": [[], "ab", None],
    "digest": ["0" * 63, "G" * 64, "A" * 64, 0],
    "texts": ["ab", [1], [None], ["\udfff"]],
    "integers": [[True], [1.0], "12", [2**63]],
    "numbers": [["a"], [None], 1],
}


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_each_reader_takes_its_own_kind(kind):
    assert getattr(Fields({kind: GOOD[kind]}, "doc"), kind)(kind) == READ[kind]


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k in sorted(BAD) for v in BAD[k]], ids=repr)
def test_each_reader_refuses_other_kinds_and_names_the_path(kind, value):
    with pytest.raises(ManifestError) as caught:
        getattr(Fields({kind: value}, "doc", ManifestError), kind)(kind)
    assert caught.value.where.startswith(f"doc.{kind}")


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_missing_field_without_default_is_named(kind):
    with pytest.raises(ContractError, match=f"^doc: field '{kind}' is missing$"):
        getattr(Fields({}, "doc"), kind)(kind)


def test_defaults_stand_in_for_what_is_missing_but_not_for_what_is_wrong():
    fields = Fields({"size": None}, "doc")
    assert (fields.text("a", ""), fields.integer("b", 7), fields.flag("c", False)) == ("", 7, False)
    assert (fields.number("d", 0.5), fields.object("e", {}), fields.texts("f", ())) == (0.5, {}, ())
    with pytest.raises(ContractError):
        fields.integer("size", 7)


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, 0])
def test_64_bits_are_enough(value):
    assert Fields({"n": value}, "doc").integer("n") == value


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ContractError) as caught:
        Fields({"n": "x" * 5000}, "doc").integer("n")
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("document", [[], "a", None, 3])
def test_what_is_no_object_is_refused_with_the_leaf_that_was_asked_for(document):
    with pytest.raises(RecipeError, match=r"^recipe: expected an object, found ") as caught:
        Fields(document, "recipe", RecipeError)
    assert caught.value.exit_code == 2


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(-5, 5)), st.data())
def test_rest_is_exactly_what_nobody_read(document, data):
    read = data.draw(st.sets(st.sampled_from(sorted(document)))) if document else set()
    fields = Fields(document, "doc")
    for key in read:
        fields.integer(key)
    assert fields.rest() == {key: value for key, value in document.items() if key not in read}
