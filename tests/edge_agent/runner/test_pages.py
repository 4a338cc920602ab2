# SPDX-License-Identifier: Apache-2.0
"""What the pages tell an engineer to write runs as it stands: Python over a real bundle, and each ``agent.toml``."""

import re
import shutil
from pathlib import Path

import pytest

from edge_agent.config import load
from tests.edge_agent.runner import bundles, tiny
from tests.support.agent_process import install

ROOT = Path(__file__).resolve().parents[3]
SOURCES = "".join(f'[sources.{name}]\nkind = "replay"\npath = "{name}.npy"\n' for name in ("camera", "door"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/runner.md"])
def test_the_python_of_a_page_answers(page, tmp_path, monkeypatch, capsys):
    bundle = bundles.build(tmp_path / "out" / "digits-1.0.0")
    shutil.copytree(bundle, tmp_path / "bundle")
    install(tmp_path / "data", bundle)
    model = bundles.manifest_of(bundle).model
    words = f'device = "pi-01"\nruntime = "litert"\nrunner = "embedded"\nmodel = "{model}"\n'
    (tmp_path / "data" / "agent.toml").write_text(words)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STROP_DATA", "data")
    (code,) = [text for text in blocks(page, "python") if "import edge_agent" in text]
    exec(compile(code.replace('"digits"', repr(model)), page, "exec"), {"image": tiny.images(1)[0]})
    label, confidence = capsys.readouterr().out.split()
    assert label in bundles.LABELS
    assert 0 < float(confidence) <= 1


@pytest.mark.parametrize("number", range(len(blocks("docs/agent.md", "toml"))))
def test_each_agent_toml_of_the_page_is_taken(number, tmp_path):
    text = blocks("docs/agent.md", "toml")[number]
    top = "" if "\ndevice " in f"\n{text}" else 'device = "pi-01"\n'
    (tmp_path / "agent.toml").write_text(top + text + ("" if "[sources." in text else SOURCES))
    assert load(tmp_path).lanes
