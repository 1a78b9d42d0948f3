"""The value that plugin and pickers share."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.shares import WEIGHT_MAX, PoolShares, SharesError, decode, digest, encode

FIELDS = {
    "rollout": "a/b",
    "uid": "u",
    "counter": 3,
    "stable": "h1",
    "shares": {"h1": 90, "h2": 10},
}

versions = st.text("abcdef0123456789", min_size=1, max_size=10)
pool_shares = st.builds(
    PoolShares,
    rollout=st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}", fullmatch=True),
    uid=st.uuids().map(str),
    counter=st.integers(0, 10**9),
    stable=versions,
    weights=st.dictionaries(versions, st.integers(0, WEIGHT_MAX), min_size=1).filter(
        lambda weights: any(weights.values())
    ),
)


@given(pool_shares)
def test_what_is_written_is_what_is_read(shares: PoolShares) -> None:
    assert decode(encode(shares)) == shares


@given(pool_shares)
def test_the_order_of_the_versions_changes_no_byte(shares: PoolShares) -> None:
    turned = dict(reversed(list(shares.weights.items())))
    assert encode(shares) == encode(
        PoolShares(
            rollout=shares.rollout,
            uid=shares.uid,
            counter=shares.counter,
            stable=shares.stable,
            weights=turned,
        )
    )


@given(pool_shares)
def test_the_parts_of_all_versions_add_up_to_one(shares: PoolShares) -> None:
    assert sum(map(shares.share, shares.weights)) == pytest.approx(1)
    assert shares.share("a version that is not there") == 0


@given(st.text())
def test_any_other_text_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(SharesError):
        decode(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": {}}, "above 0"),
        ({"shares": {"h1": 0, "h2": 0}}, "above 0"),
        ({"shares": {"h1": -1, "h2": 1}}, "from 0 to"),
        ({"shares": {"h1": WEIGHT_MAX + 1}}, "from 0 to"),
        ({"shares": {"h1": 0.5}}, "from 0 to"),
        ({"shares": {"h1": True}}, "from 0 to"),
        ({"shares": {"": 1}}, "from 0 to"),
        ({"shares": ["h1"]}, "from 0 to"),
        ({"counter": "3"}, "counter"),
        ({"counter": -1}, "counter"),
        ({"stable": ""}, "stable"),
        ({"uid": None}, "uid"),
        ({"rollout": 1}, "rollout"),
        ({"more": 1}, "expected an object with"),
    ],
    ids=str,
)
def test_a_value_that_is_not_whole_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SharesError, match=message):
        decode(json.dumps(FIELDS | change))


def test_deeply_nested_text_is_refused() -> None:
    with pytest.raises(SharesError, match="not JSON"):
        decode("[" * 100_000)


def test_the_digest_is_of_the_text_itself() -> None:
    text = json.dumps(FIELDS)
    assert digest(text) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert digest(text + " ") != digest(text)
