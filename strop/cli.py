# SPDX-License-Identifier: Apache-2.0
"""``strop``: one command, seven groups, each imported only when it is called (ADR 3).

``strop --version``, ``--help`` and ``doctor`` need nothing but typer. A group needs the extra of its role;
when that is missing, the answer is the line that installs it. What a verb raises ends here: our own errors
become one line on stderr and exit code 1 or 2, anything else one line that asks for ``--debug``.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any, Final

import typer
import typer.core

from edge_contract.errors import MissingDependencyError, StropError, UsageError

__all__ = ["GROUPS", "Group", "app", "load", "main"]

_OWN_PACKAGES: Final = frozenset(
    {"strop", "edge_contract", "compress", "export", "edge_agent", "fleet", "benchmarks"},
)


@dataclass(frozen=True)
class Group:
    """One group of verbs: the module that holds its typer ``app``, the extras it needs, one line of help."""

    module: str
    extras: str
    help: str


GROUPS: Final[dict[str, Group]] = {
    "compress": Group("compress.cli", "workstation", "Distil, prune and quantize a model to a budget."),
    "export": Group("export.cli", "workstation", "Write ONNX and TFLite, prove that they agree, sign a bundle."),
    "agent": Group("strop.agent_cli", "agent,agent-litert", "Enrol and run the agent on a device."),
    "fleet": Group("fleet.cli", "fleet", "Serve the fleet, roll out by waves, watch health and drift."),
    "flash": Group("fleet.flash.cli", "flash", "Prepare images and cards that come up in the fleet by themselves."),
    "loop": Group("strop.loop.cli", "workstation,fleet", "Heal a drifting model: capture, teacher, recipe, rollout."),
    "bench": Group("benchmarks.cli", "workstation", "Measure models, compare them, and say what may be believed."),
}


def _missing(name: str, error: ModuleNotFoundError) -> MissingDependencyError:
    package = (error.name or "a package").split(".")[0]
    what = f"'strop {name}' needs the package '{package}', which is not installed"
    return MissingDependencyError(what, fix=f"run: pip install 'strop[{GROUPS[name].extras}]'")


def _is_foreign(error: ModuleNotFoundError) -> bool:
    return (error.name or "").split(".")[0] not in _OWN_PACKAGES


def load(name: str) -> typer.Typer:
    """Return the typer app of a group, imported now.

    Raises:
        MissingDependencyError: A package of the group's extra is not installed; the fix is the pip line.
    """
    try:
        module = importlib.import_module(GROUPS[name].module)
    except ModuleNotFoundError as error:
        if not _is_foreign(error):
            raise
        raise _missing(name, error) from error
    found: typer.Typer = module.app
    return found


class _LazyGroups(typer.core.TyperGroup):
    """Answers ``--help`` from the table above, and imports a group only to run it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in GROUPS:
            group = typer.main.get_group(load(args[0]))
            group.name = args[0]
            self.commands[args[0]] = group
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_LazyGroups,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make a trained model small, put it on a fleet of small computers, and keep it honest there.",
    epilog="Any command takes --help; --debug anywhere shows the traceback of a failure.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"strop {metadata.version('strop')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """Hold the options of ``strop`` itself."""


def _mount_placeholders() -> None:
    """List each group in the help; what is listed here is replaced by the real group before it runs."""
    for name, group in GROUPS.items():
        placeholder = typer.Typer(help=group.help)
        placeholder.callback(invoke_without_command=True)(lambda: None)
        app.add_typer(placeholder, name=name)


_mount_placeholders()


@app.command()
def doctor(
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="Judge this role only; may be repeated. Default: the roles that are in use."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Say what is installed, what is missing, and the line that installs it."""
    from strop import doctor as examination

    report = examination.examine(tuple(role or ()))
    typer.echo(report.to_text() if not as_json else report.to_json())
    raise typer.Exit(0 if report.is_healthy else 1)


def _without_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out of the words before a ``--``."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _explain(error: Exception, words: Sequence[str]) -> tuple[str, int]:
    """Return the one line and the exit code for what a verb raised."""
    if isinstance(error, ModuleNotFoundError) and words and words[0] in GROUPS and _is_foreign(error):
        error = _missing(words[0], error)
    if isinstance(error, StropError):
        return f"error: {error}", error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's own: wrong words
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "strop"
        usage = UsageError(str(error.format_message()).rstrip("."), where=path, fix=f"see '{path} --help'")
        return f"error: {usage}", usage.exit_code
    what = f"{type(error).__name__}: {error}".replace("\n", " ")
    return f"internal error: {what}; run again with --debug", 1


def _is_help(error: Exception) -> bool:
    return type(error).__name__ == "NoArgsIsHelpError"  # vendored by typer, so it has no public name


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``strop`` and leave with its exit code: 0 done, 1 refused, 2 wrong words, 130 interrupted."""
    words, debug = _without_debug(sys.argv[1:] if argv is None else argv)
    try:
        code = app(words, prog_name="strop", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # `strop … | head` closed our stdout; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        if _is_help(error):
            typer.echo(str(error))
            sys.exit(2)
        if debug:
            traceback.print_exc()
        line, code = _explain(error, words)
        typer.echo(line, err=True)
    sys.exit(code if isinstance(code, int) else 0)
