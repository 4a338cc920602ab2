# SPDX-License-Identifier: Apache-2.0
"""Models and data by name: functions, exported programs, Keras files; archives, tables, folders of images."""

from compress.cutting import split_by_class
from compress.sources.answers import answered, load_answered, load_validation, with_answers
from compress.sources.data import Tensors, load_augment, load_data, tensors
from compress.sources.mixing import calibrated, mixed
from compress.sources.models import check_kept, check_teacher, labels_for, load_model, load_teacher, notes_of
from compress.sources.names import resolve
from compress.splits import DataSplits, SealedSplit, Split, WorkingData

__all__ = [
    "DataSplits",
    "SealedSplit",
    "Split",
    "Tensors",
    "WorkingData",
    "answered",
    "calibrated",
    "check_kept",
    "check_teacher",
    "labels_for",
    "load_answered",
    "load_augment",
    "load_data",
    "load_model",
    "load_teacher",
    "load_validation",
    "mixed",
    "notes_of",
    "resolve",
    "split_by_class",
    "tensors",
    "with_answers",
]
