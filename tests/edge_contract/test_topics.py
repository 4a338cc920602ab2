# SPDX-License-Identifier: Apache-2.0
"""Topics round trip, and nothing else is a topic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import topics
from edge_contract.errors import TopicError

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)


@st.composite
def channels(draw):
    pattern = draw(st.sampled_from(topics.CHANNELS))
    return "/".join(draw(names) if level == "+" else level for level in pattern.split("/"))


@given(names, names, channels())
def test_build_and_parse_are_inverse(tenant, device, channel):
    text = topics.topic(tenant, device, channel)
    found = topics.parse(text)
    assert (found.tenant, found.device, found.channel) == (tenant, device, channel)
    assert str(found) == text
    assert found.parts == tuple(channel.split("/"))


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused_in_our_own_words(text):
    try:
        found = topics.parse(text)
    except TopicError as error:
        assert "\n" not in str(error)
    else:
        assert str(found) == text


@given(names, names, channels(), st.sampled_from(["+", "#", "a/b", "", "a b", "ä", "-x", ".x", "x" * 64, "a\n"]))
def test_a_wild_or_empty_level_never_gets_into_a_topic(tenant, device, channel, bad):
    for arguments in ((bad, device, channel), (tenant, bad, channel), (tenant, device, f"tm/{bad}")):
        with pytest.raises(TopicError):
            topics.topic(*arguments)
    assert not topics.is_name(bad)


def test_a_device_never_speaks_on_a_channel_of_the_server_but_for_the_ack_wildcard():
    """``tm/+`` covers ``tm/ack`` as a filter; the broker's rule and the server drop it by name."""

    def covered(channel):
        return [up for up in topics.UP if topics._matches(channel, up)]

    assert {channel: covered(channel) for channel in ("twin/desired", "job/next", "cmd/logs/1")} == {
        "twin/desired": [],
        "job/next": [],
        "cmd/logs/1": [],
    }
    assert covered("tm/ack") == ["tm/+"]


@given(names, names, st.sampled_from(topics.UP), st.data())
def test_a_server_hears_every_channel_that_a_device_speaks_on(tenant, device, pattern, data):
    channel = "/".join(data.draw(names) if level == "+" else level for level in pattern.split("/"))
    levels = topics.topic(tenant, device, channel).split("/")
    filters = [one.split("/") for one in topics.server_filters(tenant)]
    assert any(
        len(one) == len(levels) and all(w in ("+", have) for w, have in zip(one, levels, strict=True))
        for one in filters
    )


def test_filters_of_one_tenant_never_hear_another():
    assert all(one.startswith("strop/v1/acme/+/") for one in topics.server_filters("acme"))
