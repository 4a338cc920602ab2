# SPDX-License-Identifier: Apache-2.0
"""Frames on stdin, answers on stdout: what ``strop agent pipe`` does."""

import sys
from typing import Any, BinaryIO, TextIO

from edge_agent.runner.answers import facts
from edge_agent.runner.embedded.model import Model
from edge_agent.runner.sinks import Stream
from edge_agent.runner.sources.frames import Form, frames
from edge_contract.errors import DataError

__all__ = ["answer_stream"]


def answer_stream(model: Model, form: Form, source: BinaryIO | None = None, sink: TextIO | None = None) -> int:
    """Answer each frame with one JSON line, in order, until the stream ends; return how many could not be answered.

    Args:
        model: What answers.
        form: How the stream's bytes become frames.
        source, sink: stdin and stdout where left out.

    Raises:
        DataError: The stream itself is malformed: what follows cannot be told apart any more.
    """
    out, refused = Stream(sink or sys.stdout), 0
    for number, frame in enumerate(frames(source or sys.stdin.buffer, form)):
        try:
            said: dict[str, Any] = facts(model.predict(frame), model.labels)
        except DataError as error:
            said, refused = {"error": str(error)}, refused + 1
        out.write({"ref": str(number), **said})
    return refused
