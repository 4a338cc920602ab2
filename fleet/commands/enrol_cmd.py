# SPDX-License-Identifier: Apache-2.0
"""``strop fleet enrol …``: tokens for new devices."""

from typing import Annotated

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer

__all__ = ["enrol"]

enrol = typer.Typer(help="Enrolment tokens for new devices.", no_args_is_help=True)


@enrol.command("new")
def enrol_new(
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    ttl_s: Annotated[float, typer.Option(help="Life of the token in seconds.")] = 86_400.0,
    as_json: Json = False,
) -> None:
    """Print a one-time token for one new device."""
    answer = connect(data, server, token_file).call("POST", "/tokens", {"ttl_s": ttl_s})
    print_answer(answer, as_json, answer["token"])
