# SPDX-License-Identifier: Apache-2.0
"""Who may do what: every route by every role, taken from the application itself, so that a new route is in it."""

import asyncio
import atexit
import functools
import re
import secrets
import shutil
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from fleet.adapters import credentials
from fleet.adapters.blobs import BlobStore
from fleet.adapters.desk import Addresses
from fleet.adapters.operations import Operations
from fleet.adapters.sqlite import SqliteStore
from fleet.core.accounts import Person, Role
from fleet.core.passwords import Cost
from fleet.core.throttle import Allowance, Throttle
from fleet.web.access import Needs
from fleet.web.login_pages import PUBLIC
from fleet.web.operator import operator_app
from fleet.web.site import Site

HEALTH = {"/healthz", "/readyz"}
VIEWERS_MAY = {("POST", "/logout"), ("POST", "/me")}
ROLES = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN}
FILE_TOKEN = "f" * 64


def quick(operations: Operations) -> None:
    """Hash at a cost that tests can bear."""
    operations.accounts.cost = Cost(n=16, r=1, p=1)


@functools.cache
def keys_made():
    """A data folder's keys, made once for all houses."""
    folder = Path(tempfile.mkdtemp(prefix="strop-keys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    credentials.init(folder, now=time.time())
    return folder


class Rooms:
    """Everything real but the broker and the clock, with keys of a copy and no trust root: enough for who may what."""

    def __init__(self, folder, store=None):
        self.now = time.time()
        shutil.copytree(keys_made(), folder, dirs_exist_ok=True)
        self.store = store or SqliteStore(folder / "fleet.db")
        self.operations = Operations(
            self.store,
            BlobStore(folder / "blobs"),
            credentials.open_trust(folder),
            addresses=Addresses("default", "localhost", 8883, "https://localhost:8443"),
            clock=lambda: self.now,
            random_bytes=secrets.token_bytes,
            publish=lambda _message: None,
        )


class House:
    """The operators' application in this process, with an account of each role."""

    def __init__(self, folder, store=None, **site):
        self.office = Rooms(folder, store)
        self.operations = self.office.operations
        quick(self.operations)
        self.app = operator_app(self.operations, Site(FILE_TOKEN, **site))

    def people(self):
        """Make the accounts; return role → token."""
        accounts = self.operations.accounts
        first = accounts.first_link()
        accounts.accept(first, "ada", "ada's long password")
        self.tokens = {"nobody": "", "wrong": "stp_00000000_" + "0" * 64}
        for word, role in ROLES.items():
            maker = Person("ada", Role.ADMIN)
            self.tokens[word] = accounts.new_token(f"for-{word}", role, 3600.0, maker)
        return self

    def ask(self, method, path, *, token="", base="http://127.0.0.1:8080", **more):
        headers = dict(more.pop("headers", {}))
        if token:
            headers["authorization"] = f"Bearer {token}"

        async def once():
            # The client's cookies are the caller's business: a new one for each request forgets them.
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=base, cookies=more.pop("cookies", None)) as c:
                return await c.request(method, path, headers=headers, **more)

        return asyncio.run(once())

    def fresh(self):
        """Forget all accounts, and what the doors know of attempts."""

        def job(db):
            for table in ("accounts", "sessions", "api_tokens", "invitations"):
                db.execute(f"DELETE FROM {table}")

        self.office.store.write(job)
        self.office.now = time.time()
        doors = self.app.state.doors
        doors._throttle, doors._told = Throttle(), Allowance(most=30, period_s=60.0)
        return self

    def close(self):
        self.office.store.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("house")).people()
    yield made
    made.close()


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A function that gives an empty house of a kind; making one takes longer than a test."""
    made = {}

    def of(**site):
        key = tuple(sorted(site.items()))
        if key not in made:
            made[key] = House(tmp_path_factory.mktemp("house"), **site)
        return made[key].fresh()

    yield of
    for one in made.values():
        one.close()


def flat(routes):
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):  # FastAPI keeps included routers as they are
            yield from flat(route.original_router.routes)


def needed(dependant):
    """Return every role that a route's dependencies ask for."""
    found = {one.call.role for one in dependant.dependencies if isinstance(one.call, Needs)}
    return found.union(*(needed(one) for one in dependant.dependencies))


def matrix(app):
    """(method, path) → the role that it needs, None for everybody."""
    return {
        (method, route.path): max(needed(route.dependant), default=None)
        for route in flat(app.routes)
        for method in route.methods - {"HEAD"}
    }


def test_every_route_states_a_role_and_every_change_needs_more_than_a_viewer(house):
    found = matrix(house.app)
    assert len(found) > 40
    open_to_all = {path for (_, path), role in found.items() if role is None}
    assert open_to_all == PUBLIC | HEALTH
    changed_by_viewers = {key for key, role in found.items() if key[0] != "GET" and role is Role.VIEWER}
    assert changed_by_viewers == VIEWERS_MAY


def test_mounted_applications_are_the_static_files_alone(house):
    others = [r for r in house.app.routes if not isinstance(r, APIRoute) and not hasattr(r, "original_router")]
    assert [route.path for route in others] == ["/static"]


@pytest.mark.parametrize("who", ["nobody", "wrong", *ROLES])
def test_each_route_lets_in_whom_its_role_says(house, who):
    token = house.tokens[who]
    for (method, path), role in matrix(house.app).items():
        url = re.sub(r"\{[^}]+\}", "x", path)
        answer = house.ask(method, url, token=token, json={} if method not in ("GET", "DELETE") else None)
        label = f"{who} {method} {url}: {answer.status_code} {answer.text[:200]}"
        if role is None:
            is_right = answer.status_code not in (401, 500) and kind(answer) != "Access"
        elif who in ("nobody", "wrong"):
            is_right = answer.status_code == 401
        elif ROLES[who] < role:
            is_right = (answer.status_code, kind(answer)) == (403, "Access")
        else:  # let in, whatever it then says to an empty document; a page of one's own is for browsers alone
            is_right = answer.status_code < 500 and (kind(answer) != "Access" or url == "/me")
        assert is_right, label


def kind(answer):
    try:
        return answer.json().get("kind")
    except (ValueError, AttributeError):
        return None


def test_the_token_of_the_data_folder_is_an_admin(house):
    assert house.ask("GET", "/api/v1/me", token=FILE_TOKEN).json() == {"name": "operator", "role": "admin"}
    assert house.ask("GET", "/api/v1/accounts", token=FILE_TOKEN).status_code == 200


def test_looking_is_open_on_loopback_until_the_first_account(houses):
    house = houses()
    assert house.ask("GET", "/api/v1/devices").status_code == 200
    assert house.ask("POST", "/api/v1/tokens").status_code == 401
    house.people()
    assert house.ask("GET", "/api/v1/devices").status_code == 401
    page = house.ask("GET", "/devices?q=a", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=%2Fdevices%3Fq%3Da")


@pytest.mark.parametrize(
    ("site", "host", "number"),
    [
        ({"open_viewing": True}, "127.0.0.1:8080", 200),
        ({"open_viewing": True}, "localhost", 200),
        ({"open_viewing": True}, "[::1]:8080", 200),
        ({"open_viewing": True}, "rebound.example:8080", 401),
        ({"open_viewing": True}, "127.0.0.1.example", 401),
        ({"open_viewing": True, "is_local": False}, "127.0.0.1:8080", 401),
        ({}, "127.0.0.1:8080", 401),
    ],
)
def test_open_viewing_holds_on_this_machine_alone(houses, site, host, number):
    house = houses(**site).people()
    assert house.ask("GET", "/api/v1/devices", headers={"host": host}).status_code == number
