# SPDX-License-Identifier: Apache-2.0
"""``strop fleet user …`` and ``strop fleet api-token …``: people with passwords, programs with tokens."""

import time
from typing import Annotated, Any

import typer

from fleet.client import FleetClient, connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["api_token", "user"]

user = typer.Typer(help="Accounts of people: viewer, operator, admin.", no_args_is_help=True)
api_token = typer.Typer(help="Tokens of programs.", no_args_is_help=True)

Role = Annotated[str, typer.Option(help="viewer, operator or admin.")]


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "never"


def _linked(client: FleetClient, answer: dict[str, Any], as_json: bool, words: str) -> None:
    link = f"{client.server}{answer['link']}"
    print_answer({**answer, "link": link}, as_json, f"{words}\nopen within a day, once:\n{link}")


@user.command("add")
def user_add(
    name: str,
    role: Role = "viewer",
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make an account and print the one-time link by which its person chooses a password."""
    client = connect(data, server, token_file)
    answer = client.call("POST", "/accounts", {"name": name, "role": role})
    _linked(client, answer, as_json, f"account {name}, {role}")


@user.command("list")
def user_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List accounts."""
    found = connect(data, server, token_file).call("GET", "/accounts")
    rows = [["NAME", "ROLE", "MADE", "LAST LOGIN"]]
    rows += [[o["name"], o["role"], _when(o["created_at"]), _when(o["seen_at"])] for o in found]
    print_answer(found, as_json, table(rows))


@user.command("role")
def user_role(
    name: str,
    role: Annotated[str, typer.Argument(help="viewer, operator or admin.")],
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give an account another role."""
    answer = connect(data, server, token_file).call("POST", f"/accounts/{name}/role", {"role": role})
    print_answer(answer, as_json, f"{name} is {answer['role']}")


@user.command("passwd")
def user_passwd(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Print a one-time link that sets a new password."""
    client = connect(data, server, token_file)
    _linked(client, client.call("POST", f"/accounts/{name}/link"), as_json, f"a new password for {name}")


@user.command("link")
def user_link(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Print another one-time link for the first admin, while nobody has an account."""
    client = connect(data, server, token_file)
    answer = client.call("POST", "/first-admin-link")
    if answer["link"]:
        _linked(client, answer, as_json, "the first admin")
    else:
        print_answer(answer, as_json, "there are accounts already: strop fleet user passwd NAME")


@user.command("remove")
def user_remove(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Delete an account, its sessions and its tokens."""
    answer = connect(data, server, token_file).call("DELETE", f"/accounts/{name}")
    print_answer(answer, as_json, f"removed {name}")


@api_token.command("new")
def token_new(
    name: str,
    role: Role = "viewer",
    days: Annotated[float, typer.Option(help="Life of the token in days.")] = 90.0,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Print a token for a program; it is shown this once."""
    document = {"name": name, "role": role, "ttl_s": days * 86_400.0}
    answer = connect(data, server, token_file).call("POST", "/api-tokens", document)
    print_answer(answer, as_json, answer["token"])


@api_token.command("list")
def token_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List tokens."""
    found = connect(data, server, token_file).call("GET", "/api-tokens")
    rows = [["NAME", "ROLE", "OF", "MADE", "ENDS", "LAST USED"]]
    rows += [
        [o["name"], o["role"], o["account"], _when(o["created_at"]), _when(o["expires_at"]), _when(o["used_at"])]
        for o in found
    ]
    print_answer(found, as_json, table(rows))


@api_token.command("revoke")
def token_revoke(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Refuse a token from now on."""
    answer = connect(data, server, token_file).call("DELETE", f"/api-tokens/{name}")
    print_answer(answer, as_json, f"revoked {name}")
