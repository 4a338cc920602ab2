# SPDX-License-Identifier: Apache-2.0
"""The device: a control process on the standard library, and a runner with numpy and one inference runtime.

``edge_agent.Model`` embeds the runner in an application. Only touching that name loads numpy: the control process,
which imports this package too, stays small.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_agent.runner.answers import Detections, Inference, Values
    from edge_agent.runner.embedded.model import Model

__all__ = ["Detections", "Inference", "Model", "Values"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edge_agent' has no attribute {name!r}")
    if name == "Model":
        from edge_agent.runner import embedded

        return embedded.Model
    from edge_agent.runner import answers

    return getattr(answers, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
