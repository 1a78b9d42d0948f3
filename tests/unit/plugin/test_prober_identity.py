from __future__ import annotations

from typing import Any

import pytest

from inference_plugin.prober.identity import Condition, IdentityError, mismatch, parse_identity

POD: dict[str, Any] = {
    "metadata": {"labels": {"rev": "7"}, "annotations": {"example.com/build": "abc"}},
    "spec": {"containers": [{"image": "sidecar:1"}, {"image": "vllm:0.32"}]},
}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("", None, id="nothing-asked"),
        pytest.param("DeepSeek-R1", None, id="the-last-component-of-the-root"),
        pytest.param("root=/models/DeepSeek-R1", None, id="the-whole-root"),
        pytest.param("Qwen", "root is /models/DeepSeek-R1, expected Qwen", id="another-root"),
        pytest.param("R1", "root is /models/DeepSeek-R1, expected R1", id="part-of-a-component"),
        pytest.param("image=vllm:0.32", None, id="image-of-any-container"),
        pytest.param(
            "image=vllm:0.31", "image is sidecar:1, vllm:0.32, expected vllm:0.31", id="image"
        ),
        pytest.param("label:rev=7, annotation:example.com/build=abc", None, id="all-hold"),
        pytest.param("label:rev=7,label:rev=8", "label rev is 7, expected 8", id="one-fails"),
        pytest.param("label:x=8", "label x is absent, expected 8", id="absent-label"),
        pytest.param("annotation:x=8", "annotation x is absent, expected 8", id="annotation"),
    ],
)
def test_a_pod_is_held_against_an_identity(text: str, problem: str | None) -> None:
    assert mismatch(parse_identity(text), pod=POD, root="/models/DeepSeek-R1") == problem


def test_a_server_that_tells_no_root_does_not_match_one() -> None:
    assert mismatch(parse_identity("m"), pod=POD, root=None) == "root is absent, expected m"


def test_a_value_may_contain_an_equals_sign() -> None:
    assert parse_identity("label:a=b=c") == (Condition(kind="label", key="a", value="b=c"),)


@pytest.mark.parametrize("text", ["labels:a=b", "label=b", "label:=b", "root=", "image:x=y"])
def test_an_unreadable_identity_is_refused_with_the_forms_that_exist(text: str) -> None:
    with pytest.raises(IdentityError, match="write root=MODEL, image=REFERENCE"):
        parse_identity(text)
