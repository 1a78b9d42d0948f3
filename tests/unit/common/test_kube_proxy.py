"""Whether requests to an API server go through a proxy, by the environment."""

from __future__ import annotations

import pytest

from inference_common.kube import has_proxy

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        pytest.param({}, False, id="none"),
        pytest.param({"HTTPS_PROXY": PROXY}, True, id="one-for-https"),
        pytest.param({"https_proxy": PROXY}, True, id="in-small-letters"),
        pytest.param({"HTTP_PROXY": PROXY}, False, id="one-for-http-alone"),
        pytest.param(
            {"HTTPS_PROXY": PROXY, "NO_PROXY": "other.example,10.0.0.1"}, False, id="excepted"
        ),
        pytest.param({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, False, id="all-excepted"),
    ],
)
def test_a_proxy_counts_where_it_is_for_this_host(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], found: bool
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert has_proxy("https://10.0.0.1:6443") is found
