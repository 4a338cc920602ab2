# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from benchmarks import install_size
from edge_contract.software import here
from tests.edge_agent.provision import card


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return card.house(tmp_path_factory.mktemp("house"))


def test_what_is_installed_is_what_the_wheels_hold(house, capsys):
    assert install_size.main(["--wheelhouse", str(house), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["wheelhouses"]
    index = json.loads((house / "wheelhouse.json").read_bytes())
    held = sum(one["unpacked"] for one in index["wheels"])
    assert held < row["installed"] < held + 3000  # and a mark, a script, an installer's name
    assert row["installed"] <= row["on_disk"] <= row["installed"] + 4096 * row["files"]
    assert row["original"] == held


def test_the_table_and_a_folder_that_was_installed(house, tmp_path, capsys):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "link").symlink_to("a")
    assert install_size.main(["--wheelhouse", str(house), "--installed", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"| {here()[0]} | {here()[1]} | litert | 1 |")
    assert lines[3] == f"{tmp_path}: 0.0 MB in 1 files, 0.0 MB on disk"
