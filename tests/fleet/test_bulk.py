# SPDX-License-Identifier: Apache-2.0
"""Many rows in one statement come back as they were, whatever stands in them, on both databases."""

import random
import string

from hypothesis import given
from hypothesis import strategies as st

from fleet.adapters.bulk import array_text, sources

TYPES = ("TEXT", "INTEGER", "REAL", "BLOB")
LETTERS = string.ascii_letters + string.digits + "\"\\{},' \t\n%?ü字€" + "\x01\x7f"


def nasty(count, seed=1):
    chance = random.Random(seed)

    def text():
        return "".join(chance.choices(LETTERS, k=chance.randrange(12)))

    words = ["", "NULL", "null", "{}", '"', "\\", "%s", "?", "a,b", *(text() for _ in range(count))]
    numbers = [0, -1, 2**63 - 1, -(2**63)]
    floats = [0.0, -0.0, 1e300, 5e-324, 0.1]
    return [
        (word, numbers[i % 4] if i < 8 else i, floats[i % 5], chance.randbytes(i % 40)) for i, word in enumerate(words)
    ]


def test_rows_come_back_as_they_were(open_store, tmp_path):
    store, rows = open_store(tmp_path), nasty(700)

    def write(db):
        blob = "BYTEA" if hasattr(db, "takes_arrays") else "BLOB"
        db.execute(
            f"CREATE TABLE bulk_test (number BIGINT, word TEXT, whole BIGINT, part DOUBLE PRECISION, data {blob})"
        )
        numbered = [(i, *row) for i, row in enumerate(rows)]
        for source, values in sources(db, ("INTEGER", *TYPES), numbered):
            db.execute(f"INSERT INTO bulk_test (number, word, whole, part, data) {source}", values)
        found = [tuple(r) for r in db.execute("SELECT word, whole, part, data FROM bulk_test ORDER BY number")]
        db.execute("DROP TABLE bulk_test")
        return [(a, b, c, bytes(d)) for a, b, c, d in found]

    assert store.write(write) == rows


def test_no_rows_are_no_statement(open_store, tmp_path):
    store = open_store(tmp_path)
    assert store.write(lambda db: list(sources(db, TYPES, []))) == []


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=6))
def test_an_array_is_read_back_by_the_rules_of_its_text(texts):
    """8.15.6 of PostgreSQL's manual: inside quotes a backslash takes the next letter as it is."""
    found, text, at, quoted, word = [], array_text(texts)[1:-1], 0, False, ""
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
            word += text[at]
        elif letter == '"':
            if quoted:
                found.append(word)
                word = ""
            quoted = not quoted
        elif quoted:
            word += letter
        else:
            assert letter == ","
        at += 1
    assert found == texts
