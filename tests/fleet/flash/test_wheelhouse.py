# SPDX-License-Identifier: Apache-2.0
"""Wheelhouses: slimmed wheels that pip takes, made offline, the same bytes twice; what is missing is named."""

import ast
import ctypes
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from edge_contract import wheel
from edge_contract.errors import BundleError, DownloadError, StropError, UsageError
from edge_contract.software import here
from fleet.flash import wheelhouse, wheelhouse_elf, wheelhouse_slim
from fleet.flash.wheelhouse_make import Order, make, own_wheel
from fleet.flash.wheelhouse_rules import RULES
from strop.cli import main
from tests.edge_agent.provision import card
from tests.edge_agent.software import fakes

PYTHON, MACHINE = here()
LITERT = "ai_edge_litert/interpreter.py"


@pytest.fixture
def house(tmp_path):
    """A folder of small wheels with which a whole wheelhouse can be made."""
    folder = tmp_path / "from"
    fakes.wheel(folder, "numpy", "2.0.0", {"numpy/__init__.py": "", "numpy/lib/tests/test_a.py": "1"})
    files = {LITERT: "x = 1\n", "ai_edge_litert/aot/big.py": "y" * 1000, "ai_edge_litert/libLiteRt.so": "z" * 500}
    fakes.wheel(folder, "ai_edge_litert", "2.3.0", files, needs=["numpy>=1", "tqdm"])
    fakes.wheel(folder, "tqdm", "1.0", {"tqdm.py": ""})
    return folder


@pytest.fixture
def ours(tmp_path):
    needs = ["numpy>=1.26; extra == 'agent-litert'", "ai-edge-litert>=2.1; extra == 'agent-litert'"]
    files = {"edge_agent/__init__.py": "", "fleet/server.py": "", "strop.py": ""}
    path = fakes.wheel(tmp_path / "own", "strop", "0.1.0", files, needs=needs)
    return rewritten(path, "METADATA", lambda text: text + "Provides-Extra: agent\nProvides-Extra: agent-litert\n")


def rewritten(path: Path, name: str, change) -> Path:
    """Change one file of a wheel's metadata and its record."""
    with zipfile.ZipFile(path) as archive:
        contents = {entry: archive.read(entry) for entry in archive.namelist() if not entry.endswith("RECORD")}
        record = next(entry for entry in archive.namelist() if entry.endswith("RECORD"))
    key = next(entry for entry in contents if entry.endswith(f".dist-info/{name}"))
    contents[key] = change(contents[key].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        lines = [f"{entry},{wheel.encoded(data)},{len(data)}\n" for entry, data in contents.items()]
        for entry, data in {**contents, record: "".join([*lines, f"{record},,\n"]).encode()}.items():
            archive.writestr(entry, data)
    return path


def order(tmp_path, house, ours, **wishes) -> Order:
    given = {"python": PYTHON, "machine": MACHINE, "runtime": "litert", "out": tmp_path / "out"}
    return Order(**{**given, "source": house, "ours": ours, **wishes})


def test_a_wheelhouse_is_made_offline_slimmed_and_taken_by_pip(tmp_path, house, ours):
    said = []
    made = make(order(tmp_path, house, ours), said.append)
    assert [(one.name, one.version) for one in made.wheels] == [
        ("ai-edge-litert", "2.3.0"), ("numpy", "2.0.0"), ("strop", "0.1.0"),
    ]  # fmt: skip
    assert made.unpacked < made.original_unpacked - 1400
    assert all(f"-{wheelhouse_slim.BUILD_TAG}-" in one.file for one in made.wheels)
    assert not list(tmp_path.glob(".out*"))
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), "--no-index", "--no-compile"]
    where = ["--find-links", str(made.folder), "--no-deps", "--require-hashes", "-r"]
    subprocess.run([*pip, *where, str(made.folder / wheelhouse.REQUIREMENTS)], check=True)
    assert (target / LITERT).is_file()
    assert not (target / "ai_edge_litert/aot").exists()
    assert not (target / "fleet").exists()
    for one in made.wheels:
        original = next((house if one.name != "strop" else ours.parent).glob(f"{one.name.replace('-', '_')}-*"))
        assert wheelhouse_slim.slim(original, tmp_path).path.read_bytes() == (made.folder / one.file).read_bytes()


def test_what_is_missing_is_named_and_originals_stay_for_the_next_time(tmp_path, house, ours):
    next(house.glob("numpy*")).unlink()
    with pytest.raises(DownloadError, match=r"no wheel of numpy.* for Python 3.* put it into"):
        make(order(tmp_path, house, ours), lambda _: None)
    assert (tmp_path / ".out.originals").is_dir()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"python": "3.9"}, "Python 3.9, .* unknown; it may be Python 3.11"),
        ({"machine": "vax"}, "vax, litert: unknown"),
        ({"machine": "armv7l"}, "no wheel of litert for 32-bit ARM exists; use a 64-bit image"),
        ({"runtime": "tflite-runtime", "python": "3.13"}, "no wheel of tflite-runtime for Python 3.13 exists"),
        ({"source": Path("/nowhere")}, "/nowhere: is no folder"),
    ],
)
def test_boards_without_wheels_are_refused_before_anything_is_done(tmp_path, house, ours, wishes, words):
    with pytest.raises(UsageError, match=words):
        make(order(tmp_path, house, ours, **wishes), lambda _: None)


def test_a_folder_of_something_else_is_not_overwritten(tmp_path, house, ours):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="folder of something else"):
        make(order(tmp_path, house, ours), lambda _: None)


def test_a_damaged_wheelhouse_is_named(tmp_path):
    folder = card.house(tmp_path / "house")
    found = wheelhouse.read(folder)
    assert (found.python, found.machine, found.version) == (PYTHON, MACHINE, "0.1.0")
    with pytest.raises(
        UsageError, match=r"it is for Python .*, not for Python 3.13 on aarch64; strop flash wheelhouse"
    ):
        found.check_fits("3.13", "aarch64")
    path = found.ours
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(BundleError, match="is not the wheel that the index names"):
        wheelhouse.read(folder)
    path.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        wheelhouse.read(folder)
    path.write_bytes(whole)
    (folder / wheelhouse.REQUIREMENTS).write_text("numpy\n")
    with pytest.raises(BundleError, match="is not what the index says"):
        wheelhouse.read(folder)
    index = json.loads((folder / wheelhouse.INDEX).read_bytes())
    for spoilt, words in (
        ({**index, "schema": "x"}, "schema"),
        ({**index, "wheels": []}, "no wheel of strop"),
        ({**index, "wheels": [{**index["wheels"][0], "file": "../a.whl"}]}, "no wheel's name"),
    ):
        (folder / wheelhouse.INDEX).write_text(json.dumps(spoilt))
        with pytest.raises(StropError, match=words):
            wheelhouse.read(folder)
    with pytest.raises(UsageError, match="is no wheelhouse"):
        wheelhouse.read(tmp_path)


@pytest.mark.long
def test_the_rules_leave_no_import_without_its_module():
    """Read by their syntax, the packages that stay import nothing that goes, but where it is told here."""
    allowed = {
        "numpy/testing/print_coercion_tables.py",  # a program of numpy's own developers
        "rich/syntax.py",
    }
    purelib = Path(sysconfig.get_path("purelib"))
    faults = []
    for name in ("numpy", "ai-edge-litert", "zstandard", "pygments", "securesystemslib", "onnxruntime"):
        files = [str(file) for file in metadata.distribution(name).files or () if str(file).endswith(".py")]
        gone = {module(file) for file in files if wheelhouse_slim.goes(name, file)}
        assert gone or name == "onnxruntime", name
        for file in files:
            if wheelhouse_slim.goes(name, file) or file in allowed or not (purelib / file).is_file():
                continue
            tree = ast.parse((purelib / file).read_bytes())
            faults += [(file, found) for found in imported(tree.body, module(file)) if found in gone]
    assert faults == []


def module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(body, own):
    """Yield the modules that are imported at the top of a module: what stands in a function comes when it is called."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def library(folder: Path) -> Path:
    source = folder / "a.c"
    source.write_text('#include <string.h>\nint seven(void){return strlen("1234567");}\nint data[9000]={1};\n')
    subprocess.run(["gcc", "-g", "-shared", "-fPIC", "-o", str(folder / "a.so"), str(source)], check=True)
    return folder / "a.so"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler: apt-get install gcc")
def test_a_stripped_library_loads_and_computes_as_before(tmp_path):
    whole = library(tmp_path).read_bytes()
    slim = wheelhouse_elf.stripped(whole)
    assert len(slim) < len(whole) - 500
    (tmp_path / "slim.so").write_bytes(slim)
    assert ctypes.CDLL(str(tmp_path / "slim.so")).seven() == 7
    assert wheelhouse_elf.stripped(slim) == slim
    for cut in (b"", slim[:30], slim[:64], whole[:200], b"\x7fELF" + bytes(100)):
        assert wheelhouse_elf.stripped(cut) == cut


def test_gaps_between_segments_are_closed_and_addresses_stay():
    """A library as patchelf leaves it: made by hand, one loaded segment far behind the other."""
    import struct

    entry, head = struct.Struct("<IIQQQQQQ"), bytearray(64)
    head[:6], head[16:18] = b"\x7fELF\x02\x01", struct.pack("<H", 3)
    struct.pack_into("<QQ", head, 32, 64, 50_000)
    struct.pack_into("<HHHHH", head, 54, 56, 3, 64, 5, 1)
    segments = [(1, 0, 0, 4096), (1, 40_960, 8192 + 4096 * 10, 100), (2, 40_970, 8192 + 4096 * 10 + 10, 8)]
    table = b"".join(entry.pack(kind, 4, at, to, to, size, size, 4096) for kind, at, to, size in segments)
    data = bytes(head) + table
    data += bytes(40_960 - len(data)) + bytes(range(100)) + bytes(60_000 - 41_060)
    slim = wheelhouse_elf.stripped(data)
    assert len(slim) == 4096 + 100
    assert slim[4096:] == bytes(range(100))
    moved = [entry.unpack_from(slim, 64 + 56 * i) for i in range(3)]
    assert [one[2] for one in moved] == [0, 4096, 4106]
    assert [one[3] for one in moved] == [one[2] for one in segments]
    assert struct.unpack_from("<Q", slim, 40)[0] == 0


def test_records_tags_and_requirements_of_a_slimmed_wheel(tmp_path, house):
    path = next(house.glob("ai_edge*"))
    rewritten(path, "WHEEL", lambda text: text + "Build: 7\n")
    found = wheelhouse_slim.slim(path, tmp_path)
    told = wheel.read(found.path)
    assert found.path.name == "ai_edge_litert-2.3.0-1slim-py3-none-any.whl"
    assert told.requires == ("numpy>=1",)
    assert (told.unpacked, told.members) == (found.after + len(record(found.path)), 4)
    with zipfile.ZipFile(found.path) as archive:
        assert archive.read("ai_edge_litert-2.3.0.dist-info/WHEEL").decode().count("Build:") == 1
        assert archive.testzip() is None
    assert set(RULES) >= {"numpy", "ai-edge-litert", "onnxruntime", "strop"}


def record(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("RECORD")))


@pytest.mark.parametrize(
    ("name", "words"),
    [("no-wheel.zip", "is not named as a wheel"), ("numpy-2.0-x-py3-none-any.whl", "is not named"),
     ("numpy-9.9.9-py3-none-any.whl", "holds numpy 2.0.0")],
)  # fmt: skip
def test_wheels_that_name_themselves_otherwise_are_refused(tmp_path, house, name, words):
    path = tmp_path / name
    shutil.copy(next(house.glob("numpy*")), path)
    with pytest.raises(BundleError, match=words):
        wheel.read(path)


def test_a_wheel_with_a_path_that_leaves_it_is_refused(tmp_path):
    path = fakes.wheel(tmp_path, "evil", "1.0", {"../../etc/passwd": "root"})
    with pytest.raises(BundleError, match="leaves the wheel"):
        wheel.read(path)


@pytest.mark.long
def test_our_own_wheel_is_built_from_the_sources_without_touching_them(tmp_path):
    before = {path.name for path in card.HOME.iterdir()}
    path = own_wheel(tmp_path)
    assert wheel.read(path).name == "strop"
    assert {path.name for path in card.HOME.iterdir()} - before <= {".pytest_cache"}
    with pytest.raises(UsageError, match="--own-wheel"):
        own_wheel(tmp_path / "other", tmp_path)


@pytest.mark.long
def test_the_command_prints_what_it_made(tmp_path, house, ours, capsys):
    words = ["flash", "wheelhouse", "--python", PYTHON, "--arch", MACHINE, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--from", str(house), "--own-wheel", str(ours), "--whole", "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["python"], said["runtime"], len(said["wheels"])) == (PYTHON, "litert", 4)
    assert said["unpacked"] == said["original_unpacked"]
