# SPDX-License-Identifier: Apache-2.0
"""What a hostile or broken client sends to the operators' listener: nothing is a 500, nothing is taken for markup."""

import os
import re
import warnings

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from fleet.core.accounts import Role
from tests.fleet.test_access import FILE_TOKEN, House, flat
from tests.fleet.test_login import HTML, csrf_in, login, post

PASSWORD = "three grey herons"
EXAMPLES = int(os.environ.get("STROP_API_EXAMPLES", "2"))
KEYS = {"json": "json", "params": "params", "data": "content"}
MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
STEPS = [
    "../../operator.token",
    "..%2f..%2foperator.token",
    "%2e%2e/%2e%2e/operator.token",
    "..\\..\\operator.token",
    "%00",
    "a%00b",
    "%ff",
    "'; DROP TABLE devices; --",
    "x" * 3000,
    "\u202ename",
]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("hostile"))
    accounts = made.operations.accounts
    accounts.accept(accounts.first_link(), "ada", PASSWORD)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cookies(house):
    return dict(login(house).cookies)


def described(app):
    """Return the API's operations as schemathesis reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schemathesis = pytest.importorskip("schemathesis")
    return schemathesis.openapi.from_dict(app.openapi())


def test_no_document_that_fits_or_breaks_the_schema_makes_a_500(house):
    asked = [fuzzed(house, result.ok()) for result in described(house.app).get_all_operations()]
    assert len(asked) > 40
    assert [failure for failures in asked for failure in failures] == []


def fuzzed(house, operation):
    """Send examples of an operation; return those that made a 500."""
    failed = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case):
        sent = case.as_transport_kwargs()
        more = {new: sent[key] for key, new in KEYS.items() if sent.get(key) is not None}
        if "content" in more:
            more["headers"] = {"content-type": "application/json"}
        url = sent["url"] if sent["url"].startswith("http") else f"http://127.0.0.1:8080{sent['url']}"
        answer = house.ask(operation.method.upper(), url, token=FILE_TOKEN, **more)
        if answer.status_code >= 500:
            failed.append((operation.label, more, answer.text))

    ask()
    return failed


@pytest.mark.parametrize("step", STEPS, ids=range(len(STEPS)))
def test_no_name_in_an_address_leaves_its_folder_or_breaks_the_server(house, cookies, step):
    for route in flat(house.app.routes):
        if "{" not in route.path or "GET" not in route.methods:
            continue
        url = re.sub(r"\{[^}]+\}", lambda _: step, route.path)
        answer = house.ask("GET", url, cookies=cookies, headers=HTML)
        assert answer.status_code < 500, (url, answer.text)
        assert FILE_TOKEN not in answer.text
    static = house.ask("GET", f"/static/{step}")
    assert static.status_code in (400, 404, 405)
    assert house.office.store.read(lambda db: db.execute("SELECT COUNT(*) AS n FROM devices").fetchone()["n"]) == 0


SEARCHES = ["/devices?q={}", "/audit?q={}", "/login?next={}", "/rollouts/r1?bucket={}", "/devices?sort={}", "/{}"]


@pytest.mark.parametrize("address", SEARCHES)
def test_what_is_searched_for_is_shown_as_text(house, cookies, address):
    import urllib.parse

    answer = house.ask("GET", address.format(urllib.parse.quote(MARKUP, safe="")), cookies=cookies, headers=HTML)
    assert answer.status_code < 500
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text


@pytest.mark.parametrize("q", ["'", '" OR 1=1 --', "%", "_", "!", "a' UNION SELECT password FROM accounts --"])
def test_a_search_is_no_sql(house, cookies, q):
    for path in ("/audit", "/devices"):
        answer = house.ask("GET", path, params={"q": q}, cookies=cookies, headers=HTML)
        assert answer.status_code == 200
        assert "scrypt$" not in answer.text
    if q in "%_!'":
        assert "account.first_admin" not in house.ask("GET", "/audit", params={"q": q * 3}, cookies=cookies).text


def test_a_header_cannot_be_put_into_an_answer(house):
    answer = login(house, next="/devices\r\nset-cookie: stolen=1")
    assert "stolen" not in str(answer.headers.get("set-cookie"))
    assert answer.headers["location"] == "/"
    refused = house.ask("GET", "/devices%0d%0aset-cookie:%20stolen=1", headers=HTML)
    assert (
        "stolen" not in str(refused.headers.raw).replace("%0Aset-cookie", "").replace("next=", "").split("location")[0]
    )


def test_names_of_people_cannot_carry_markup_or_lines(house):
    for name in (MARKUP, "a\nb", "a\r\nset-cookie: x=1", "ada\x00", "ada/ci"):
        answer = house.ask("POST", "/api/v1/accounts", token=FILE_TOKEN, json={"name": name, "role": "admin"})
        assert answer.status_code == 400
        assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize("path", ["/login", "/api/v1/rollouts", "/api/v1/labels", "/enrol"])
def test_a_body_that_is_too_large_is_refused_before_it_is_kept(house, path):
    answer = house.ask("POST", path, token=FILE_TOKEN, content=b"x" * (9 * 1024 * 1024))
    assert answer.status_code == 413, answer.text


def test_forms_are_bounded(house, cookies):
    csrf = csrf_in(house.ask("GET", "/me", cookies=cookies).text)
    assert post(house, "/enrol", cookies=cookies, csrf=csrf, name="x" * 70_000).status_code == 413
    many = {f"field{i}": "x" for i in range(300)}
    assert post(house, "/enrol", cookies=cookies, csrf=csrf, **many).status_code == 400


def test_every_answer_carries_its_protection(house, cookies):
    for path in ("/", "/login", "/nothing", "/api/v1/devices", "/static/strop.css", "/healthz"):
        headers = house.ask("GET", path, cookies=cookies, headers=HTML).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in headers


def test_no_page_has_script_or_style_of_its_own(house, cookies):
    for path in ("/", "/devices", "/rollouts", "/rollouts/new", "/models", "/drift", "/audit", "/accounts", "/me"):
        text = house.ask("GET", path, cookies=cookies, headers=HTML).text
        assert re.findall(r"<script(?! src=\"/static/)|<style|\sstyle=|\son[a-z]+=|javascript:", text) == []
        assert text.count("<h1") == 1, path
        assert "<main" in text
        for field in re.findall(r"<(?:input|select|textarea)\b[^>]*>", text):
            is_named = (
                'type="hidden"' in field or 'id="q"' in field or "<label" in text.split(field)[0].split("</label>")[-1]
            )
            assert is_named, (path, field)


def test_roles_cannot_be_raised_by_a_form(house):
    accounts = house.operations.accounts
    accounts.accept(accounts.add("vera", Role.VIEWER, "ada"), "", PASSWORD)
    cookies = dict(login(house, "vera").cookies)
    csrf = csrf_in(house.ask("GET", "/me", cookies=cookies).text)
    answer = post(house, "/accounts", cookies=cookies, csrf=csrf, do="role", name="vera", role="admin")
    assert answer.status_code == 403
    assert house.ask("GET", "/api/v1/me", cookies=cookies).json()["role"] == "viewer"
