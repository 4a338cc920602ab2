# SPDX-License-Identifier: Apache-2.0
"""The input contract's words: there and back, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.errors import ManifestError
from edge_contract.input_contract import POLICIES, InputContract

contracts = st.builds(
    InputContract,
    policy=st.sampled_from(POLICIES),
    minimum=st.none() | st.floats(-1e6, -1.0),
    maximum=st.none() | st.floats(0.0, 1e6),
    max_age_s=st.floats(0.0, 1e6),
    stuck_after=st.just(0) | st.integers(3, 1 << 40),
    may_be_flat=st.booleans(),
)


@given(contracts)
def test_it_survives_canonical_json(contract):
    data = canonical.dumps(contract.to_json())
    assert InputContract.from_json(canonical.loads(data)) == contract
    assert canonical.dumps(InputContract.from_json(canonical.loads(data)).to_json()) == data


def test_an_empty_table_is_the_default():
    assert InputContract.from_json({}) == InputContract()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"policy": "ignore"}, "input_contract.policy: unknown value 'ignore'; use one of refuse, clamp, pass"),
        ({"minimum": 2, "maximum": 1}, "values from 2 to 1; set it below the maximum"),
        ({"minimum": 1, "maximum": 1}, "values from 1 to 1"),
        ({"minimum": "nan"}, "input_contract.minimum"),
        ({"max_age_s": -1}, "an age of -1 s"),
        ({"stuck_after": 2}, "stuck after 2 inputs; use 0 for never, or at least 3"),
        ({"stuck_after": True}, "expected an integer"),
        ({"may_be_flat": 0}, "expected true or false"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ([], "expected an object"),
    ],
)
def test_what_does_not_fit_is_refused(document, words):
    with pytest.raises(ManifestError, match=words.replace("(", r"\(")):
        InputContract.from_json(document)
