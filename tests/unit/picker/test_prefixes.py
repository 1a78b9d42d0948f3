"""The index of prefixes, and the hashes that it is asked with."""

import json
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.prefixes import PrefixIndex
from inference_picker.prompts import BLOCK_BYTES, MAX_BLOCKS, block_hashes, read_prompt
from inference_picker.scheduler import Scheduler


def test_only_an_unbroken_beginning_counts() -> None:
    index = PrefixIndex()
    index.add(0, (1, 2, 3))
    index.add(1, (1, 9, 3))
    index.add(2, (2, 3))

    assert list(index.matched((1, 2, 3, 4), 4)) == [3, 1, 0, 0]


def test_the_least_recently_used_blocks_leave_first() -> None:
    index = PrefixIndex(capacity=3)
    index.add(0, (1, 2))
    index.add(0, (8,))
    index.add(0, (1, 2))
    index.add(0, (9,))

    assert [index.matched((block,), 1)[0] for block in (1, 2, 8, 9)] == [1, 1, 0, 1]


def test_the_end_of_a_prefix_leaves_before_its_beginning() -> None:
    index = PrefixIndex(capacity=2)
    index.add(0, (1, 2, 3))

    assert list(index.matched((1, 2, 3), 1)) == [2]


def test_a_pods_own_size_bounds_its_blocks() -> None:
    index = PrefixIndex(capacity=100)
    index.limit(0, 2)
    index.add(0, (1, 2, 3))
    index.add(1, (1, 2, 3))

    assert list(index.matched((1, 2, 3), 2)) == [2, 3]


def test_the_schedulers_index_is_the_one_it_was_given() -> None:
    # An empty index is as good as any: it must not be taken for none.
    index = PrefixIndex(capacity=1)

    assert Scheduler(index=index).index is index


def test_memory_is_shared_by_the_pods() -> None:
    index = PrefixIndex(capacity=1000, memory_entries=100)
    for row in range(10):
        index.add(row, range(row * 1000, row * 1000 + 500))

    for row in range(10):
        index.add(row, (row,))
    assert len(index) <= 100


def test_a_pod_that_is_gone_holds_nothing() -> None:
    index = PrefixIndex()
    index.add(0, (1, 2))
    index.add(1, (1,))
    index.drop(0)

    assert list(index.matched((1, 2), 2)) == [0, 1]
    assert len(index) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.integers(0, 9), max_size=6, unique=True)),
        max_size=30,
    ),
    st.lists(st.integers(0, 9), max_size=6, unique=True),
)
def test_the_bits_say_what_one_cache_for_each_pod_would(
    sent: list[tuple[int, list[int]]], asked: list[int]
) -> None:
    index = PrefixIndex(capacity=5)
    caches: dict[int, OrderedDict[int, None]] = {row: OrderedDict() for row in range(6)}
    for row, blocks in sent:
        index.add(row, blocks)
        for block in reversed(blocks):
            caches[row].pop(block, None)
            caches[row][block] = None
        while len(caches[row]) > 5:
            caches[row].popitem(last=False)

    expected = []
    for cache in caches.values():
        depth = 0
        while depth < len(asked) and asked[depth] in cache:
            depth += 1
        expected.append(depth)
    assert list(index.matched(asked, 6)) == expected


TEXT = "x" * BLOCK_BYTES


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"prompt": TEXT * 3}, id="completion"),
        pytest.param({"prompt": [TEXT, TEXT, TEXT]}, id="several-prompts"),
        pytest.param({"prompt": [1] * 500}, id="token-ids"),
        pytest.param({"messages": [{"role": "user", "content": TEXT * 3}]}, id="chat"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT * 3}]}]},
            id="content-parts",
        ),
        pytest.param({"input": TEXT * 3}, id="embedding"),
        pytest.param({"messages": "not a list" * 100}, id="malformed-messages"),
        pytest.param({"messages": [3, None, {"content": None, "x": TEXT * 3}]}, id="odd-messages"),
    ],
)
def test_prompts_of_every_api_have_length_and_blocks(document: dict[str, object]) -> None:
    prompt = read_prompt(document, "m")

    assert prompt.size >= 3 * BLOCK_BYTES
    assert len(prompt.blocks) == prompt.size // BLOCK_BYTES
    assert prompt == read_prompt(json.loads(json.dumps(document)), "m")


def test_turns_of_one_conversation_share_their_beginning() -> None:
    messages = [{"role": "system", "content": TEXT * 4}, {"role": "user", "content": "first"}]
    first = read_prompt({"messages": messages}, "m")
    later = read_prompt({"messages": [*messages, {"role": "assistant", "content": TEXT * 2}]}, "m")

    assert len(first.blocks) == 4
    assert later.blocks[:4] == first.blocks
    assert len(later.blocks) > 4


def test_the_same_text_under_another_adapter_is_another_prefix() -> None:
    text = TEXT.encode()

    assert block_hashes(text, "v1") != block_hashes(text, "v2")


@pytest.mark.parametrize(
    ("document", "limit"),
    [
        pytest.param({"prompt": "x", "max_tokens": 7}, 7, id="completion"),
        pytest.param({"prompt": "x", "max_completion_tokens": 9, "max_tokens": 7}, 9, id="chat"),
        pytest.param({"prompt": "x", "max_tokens": "7"}, None, id="not-a-number"),
        pytest.param({"prompt": "x"}, None, id="none"),
        pytest.param(None, None, id="no-body"),
    ],
)
def test_the_clients_limit_is_read(document: dict[str, object] | None, limit: int | None) -> None:
    assert read_prompt(document, "m").max_output_tokens == limit


def test_endless_prompts_are_hashed_up_to_a_limit() -> None:
    assert len(block_hashes(b"x" * (MAX_BLOCKS + 10) * BLOCK_BYTES, "m")) == MAX_BLOCKS
