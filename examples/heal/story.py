# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.heal.story``: the whole loop without a fleet, and a table of what it was worth.

A student that knows one camera is shipped; the camera is changed; its accuracy falls and its drift alarms; it heals
with inputs that were captured, its teacher, and nobody's labels. A student that was trained on labelled photographs of
both cameras is the yardstick. What is printed was measured on test photographs that no step saw.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table

from compress import compressed, evaluate, pipeline, recipe, sources
from compress.compressed import CompressedModel
from compress.evaluate import Difference, Hits, Score, paired_difference, score
from compress.final import int8_logits
from compress.recipe import Recipe
from compress.splits import Split
from compress.threads import threads
from compress.work import WorkFolder
from examples.heal import data
from examples.heal.build import RECIPE
from examples.heal.device import Watch, send
from strop.loop.captured import examine, open_present
from strop.loop.training import Healed, Healing, retrain

__all__ = ["Outcome", "heal", "main", "render"]

YARDSTICK: Final = 12
"""Epochs of the student of both cameras: as many optimizer steps as the other took before and while it healed."""
ROWS: Final = ("teacher", "before", "healed", "both")
NAMES: Final = {
    "teacher": "teacher, float",
    "before": "student of the first camera, int8",
    "healed": "the same, healed without labels, int8",
    "both": "student of both cameras, with labels, int8",
}


@dataclass(frozen=True)
class Outcome:
    """What one seed gave.

    Attributes:
        seed: Of every training.
        first, second: Row of the table → right or wrong on the test photographs of each camera.
        watch: What the device's drift said.
        healed: What the training said.
        seconds: Of processor time for the watching, the examination and the healing.
    """

    seed: int
    first: dict[str, Hits]
    second: dict[str, Hits]
    watch: Watch
    healed: Healed
    seconds: float

    @property
    def gap(self) -> Difference:
        """The healed student against the yardstick, second camera."""
        return paired_difference(self.second["both"], self.second["healed"])

    @property
    def forgotten(self) -> Difference:
        """The healed student against itself before, first camera."""
        return paired_difference(self.first["before"], self.first["healed"])

    def to_json(self) -> dict[str, Any]:
        shown = {name: {"first": _score(self.first[name]), "second": _score(self.second[name])} for name in ROWS}
        return {
            "seed": self.seed,
            "models": {n: {camera: one.to_json() for camera, one in both.items()} for n, both in shown.items()},
            "gap": self.gap.to_json(),
            "forgotten": self.forgotten.to_json(),
            "watch": self.watch.to_json(),
            "healed": self.healed.to_json(),
            "seconds": self.seconds,
        }


def _score(right: Hits) -> Score:
    return score(int(right.sum()), right.size)


def heal(work: Path, seed: int, console: Console, *, healing: Healing | None = None) -> Outcome:
    """Tell the story once.

    Args:
        work: Folder for everything that is made.
        seed: Of every training.
        console: Told what happens.
        healing: How the student is healed; default as ``strop loop run`` does it.
    """
    own = _recipe(work, seed)
    shipped = _made(own, work / "shipped", console)
    began = time.process_time()
    before, after = data.watched()
    present = open_present(work / "shipped")
    watch = Watch.of(present, own, before, after)
    console.print(f"  drift: {watch.words}", highlight=False)
    send(data.captured(), work / "captured.npz")
    said = examine(work / "captured.npz", watch.profile, minimum=500, present=present, drifted=watch.drifted, cohort=3)
    console.print(f"  captured: {'; '.join(said.words)}", highlight=False)
    with threads(1):
        healed = retrain(
            work / "shipped",
            work / "captured.npz",
            work / "healed",
            progress=lambda _: None,
            healing=healing or Healing(),
        )
    console.print(f"  {healed.words}", highlight=False)
    seconds = time.process_time() - began
    both = _made(_recipe(work, seed, "load_both"), work / "both", console)
    models = {"before": shipped, "healed": compressed.load(work / "healed"), "both": both}
    first, second = ({**_hits(own, models, part)} for part in (data.load().test, data.second_test()))
    return Outcome(seed, first, second, watch, healed, seconds)


def _recipe(work: Path, seed: int, source: str = "load") -> Recipe:
    """Return the recipe of the story with another seed, written where it can be run again."""
    text = RECIPE.read_text(encoding="utf-8").replace("seed   = 1", f"seed   = {seed}")
    text = text.replace("examples.heal.data:load", f"examples.heal.data:{source}")
    if source == "load_both":
        text = text.replace("epochs        = 8", f"epochs        = {YARDSTICK}")
    path = work / f"{source}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'beside = "{RECIPE.parent}"\n{text}', encoding="utf-8")
    return recipe.load(path)


def _made(read: Recipe, folder: Path, console: Console) -> CompressedModel:
    if (folder / "report.json").is_file():
        return compressed.load(folder)
    began = time.process_time()
    made = pipeline.run(read, folder / ".work")
    made.save(folder)
    WorkFolder(folder / ".work", read).clear()
    console.print(f"  {folder.name}: {made.report.test[-1].score}, {time.process_time() - began:.0f} s of processor")
    return made


def _hits(own: Recipe, models: dict[str, CompressedModel], split: Split) -> dict[str, Hits]:
    test, teacher = sources.tensors(own, split), sources.load_teacher(own)
    assert teacher is not None  # the recipe names one
    found = {"teacher": evaluate.hits(teacher, test.x, test.y)}
    for name, one in models.items():
        assert one.plan is not None  # and a quantize step
        found[name] = evaluate.hits(int8_logits(one.plan), test.x, test.y)
    return found


def render(outcomes: list[Outcome]) -> Table:
    """Return the table: every model on the test photographs of both cameras, seed by seed."""
    count = outcomes[0].first["before"].size
    title = f"top-1 [95 %] on {count} test photographs of each camera, which no step saw"
    table = Table(title=title, title_justify="left")
    for head in ("seed", "model", "first camera", "second camera"):
        table.add_column(head, no_wrap=True)
    for one in outcomes:
        for name in ROWS:
            cells = (str(_score(one.first[name])), str(_score(one.second[name])))
            table.add_row(str(one.seed), NAMES[name], *cells, end_section=name == ROWS[-1])
    return table


def _claims(one: Outcome) -> str:
    fallen, risen = _score(one.second["before"]), _score(one.second["healed"])
    return (
        f"seed {one.seed}: second camera {100 * fallen.accuracy:.1f} → {100 * risen.accuracy:.1f} %, "
        f"against the yardstick {one.gap}; first camera {one.forgotten}; {one.seconds:.0f} s of processor to heal"
    )


def main() -> None:
    """Tell the story for some seeds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m examples.heal.story", description="Heal a student without labels.")
    parser.add_argument("--work", type=Path, default=Path("heal-out"), help="folder for everything that is made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one student for each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    words = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(stderr=True)
    outcomes = []
    for seed in words.seeds:
        console.print(f"seed {seed}")
        outcomes.append(heal(words.work / f"seed-{seed}", seed, console))
    if words.json:
        json.dump([one.to_json() for one in outcomes], sys.stdout, indent=2)
        print()
        return
    shown = Console(width=120)
    shown.print(render(outcomes))
    for one in outcomes:
        shown.print(_claims(one), highlight=False)


if __name__ == "__main__":
    main()
