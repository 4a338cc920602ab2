# SPDX-License-Identifier: Apache-2.0
"""Accounts, sessions, one-time links, tokens and forged requests, against the application in this process."""

import re

import pytest

from edge_contract.errors import UsageError
from fleet.adapters.audit_book import AuditBook
from fleet.core import passwords
from fleet.core.accounts import Person, Role, account_name, same_person
from fleet.core.passwords import Cost, check_password, hash_password, is_password
from tests.fleet.test_access import FILE_TOKEN, House

PASSWORD = "three grey herons"
HTML = {"accept": "text/html"}
HOME = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def only_house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("house"))
    yield made
    made.close()


@pytest.fixture
def house(only_house):
    return only_house.fresh()


@pytest.fixture
def ada(house):
    """A house whose admin is logged in: (house, cookies, csrf)."""
    secret = house.operations.accounts.first_link()
    answer = post(house, f"/invite/{secret}", name="ada", password=PASSWORD, again=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookies = dict(answer.cookies)
    return house, cookies, csrf_in(house.ask("GET", "/me", cookies=cookies).text)


def post(house, path, *, cookies=None, headers=None, **fields):
    return house.ask("POST", path, data=fields, cookies=cookies, headers={**HTML, **(headers or {})})


def csrf_in(text):
    return re.search(r'name="csrf" value="([0-9a-f]{64})"', text)[1]


def login(house, name="ada", password=PASSWORD, **more):
    return post(house, "/login", name=name, password=password, **more)


def actions(house):
    house.office.store.write(lambda db: None)  # entries that were submitted before have been written then
    return [entry.action for entry in AuditBook(house.office.store).entries()]


def test_the_first_link_makes_an_admin_once(ada, house):
    _, cookies, _ = ada
    assert house.ask("GET", "/api/v1/me", cookies=cookies).json() == {"name": "ada", "role": "admin"}
    assert house.operations.accounts.first_link() == ""
    assert actions(house)[-2:] == ["account.first_admin", "login"]


def test_a_link_ends_is_single_use_and_a_newer_one_voids_it(house):
    accounts = house.operations.accounts
    old, new = accounts.first_link(), accounts.first_link()
    assert house.ask("GET", f"/invite/{old}", headers=HTML).status_code == 404
    assert house.ask("GET", f"/invite/{new}", headers=HTML).status_code == 200
    house.office.now += 86_401.0
    assert house.ask("GET", f"/invite/{new}", headers=HTML).status_code == 404
    third = accounts.first_link()
    assert post(house, f"/invite/{third}", name="ada", password=PASSWORD, again=PASSWORD).status_code == 303
    again = post(house, f"/invite/{third}", name="eve", password=PASSWORD, again=PASSWORD)
    assert again.status_code == 404
    assert [one.name for one in accounts.all()] == ["ada"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"again": "another password"}, "differ"),
        ({"password": "short", "again": "short"}, "has 5 characters"),
        ({"password": "password12345", "again": "password12345"}, "first that are guessed"),
        ({"name": "Ada Lovelace"}, "is not a name"),
        ({"name": "operator"}, "is not a name"),
    ],
)
def test_a_weak_password_or_a_wrong_name_leaves_the_link_open(house, fields, words):
    secret = house.operations.accounts.first_link()
    answer = post(house, f"/invite/{secret}", **{"name": "ada", "password": PASSWORD, "again": PASSWORD, **fields})
    assert answer.status_code == 400
    assert words in answer.text
    assert house.operations.accounts.invited(secret) is not None


def test_a_login_gives_a_cookie_that_scripts_and_other_sites_do_not_see(ada):
    house, _, _ = ada
    answer = login(house, next="/devices?q=a")
    assert (answer.status_code, answer.headers["location"]) == (303, "/devices?q=a")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("strop_session=")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "secure" not in cookie.lower()
    tls = house.ask("POST", "/login", base="https://127.0.0.1:8080", data={"name": "ada", "password": PASSWORD})
    assert tls.headers["set-cookie"].startswith("__Host-strop_session=")
    assert "secure" in tls.headers["set-cookie"].lower()


@pytest.mark.parametrize("wanted", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "x"])
def test_a_login_leads_to_pages_of_this_server_alone(ada, wanted):
    house, _, _ = ada
    assert login(house, next=wanted).headers["location"] == "/"
    shown = house.ask("GET", "/login", params={"next": wanted}).text
    assert "elsewhere" not in shown


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong password"), ("nobody", PASSWORD), ("", ""), ("ada", "")])
def test_a_wrong_login_says_no_more_than_that(ada, name, password):
    house, _, _ = ada
    answer = login(house, name, password)
    assert answer.status_code == 403
    assert "wrong name or password" in answer.text
    assert "set-cookie" not in answer.headers
    assert actions(house)[-1] == "login.denied"


def test_guessing_becomes_slow_for_the_name_and_the_address(ada):
    house, _, _ = ada
    numbers = [login(house, password=f"guess {i}").status_code for i in range(7)]
    assert numbers == [403] * 5 + [429] * 2
    assert login(house).status_code == 429  # the right one, too
    house.office.now += 2.0
    assert login(house).status_code == 303


def test_what_is_not_a_name_is_not_written_down(ada):
    house, _, _ = ada
    login(house, "My Secret Password", "x")
    house.office.store.write(lambda db: None)
    last = list(AuditBook(house.office.store).entries())[-1]
    assert (last.action, last.actor, last.detail["name"]) == ("login.denied", "anonymous", "(no name)")


def test_denials_are_bounded_in_the_audit_log(ada):
    house, _, _ = ada
    before = len(actions(house))
    for _ in range(50):
        house.ask("GET", "/api/v1/devices", token="stp_wrong_wrong")
    assert len(actions(house)) - before <= 30
    house.office.now += 61.0
    house.ask("GET", "/api/v1/devices", token="stp_wrong_wrong")
    actions(house)
    assert list(AuditBook(house.office.store).entries())[-1].detail["left_out"] >= 20


def test_a_session_ends_when_idle_when_old_and_when_it_is_left(ada):
    house, cookies, csrf = ada

    def see(**headers):
        number = house.ask("GET", "/api/v1/me", cookies=cookies, headers=headers).status_code
        house.office.store.write(lambda db: None)  # when it was seen has been written then
        return number

    for _ in range(3):  # a person who does something every 50 minutes stays in
        house.office.now += 3000.0
        assert see() == 200
    house.office.now += 3000.0
    assert see(**{"x-strop-live": "1"}) == 200
    house.office.now += 700.0  # a page that follows by itself did not put the end off
    assert see() == 401
    cookies = dict(login(house).cookies)
    csrf = csrf_in(house.ask("GET", "/me", cookies=cookies).text)
    for _ in range(15):
        house.office.now += 3000.0
        last = see()
    assert last == 401  # 12 hours are over
    cookies = dict(login(house).cookies)
    csrf = csrf_in(house.ask("GET", "/me", cookies=cookies).text)
    assert post(house, "/logout", cookies=cookies, csrf=csrf).status_code == 303
    assert see() == 401
    assert actions(house)[-1] == "logout"


def test_a_new_password_ends_every_session(ada):
    house, cookies, csrf = ada
    other = dict(login(house).cookies)
    new = "four green geese"
    wrong = post(house, "/me", cookies=cookies, csrf=csrf, old="no", password=new, again=new)
    assert (wrong.status_code, "present password is wrong" in wrong.text) == (400, True)
    assert post(house, "/me", cookies=cookies, csrf=csrf, old=PASSWORD, password=new, again=new).status_code == 303
    assert [house.ask("GET", "/api/v1/me", cookies=c).status_code for c in (cookies, other)] == [401, 401]
    assert login(house).status_code == 403
    assert login(house, password=new).status_code == 303


FORGED = [
    ({}, {}, "no token"),
    ({"csrf": "0" * 64}, {}, "another token"),
    ({"csrf": True}, {"origin": "https://evil.example"}, "another site's page"),
    ({"csrf": True}, {"origin": "null"}, "a sandboxed frame"),
    ({"csrf": True}, {"sec-fetch-site": "cross-site"}, "the browser says so"),
]


@pytest.mark.parametrize(("fields", "headers", "why"), FORGED, ids=[why for *_, why in FORGED])
def test_a_forged_form_changes_nothing(ada, fields, headers, why):
    house, cookies, csrf = ada
    given = {key: csrf if value is True else value for key, value in fields.items()}
    forms = ("/enrol", "/accounts", "/rollouts/new", "/devices/x/remove", "/devices/x/config", "/logout", "/me")
    for path in forms:
        answer = post(house, path, cookies=cookies, headers=headers, do="add", name="eve", **given)
        assert answer.status_code == 403, path
        assert "did not come from a page of this server" in answer.text
    assert [one.name for one in house.operations.accounts.all()] == ["ada"]
    assert house.ask("GET", "/api/v1/me", cookies=cookies).status_code == 200


def test_the_api_takes_a_cookie_with_the_header_only(ada):
    house, cookies, csrf = ada
    assert house.ask("POST", "/api/v1/tokens", cookies=cookies, json={}).status_code == 403
    good = house.ask("POST", "/api/v1/tokens", cookies=cookies, json={}, headers={"x-csrf-token": csrf, "origin": HOME})
    assert good.status_code == 200, good.text
    # A form of another site can send text/plain that looks like JSON; it has no token.
    plain = {"content-type": "text/plain"}
    forged = house.ask("POST", "/api/v1/tokens", cookies=cookies, content=b"{}", headers=plain)
    assert forged.status_code == 403


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_another_site_cannot_log_somebody_in(ada, headers):
    house, _, _ = ada
    assert login(house, headers=headers).status_code == 403


def test_tokens_are_bounded_by_their_makers_role_and_die_with_the_account(ada):
    house, _, _ = ada
    accounts = house.operations.accounts
    secret = accounts.add("bob", Role.ADMIN, "ada")
    accounts.accept(secret, "", "bob's own password")
    token = accounts.new_token("bobs", Role.ADMIN, 3600.0, Person("bob", Role.ADMIN))
    me = lambda: house.ask("GET", "/api/v1/me", token=token)  # noqa: E731
    assert me().json() == {"name": "bob/bobs", "role": "admin"}
    accounts.set_role("bob", Role.VIEWER, "ada")
    assert me().json()["role"] == "viewer"
    with pytest.raises(UsageError, match="cannot give the role admin"):
        accounts.new_token("more", Role.ADMIN, 3600.0, Person("bob", Role.OPERATOR))
    accounts.remove("bob", "ada")
    assert me().status_code == 401


def test_a_token_ends_and_can_be_revoked(ada):
    house, _, _ = ada
    accounts = house.operations.accounts
    short = accounts.new_token("short", Role.VIEWER, 60.0, Person("ada", Role.ADMIN))
    long = accounts.new_token("long", Role.VIEWER, 6000.0, Person("operator", Role.ADMIN))
    see = lambda token: house.ask("GET", "/api/v1/devices", token=token).status_code  # noqa: E731
    assert (see(short), see(long)) == (200, 200)
    house.office.now += 61.0
    assert (see(short), see(long)) == (401, 200)
    accounts.revoke_token("long", "ada")
    assert see(long) == 401
    stored = house.office.store.read(lambda db: [tuple(row) for row in db.execute("SELECT * FROM api_tokens")])
    assert long.split("_")[2] not in str(stored)


def test_the_last_admin_stays(ada):
    house, _, _ = ada
    for change in (lambda a: a.remove("ada", "ada"), lambda a: a.set_role("ada", Role.VIEWER, "ada")):
        with pytest.raises(UsageError, match="last admin"):
            change(house.operations.accounts)


def test_the_page_of_accounts_does_what_its_forms_say(ada):
    house, cookies, csrf = ada
    do = lambda **fields: post(house, "/accounts", cookies=cookies, csrf=csrf, **fields)  # noqa: E731
    link = re.search(r"/invite/[0-9a-f]{64}", do(do="add", name="bob", role="operator").text)[0]
    assert post(house, link, password=PASSWORD, again=PASSWORD).status_code == 303
    assert "bob is viewer now" in do(do="role", name="bob", role="viewer").text
    token = re.search(r"stp_[0-9a-f]{8}_[0-9a-f]{64}", do(do="new-token", name="ci", role="viewer").text)[0]
    assert house.ask("GET", "/api/v1/me", token=token).json()["name"] == "ada/ci"
    assert token not in house.ask("GET", "/accounts", cookies=cookies).text
    assert "Revoke the token ci?" in do(do="revoke", name="ci").text
    assert house.ask("GET", "/api/v1/me", token=token).status_code == 200
    do(do="revoke", name="ci", sure="yes")
    assert house.ask("GET", "/api/v1/me", token=token).status_code == 401
    do(do="remove", name="bob", sure="yes")
    assert [one.name for one in house.operations.accounts.all()] == ["ada"]
    assert do(do="nonsense").status_code == 400


def test_a_viewer_sees_no_buttons_and_may_not_use_their_addresses(ada):
    house, _, _ = ada
    accounts = house.operations.accounts
    accounts.accept(accounts.add("vera", Role.VIEWER, "ada"), "", PASSWORD)
    cookies = dict(login(house, "vera").cookies)
    text = house.ask("GET", "/", cookies=cookies, headers=HTML).text
    assert "Enrol a device" not in text
    assert "/accounts" not in text
    for path in ("/enrol", "/accounts", "/rollouts/new"):
        answer = house.ask("GET", path, cookies=cookies, headers=HTML)
        assert (answer.status_code, "this needs the role" in answer.text) == (403, True)


def test_passwords_are_hashed_as_rfc_7914_says():
    vector = passwords._derive("pleaseletmein", b"SodiumChloride", Cost(16384, 8, 1))
    assert vector.hex().startswith("7023bdcb3afd7348461c06cd81fd38eb")
    stored = hash_password(PASSWORD, b"s" * 16, Cost(16, 1, 1))
    assert is_password(PASSWORD, stored)
    assert not is_password(PASSWORD + " ", stored)
    assert not is_password(PASSWORD, "scrypt$16$1$1$damaged")
    assert not is_password("x", "")


@pytest.mark.parametrize("word", ["aaaaaaaaaaaa", "password123", "Password2026", "ada-lovelace", "1" * 1001, "short"])
def test_passwords_that_anybody_guesses_are_refused(word):
    with pytest.raises(UsageError):
        check_password(word, "ada-lovelace")


@pytest.mark.parametrize("name", ["", "a", "A", "ada lovelace", "-ada", "a" * 33, "operator", "server", "ada/ci", "é1"])
def test_names_that_nobody_may_have(name):
    with pytest.raises(UsageError):
        account_name(name)


def test_a_token_acts_for_its_maker():
    assert same_person("ada/ci", "ada/other")
    assert not same_person("ada", "adam")
    assert FILE_TOKEN.isalnum()
