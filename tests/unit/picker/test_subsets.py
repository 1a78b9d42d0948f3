"""The gateway's subset hint."""

import pytest

from inference_picker.subsets import allows, split_hint


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        pytest.param("10.0.0.1:80,10.0.0.2:80", ("10.0.0.1:80", "10.0.0.2:80"), id="string"),
        pytest.param(["10.0.0.1:80", " 10.0.0.2 "], ("10.0.0.1:80", "10.0.0.2"), id="list"),
        pytest.param("", (), id="empty-string"),
        pytest.param([], (), id="empty-list"),
        pytest.param(" , ", (), id="only-commas"),
    ],
)
def test_a_hint_is_read_as_list_or_as_string(
    hint: str | list[str], expected: tuple[str, ...]
) -> None:
    assert split_hint(hint) == expected


@pytest.mark.parametrize(
    ("subset", "address", "expected"),
    [
        pytest.param(("10.0.0.1:80",), "10.0.0.1:80", True, id="same"),
        pytest.param(("10.0.0.1:81",), "10.0.0.1:80", False, id="other-port"),
        pytest.param(("10.0.0.1",), "10.0.0.1:80", True, id="no-port-is-every-port"),
        pytest.param(("10.0.0.11:80",), "10.0.0.1:80", False, id="longer-ip"),
        pytest.param((), "10.0.0.1:80", False, id="nothing-allowed"),
        pytest.param(("[fd00::1]:80",), "[fd00::1]:80", True, id="ipv6"),
        pytest.param(("fd00:0:0::1",), "[fd00::1]:80", True, id="ipv6-other-spelling"),
        pytest.param(("[fd00::1]",), "[fd00::1]:80", True, id="ipv6-brackets-no-port"),
        pytest.param(("[fd00::1]:81",), "[fd00::1]:80", False, id="ipv6-other-port"),
        pytest.param(("nonsense",), "10.0.0.1:80", False, id="nonsense"),
    ],
)
def test_an_address_is_allowed_by_ip_and_port(
    subset: tuple[str, ...], address: str, expected: bool
) -> None:
    assert allows(subset, address) is expected
