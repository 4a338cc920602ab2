# SPDX-License-Identifier: Apache-2.0
"""Ways to damage a model file: cut, flip, overwrite and splice its bytes, or lie in its tables."""

import copy

from hypothesis import strategies as st

from export.tflite.encoder import encode
from export.tflite.schema import ENUMS, TABLES

WORDS = (0, 1, 2, 4, 8, 16, 255, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x7F800000)
RANGES = {"b": 7, "B": 8, "?": 1, "h": 15, "H": 16, "i": 31, "I": 32, "q": 63, "Q": 64}


@st.composite
def damaged(draw, files):
    """Bytes of one of the files after one to four injuries."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 4))):
        injure = draw(st.sampled_from((cut, flip, overwrite, splice, repeat)))
        injure(draw, data, files)
    return bytes(data)


def place(draw, data):
    return draw(st.integers(0, max(len(data) - 1, 0)))


def cut(draw, data, files):
    del data[place(draw, data) :]


def flip(draw, data, files):
    for _ in range(draw(st.integers(1, 8))):
        if data:
            data[place(draw, data)] ^= 1 << draw(st.integers(0, 7))


def overwrite(draw, data, files):
    """Put a number where an offset, a length or an index may stand."""
    at = place(draw, data) & ~3
    word = draw(st.sampled_from((*WORDS, len(data), len(data) - at, 0xFFFFFFFF - at)))
    data[at : at + 4] = (word & 0xFFFFFFFF).to_bytes(4, "little")


def splice(draw, data, files):
    other = draw(st.sampled_from(files))
    start, length = draw(st.integers(0, len(other))), draw(st.integers(0, 4096))
    at = place(draw, data)
    data[at : at + draw(st.integers(0, length))] = other[start : start + length]


def repeat(draw, data, files):
    at, length = place(draw, data), draw(st.integers(1, 64))
    data[at : at + length] = data[at : at + length] * draw(st.integers(2, 64))


@st.composite
def lying(draw, files):
    """A TFLite file that is whole but whose fields say something else in one to five places."""
    root = copy.deepcopy(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 5))):
        kind, table = "Model", root
        while True:
            field = draw(st.sampled_from(TABLES[kind])) if TABLES.get(kind) else None
            value = field and table.get(field.name)
            inner = inner_kind(field, table) if field else ""
            if isinstance(value, list) and value and draw(st.integers(0, 9)):
                kind, table = inner, draw(st.sampled_from(value))
            elif isinstance(value, dict) and draw(st.integers(0, 9)):
                kind, table = inner, value
            else:
                break
        if field is not None:
            table[field.name] = lie(draw, field, value)
    try:
        return encode(root)
    except (KeyError, IndexError):  # a union with a number but no table, or none with that number: not writable
        return b""


def inner_kind(field, table):
    if not field.kind.startswith("@"):
        return field.kind
    number = table.get(f"{field.name}_type", 0)
    names = ENUMS[field.kind[1:]]
    return names[number] if number < len(names) else "NONE"


def lie(draw, field, value):
    if isinstance(value, (list, tuple, bytes)) and not is_scalar_vector(field):
        return draw(st.sampled_from((None, value[:0], value[: len(value) // 2], value + value[:1])))
    if is_scalar_vector(field):
        numbers = tuple(value or ())
        some = draw(st.lists(number(field.kind), max_size=8))
        found = draw(st.sampled_from((None, (), numbers[:-1], numbers + tuple(some), tuple(some))))
        return found if found is None or field.kind != "B" else bytes(found)
    if len(field.kind) == 1 and field.kind != "s":
        return draw(number(field.kind))
    return None


def is_scalar_vector(field):
    return field.is_vector and len(field.kind) == 1


def number(kind):
    if kind == "f":
        return st.floats(width=32)
    if kind == "?":
        return st.booleans()
    top = (1 << RANGES[kind]) - 1
    bottom = 0 if kind.isupper() else -top - 1
    small = st.integers(max(bottom, -2), 12)
    return st.one_of(small, st.sampled_from((bottom, top, top // 2)), st.integers(bottom, top))
