# SPDX-License-Identifier: Apache-2.0
"""Which parts of wheels a board never uses: tables, each line with its reason.

What proves them: the agent's own tests and the golden hashes run on emulated boards (Cortex-A53, A72, A76; Python 3.11
and 3.13) from slimmed wheels alone (``tests/machines/test_wheelhouse_on_arm64.py``), and no module that stays imports,
by its syntax, one that goes (``tests/fleet/flash/test_wheelhouse.py``). Licences and metadata always stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["EVERYWHERE", "RULES", "Rule"]


@dataclass(frozen=True)
class Rule:
    """What goes from one distribution.

    Attributes:
        parts: Patterns of paths; ``*`` means any letters, slashes too.
        kept: Patterns of paths that stay although a part fits them.
        requires: Names of distributions that nothing needs any more.
        scripts: Commands whose modules went.
    """

    parts: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()


EVERYWHERE: Final = ("*.pyi", "*.a", "*.pyc")
"""Words for type checkers, libraries for compilers, bytecode of another Python."""

RULES: Final[Mapping[str, Rule]] = {
    "numpy": Rule(
        parts=(
            "numpy/*/tests/*",  # 6 MB of its own tests
            "numpy/tests/*",
            "numpy/f2py/*",  # a compiler's front end for Fortran
            "numpy/distutils/*",
            "numpy/_core/include/*",  # headers
            "numpy/_core/lib/*",
            "numpy/random/_examples/*",
            "numpy/_core/*_tests.*.so",  # what its tests call
            "numpy/_core/_simd.*.so",
            "numpy/*.pxd",
            "numpy/conftest.py",
            "numpy/_pyinstaller/*",
        ),
        scripts=("f2py", "numpy-config"),
    ),
    "ai-edge-litert": Rule(
        parts=(
            "ai_edge_litert/libLiteRtWebGpuAccelerator.so",  # 17 MB: a graphics card's kernels
            "ai_edge_litert/libLiteRt.so",  # 6 MB: the compiled-model interface; the interpreter does not link to it
            "ai_edge_litert/aot/*",  # compilers of phones' accelerators
            "ai_edge_litert/vendors/*",
            "ai_edge_litert/tools/*",
        ),
        requires=("backports-strenum", "tqdm", "typing-extensions", "protobuf", "ml-dtypes"),  # of what went
    ),
    "onnxruntime": Rule(
        parts=(
            "onnxruntime/capi/libonnxruntime.so*",  # 25 MB: the same engine again, for programs in C
            "onnxruntime/transformers/*",  # what makes models
            "onnxruntime/quantization/*",
            "onnxruntime/tools/*",
            "onnxruntime/datasets/*",
        ),
        requires=("protobuf", "packaging"),  # of what went
        scripts=("onnxruntime_test",),
    ),
    "zstandard": Rule(parts=("zstandard/_cffi*.so", "zstandard/backend_cffi.py")),  # the second back end, for PyPy
    "pygments": Rule(
        parts=("pygments/lexers/*", "pygments/styles/*"),  # 4 MB of languages; rich colours Python alone here
        kept=(
            *(f"pygments/lexers/{name}.py" for name in ("__init__", "_mapping", "python", "special")),
            *(f"pygments/styles/{name}.py" for name in ("__init__", "_mapping", "default", "monokai")),
        ),
        scripts=("pygmentize",),
    ),
    "cffi": Rule(
        parts=("cffi/cparser.py", "cffi/recompiler.py", "cffi/v*engine*.py"), requires=("pycparser",)
    ),  # compilers
    "pydantic": Rule(parts=("pydantic/v1/*", "pydantic/mypy.py")),  # the interface of its first version
    "securesystemslib": Rule(
        parts=("securesystemslib/_vendor/ed25519/test_*", "securesystemslib/_vendor/test-*"),  # 2 MB of test vectors
    ),
    "strop": Rule(  # the workstation and the server
        parts=(
            "compress/*",
            "export/*",
            "fleet/*",
            *(f"benchmarks/{name}/*" for name in ("peers", "training", "fleet")),
        ),
    ),
}
