# SPDX-License-Identifier: Apache-2.0
"""What a recipe says of its model and its data: the tables ``[model]`` and ``[data]``, read without PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compress.recipe_table import Table
from edge_contract.errors import RecipeError

__all__ = [
    "METRICS",
    "NPZ",
    "DataSource",
    "ModelSource",
    "check_named_files",
    "is_model_file",
    "read_data",
    "read_model",
]

METRICS: Final = ("top1", "agreement")
NPZ: Final = ".npz"
CSV: Final = (".csv", ".csv.gz")
MODEL_FILES: Final = (".pt2", ".keras", ".h5", ".hdf5")


def is_model_file(name: str) -> bool:
    """Tell whether a model is named by a file, which brings its weights, and not by ``module:callable``.

    Example:
        >>> is_model_file("net.pt2"), is_model_file("saved/"), is_model_file("examples.digits.model:student")
        (True, True, False)
    """
    return name.endswith((*MODEL_FILES, "/"))


@dataclass(frozen=True)
class ModelSource:
    """Where the model and its teacher come from.

    Attributes:
        source: ``module:callable`` that builds the network, an exported program ``.pt2``, or a Keras file.
        weights: State dict that the recipe starts from; empty starts untrained, or with the weights of the file.
        teacher, teacher_weights: The same for the teacher; empty means no teacher.
        trained: Whether ``source`` returns a network that was trained already.
    """

    source: str
    weights: str = ""
    teacher: str = ""
    teacher_weights: str = ""
    trained: bool = False

    @property
    def is_trained(self) -> bool:
        """True if the model enters the recipe with weights."""
        return self.trained or bool(self.weights) or is_model_file(self.source)


@dataclass(frozen=True)
class DataSource:
    """Where the samples come from.

    Attributes:
        source: ``module:callable`` that returns ``DataSplits``, an ``.npz`` or ``.csv`` file, or a folder of images.
        metric: ``top1``, or ``agreement`` with the float model that enters, which needs no labels.
        augment: ``module:callable`` that changes training batches; empty changes nothing.
        label: CSV: column of the class; empty takes ``label``, or the last one.
        group: CSV: column of what may stand in one split only, such as the person; empty has none.
        features: CSV: columns of the input, in order; empty takes all others.
        shape: CSV: of one input, such as [28, 28]; empty for a series, whose shape the preprocessing knows.
        unlabelled: Further inputs for ``distill`` steps: ``module:callable`` that returns an array, an ``.npz`` file
            with an array ``x``, what ``strop fleet capture export`` wrote, or a folder of images or of captured
            inputs; empty has none.
        unlabelled_share: Of these in every training with the teacher; 0 takes all inputs once.
        unlabelled_test: Share of these that no step sees: the result's agreement with the teacher is read there.
    """

    source: str
    metric: str = "top1"
    augment: str = ""
    label: str = ""
    group: str = ""
    features: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    unlabelled: str = ""
    unlabelled_share: float = 0.0
    unlabelled_test: float = 0.2

    def is_file(self) -> bool:
        """True for ``.npz`` and ``.csv``."""
        return self.source.endswith((NPZ, *CSV))

    def is_folder(self) -> bool:
        """True for a folder of images, whose name ends in ``/`` once it is read."""
        return self.source.endswith("/")


def read_model(table: Table) -> ModelSource:
    """Return ``[model]``.

    Raises:
        RecipeError: A name that is neither ``module:callable`` nor a model file, or weights that belong to nothing.
    """
    model = ModelSource(
        _model(table, "source"),
        table.text("weights", ""),
        _model(table, "teacher", default=""),
        table.text("teacher_weights", ""),
        table.flag("trained", default=False),
    )
    table.done()
    if model.teacher_weights and not model.teacher:
        fix = "add teacher = 'module:callable', or remove it"
        raise table.refuse("teacher_weights", "weights without a teacher", fix)
    for key, source, weights in (
        ("weights", model.source, model.weights),
        ("teacher_weights", model.teacher, model.teacher_weights),
    ):
        if weights and is_model_file(source):
            raise table.refuse(key, f"'{source}' brings its own weights", "remove it")
    return model


def _model(table: Table, key: str, **default: str) -> str:
    value: str = table.text(key, **default)
    return value if is_model_file(value) else _callable(table, key, value)


def _callable(table: Table, key: str, value: str) -> str:
    module, _, name = value.partition(":")
    words = [*module.split("."), *name.split(".")]
    if value and not (name and all(word.isidentifier() for word in words)):
        what, fix = f"{value!r} is not module:callable", "write it like 'examples.digits.model:student'"
        if Path(value).suffix in (".pt", ".pth"):
            fix = "name the function that builds the network, and the file under weights"
        raise table.refuse(key, what, fix)
    return value


def read_data(table: Table, folder: Path) -> DataSource:
    """Return ``[data]``; a name of a folder that lies in ``folder`` gets its ``/``.

    Raises:
        RecipeError: A name that is no callable, file or folder, or keys of a CSV for something else.
    """
    source = _inputs(table, "source", table.text("source"), folder, (NPZ, *CSV))
    data = DataSource(
        source,
        table.text("metric", "top1", among=METRICS),
        _callable(table, "augment", table.text("augment", "")),
        table.text("label", ""),
        table.text("group", ""),
        table.texts("features"),
        _shape(table),
        _inputs(table, "unlabelled", table.text("unlabelled", ""), folder, (NPZ,)),
        table.number("unlabelled_share", 0.0, high=0.95),
        table.number("unlabelled_test", 0.2, high=0.9),
    )
    table.done()
    for key in ("unlabelled_share", "unlabelled_test"):
        if key in table and not data.unlabelled:
            raise table.refuse(key, "there are no inputs without labels", "add unlabelled = …, or remove it")
    if not source.endswith(CSV):
        for key in ("label", "group", "features", "shape"):
            if key in table:
                raise table.refuse(key, f"'{source}' is no .csv", "remove it")
    return data


def _inputs(table: Table, key: str, value: str, folder: Path, files: tuple[str, ...]) -> str:
    """Return the name of inputs: a callable, a file of one of these kinds, or a folder, which gets its ``/``."""
    if value and ":" not in value:
        if (folder / value).is_dir():
            return value.rstrip("/") + "/"
        if not value.endswith((*files, "/")):
            fix = f"write module:callable, a file ({', '.join(files)}) or a folder of images"
            raise table.refuse(key, f"{value!r} is not there, or nothing that can be read", fix)
    return value if value.endswith((*files, "/")) else _callable(table, key, value)


def _shape(table: Table) -> tuple[int, ...]:
    value = table.raw("shape", [])
    sizes = isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    if not sizes or len(value) not in (0, 2, 3):
        raise table.refuse("shape", f"{value!r} is no shape", "give [height, width], [height, width, channels] …")
    return tuple(value)


def check_named_files(model: ModelSource, data: DataSource, path: Path) -> None:
    """Refuse files that are not there, before anything is loaded.

    Args:
        model, data: As read.
        path: The recipe's; relative names start from its folder.

    Raises:
        RecipeError: One is missing.
    """
    named = [("model", "weights", model.weights)] if model.weights else []
    named += [
        ("model", key, name)
        for key, name in (("source", model.source), ("teacher", model.teacher))
        if is_model_file(name)
    ]
    named += [("data", "source", data.source)] if data.is_file() or data.is_folder() else []
    named += [("data", "unlabelled", data.unlabelled)] if data.unlabelled.endswith((NPZ, "/")) else []
    # Teacher weights may be given on the command line instead, so their absence is judged when they are needed.
    for table, key, name in named:
        place = path.parent / name
        if not (place.is_dir() if name.endswith("/") else place.exists()):
            what = f"key '{key}': no {'folder' if name.endswith('/') else 'file'} '{name}'"
            raise RecipeError(what, where=f"{path.name} [{table}]", fix=f"put it at {place}")
