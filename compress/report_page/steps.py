# SPDX-License-Identifier: Apache-2.0
"""Pictures of the steps: accuracy, cost, widths, losses."""

from collections.abc import Callable, Sequence
from typing import Any

from compress.report import StepReport
from compress.report_page.style import CALM, INK, PALE, QUIET, kilobytes, picture

__all__ = ["accuracy_picture", "cost_pictures", "loss_picture", "title", "width_picture"]

CARD = 3.6


def title(step: StepReport) -> str:
    """Return a step's name in pictures."""
    return f"{step.number}. {step.kind}" if step.number else "entering"


def accuracy_picture(steps: Sequence[StepReport], metric: str = "top-1") -> str:
    """Return the metric on the validation split with its interval after each step, without an untrained model."""
    shown = [step for step in steps if step.number or step.method != "untrained"] or list(steps)

    def draw(axes: Any) -> None:
        for y, step in enumerate(reversed(shown)):
            score = step.score
            axes.plot([100 * score.low, 100 * score.high], [y, y], color=CALM, linewidth=2, solid_capstyle="round")
            axes.plot([100 * score.accuracy], [y], "o", color=INK, markersize=5)
            text, place = f"{100 * score.accuracy:.1f}", (100 * score.accuracy, y)
            axes.annotate(text, place, (0, 6), textcoords="offset points", ha="center")
        axes.set_yticks(range(len(shown)), [title(step) for step in reversed(shown)])
        axes.set_ylim(-0.5, len(shown) - 0.3)
        axes.set_xlabel(f"{metric} on the validation split, %")
        axes.grid(axis="x", color=PALE, linewidth=0.7)
        axes.set_axisbelow(True)

    caption = "Line: 95 % interval."
    return picture(draw, height=0.44 * len(shown) + 0.75, label="accuracy after each step", caption=caption)


def cost_pictures(steps: Sequence[StepReport]) -> tuple[str, ...]:
    """Return size, multiply-accumulates, memory and time after each step, one small picture each."""
    first = steps[0]
    size = [step.size_kb for step in steps]
    zipped = [step.zipped_kb for step in steps]
    found = [
        _bars(steps, "weights, KB", size, kilobytes, zipped),
        _bars(steps, "multiply-accumulates, thousands", [s.cost.macs / 1e3 for s in steps], lambda v: f"{v:,.0f}"),
        _bars(steps, "activations at their peak, KB", [step.memory_kb for step in steps], kilobytes),
    ]
    if any(step.latency_ms is not None for step in steps):
        times = [step.latency_ms or 0.0 for step in steps]
        found.append(_bars(steps, "latency on the target, ms", times, lambda v: f"{v:.2f}" if v else "not measured"))
    return tuple(found) if first.size_kb else ()


def _bars(
    steps: Sequence[StepReport],
    what: str,
    values: Sequence[float],
    words: Callable[[float], str],
    zipped: Sequence[float | None] = (),
) -> str:
    def draw(axes: Any) -> None:
        places = range(len(steps) - 1, -1, -1)
        axes.barh(places, values, 0.62, color=CALM)
        for y, value in zip(places, values, strict=True):
            axes.annotate(words(value), (value, y), (4, 0), textcoords="offset points", va="center")
        for y, small in zip(places, zipped, strict=False):
            if small is not None:
                axes.plot([small, small], [y - 0.31, y + 0.31], color=INK, linewidth=2)
        axes.set_yticks(places, [title(step) for step in steps])
        axes.set_xlim(0, 1.25 * max(values, default=1.0) or 1.0)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
        axes.set_title(what, fontsize=9, loc="left", fontweight="bold")

    caption = "Mark: after deflate." if any(small is not None for small in zipped) else ""
    return picture(draw, width=CARD, height=0.3 * len(steps) + 0.5, label=f"{what} after each step", caption=caption)


def loss_picture(steps: Sequence[StepReport]) -> str:
    """Return the training loss of every epoch, step after step; empty if nothing was trained."""
    trained = [step for step in steps if step.losses]
    if not trained:
        return ""

    def draw(axes: Any) -> None:
        start = 0
        for i, step in enumerate(trained):
            epochs = range(start + 1, start + 1 + len(step.losses))
            colour = (CALM, INK, QUIET)[i % 3]
            axes.plot(epochs, step.losses, marker=".", color=colour, label=title(step), linewidth=1.2)
            start += len(step.losses)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss")
        axes.legend()

    return picture(draw, height=2.5, label="training loss of every epoch")


def width_picture(steps: Sequence[StepReport]) -> str:
    """Return the channels of each convolution as it entered and at the end; empty if none changed."""
    before, after = (
        {layer.name: layer.channels for layer in step.cost.layers if layer.kind.startswith("Conv")}
        for step in (steps[0], steps[-1])
    )
    if before == after:
        return ""

    def draw(axes: Any) -> None:
        places = range(len(before))
        axes.bar(places, list(before.values()), color=PALE, label="entering")
        axes.bar(places, [after.get(name, 0) for name in before], color=CALM, label="kept")
        axes.set_xticks(places, list(before), rotation=40, ha="right", fontsize=7.5)
        axes.set_ylabel("channels")
        axes.set_xlim(-0.6, max(len(before), 12) - 0.4)
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))

    return picture(draw, height=2.8, label="channels of each convolution, entering and kept")
