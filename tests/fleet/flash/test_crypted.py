# SPDX-License-Identifier: Apache-2.0
"""Hashes and keys against openssl, the specification's own vectors and wpa_passphrase's arithmetic."""

import subprocess

import pytest

from edge_contract.errors import UsageError
from fleet.flash.crypted import hash_password, make_salt, wpa_key
from fleet.flash.customisation import Customisation, Wifi

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVnhw0oMSmZmEGxcyp0mZyrVS6VmL1nVJvYDCmgUSiG me@desk"


@pytest.mark.parametrize(
    ("password", "salt"),
    [
        ("a", "x"),
        ("geheim", "abcdefghijklmnop"),
        ("pä" * 40, "./09AZaz"),
        ("x" * 63, "12"),
        ("x" * 64, "12"),
        ("x" * 200, "1"),
    ],
)
def test_password_hashes_are_those_of_openssl(password, salt):
    words = ["openssl", "passwd", "-6", "-salt", salt, "-stdin"]
    done = subprocess.run(words, input=password, capture_output=True, text=True, check=True)
    assert hash_password(password, salt) == done.stdout.strip()


@pytest.mark.parametrize(
    ("ssid", "passphrase", "key"),
    [  # IEEE 802.11-2020, J.4.2
        ("IEEE", "password", "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"),
        ("ThisIsASSID", "ThisIsAPassword", "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af"),
        ("Z" * 32, "a" * 32, "becb93866bb8c3832cb777c2f559807c8c59afcb6eae734885001300a981cc62"),
    ],
)
def test_wifi_keys_are_the_standards(ssid, passphrase, key):
    assert wpa_key(ssid, passphrase) == key
    assert wpa_key(ssid, key.upper()) == key


def test_salts_differ():
    assert len({make_salt() for _ in range(50)}) == 50


@pytest.mark.parametrize("password", ["", "two\nlines", "tab\t"])
def test_what_nobody_can_type_is_refused(password):
    with pytest.raises(UsageError):
        hash_password(password, "x")


@pytest.mark.parametrize("passphrase", ["short", "x" * 64, "pässword1", "x" * 65])
def test_what_is_no_passphrase_is_refused(passphrase):
    with pytest.raises(UsageError, match="no WPA passphrase"):
        wpa_key("plant", passphrase)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hostname": "-cam"}, "no host name"),
        ({"hostname": "a" * 64}, "no host name"),
        ({"user": "root", "ssh_keys": (KEY,)}, "no user name"),
        ({"user": "Ops", "ssh_keys": (KEY,)}, "no user name"),
        ({"user": "ops"}, "could never log in"),
        ({"ssh_keys": (KEY,)}, "without a user"),
        ({"user": "ops", "ssh_keys": (KEY,), "ssh_password": True}, "without a password"),
        ({"user": "ops", "ssh_keys": ("ssh-dss AAAA",)}, "no public SSH key"),
        ({"user": "ops", "ssh_keys": ("-----BEGIN OPENSSH PRIVATE KEY-----",)}, "no public SSH key"),
        ({"user": "ops", "password_hash": "geheim"}, "no password hash"),
        ({"locale": "german"}, "no locale"),
        ({"timezone": "../etc/passwd"}, "no timezone"),
        ({"keyboard": "de; reboot"}, "no keyboard"),
    ],
)
def test_a_board_that_cannot_be_is_refused(given, words):
    with pytest.raises(UsageError, match=words):
        Customisation(**{"hostname": "cam-7", **given})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ssid": ""}, "no name of a network"),
        ({"ssid": "x" * 33}, "no name of a network"),
        ({"ssid": "a\nb"}, "no name of a network"),
        ({"key": "password"}, "not derived"),
        ({"country": "de"}, "not two capitals"),
        ({"country": ""}, "not two capitals"),
    ],
)
def test_a_network_that_cannot_be_is_refused(given, words):
    with pytest.raises(UsageError, match=words):
        Wifi(**{"ssid": "plant", "country": "DE", **given})


def test_secrets_are_not_in_a_repr():
    board = Customisation(
        "cam-7", user="ops", password_hash=hash_password("geheim", "x"), wifi=Wifi("p", "ab" * 32, "DE")
    )
    assert "$6$" not in repr(board)
    assert "abab" not in repr(board)
