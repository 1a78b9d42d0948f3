"""Reading and replacing the model of a request body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.bodies import encoded, model_of, model_span, with_model
from inference_picker.errors import BodyError

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names | st.just("model"), inner, max_size=3)
    ),
    max_leaves=12,
)
objects = st.dictionaries(names | st.just("model"), json_values, max_size=5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"model":"a"}', b'{"model":"NEW"}', id="alone"),
        pytest.param(b' {"model" : "a" , "n":1}\n', b' {"model" : "NEW" , "n":1}\n', id="spaces"),
        pytest.param(
            b'{"m":[{"model":"x"}],"model":"a"}',
            b'{"m":[{"model":"x"}],"model":"NEW"}',
            id="nested-key-before",
        ),
        pytest.param(
            b'{"model":"a","o":{"model":"x"}}',
            b'{"model":"NEW","o":{"model":"x"}}',
            id="nested-key-after",
        ),
        pytest.param(
            b'{"t":"say \\"model\\":\\"x\\"","model":"a"}',
            b'{"t":"say \\"model\\":\\"x\\"","model":"NEW"}',
            id="key-inside-a-string",
        ),
        pytest.param(
            b'{"t":"brackets ]}{[","model":"a"}',
            b'{"t":"brackets ]}{[","model":"NEW"}',
            id="brackets-inside-a-string",
        ),
        pytest.param(b'{"x":"model","model":"a"}', b'{"x":"model","model":"NEW"}', id="as-value"),
        pytest.param(
            b'{"x":"model","m\\u006fdel":"a"}',
            b'{"x":"model","m\\u006fdel":"NEW"}',
            id="escaped-key",
        ),
        pytest.param(
            b'{"model":"a","model":"b"}', b'{"model":"a","model":"NEW"}', id="twice-last-counts"
        ),
        pytest.param(b'{"model":"a\\"}{"}', b'{"model":"NEW"}', id="escaped-quote-in-the-name"),
        pytest.param(
            '{"é":"ü","model":"größe"}'.encode(), '{"é":"ü","model":"NEW"}'.encode(), id="unicode"
        ),
        pytest.param(b'{"t":"\\\\","model":"a"}', b'{"t":"\\\\","model":"NEW"}', id="backslash"),
        pytest.param(b'{"n":1.0e5,"model":"a"}', b'{"n":1.0e5,"model":"NEW"}', id="number-form"),
    ],
)
def test_only_the_bytes_of_the_top_level_model_change(body: bytes, expected: bytes) -> None:
    assert with_model(body, "NEW") == expected


@pytest.mark.parametrize(
    ("body", "names_no_model", "says"),
    [
        pytest.param(b"", False, "not JSON", id="empty"),
        pytest.param(b"{", False, "not JSON", id="cut-off"),
        pytest.param(b'{"model":"a"}x', False, "not JSON", id="trailing-bytes"),
        pytest.param(b"[1]", False, "a JSON list; an object is expected", id="list"),
        pytest.param(b'"model"', False, "a JSON str", id="string"),
        pytest.param(b'{"model":"\xff"}', False, "not JSON", id="not-utf-8"),
        pytest.param('{"model":"a"}'.encode("utf-16"), False, "not JSON", id="utf-16"),
        pytest.param(b"[" * 200_000, False, "nested too deeply", id="deep"),
        pytest.param(b'{"n":' + b"1" * 5000 + b"}", False, "not JSON", id="endless-number"),
        pytest.param(b"{}", True, 'no "model"', id="no-model"),
        pytest.param(b'{"model":1}', True, 'no "model"', id="number-as-model"),
        pytest.param(b'{"model":""}', True, 'no "model"', id="empty-model"),
        pytest.param(b'{"model":"a","model":null}', True, 'no "model"', id="last-one-is-null"),
        pytest.param(b'{"o":{"model":"a"}}', True, 'no "model"', id="only-nested"),
    ],
)
def test_a_body_without_a_model_is_told_from_one_that_is_no_json(
    body: bytes, names_no_model: bool, says: str
) -> None:
    with pytest.raises(BodyError, match=says) as found:
        model_of(body)
    assert found.value.names_no_model is names_no_model


@given(objects, names, names, st.booleans(), st.sampled_from([None, 1]), st.integers(0, 5))
def test_the_splice_equals_replacing_the_value_and_nothing_else(
    rest: dict[str, object],
    model: str,
    target: str,
    ascii_only: bool,
    indent: int | None,
    position: int,
) -> None:
    rest.pop("model", None)
    items = list(rest.items())
    items.insert(min(position, len(items)), ("model", model))
    body = json.dumps(dict(items), ensure_ascii=ascii_only, indent=indent).encode()

    spliced = with_model(body, target)

    assert json.loads(spliced) == {**dict(items), "model": target}
    start, end = model_span(body)
    assert json.loads(body[start:end]) == model
    assert spliced == body[:start] + encoded(target) + body[end:]


@given(st.binary(max_size=60) | st.text('{}[]":,\\ modelau0', max_size=40).map(str.encode))
def test_arbitrary_bytes_raise_nothing_but_the_body_error(body: bytes) -> None:
    try:
        model = model_of(body)
    except BodyError:
        return
    start, end = model_span(body)
    assert json.loads(body[start:end]) == model
