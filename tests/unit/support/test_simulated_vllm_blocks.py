from __future__ import annotations

import pytest

from support.simulated_vllm.blocks import BlockPool, prefix_hashes


def test_a_released_block_is_found_again_until_it_is_taken() -> None:
    pool = BlockPool(2)
    blocks = pool.take(1)
    assert blocks is not None
    pool.remember(blocks[0], 7)
    pool.release(blocks)

    assert pool.usage == 0
    assert pool.cached_prefix([7]) == blocks

    pool.take(2)
    assert pool.cached_prefix([7]) == []


def test_the_least_recently_released_block_is_evicted_first() -> None:
    pool = BlockPool(3)
    taken = pool.take(3)
    assert taken is not None
    for block, block_hash in zip(taken, (1, 2, 3), strict=True):
        pool.remember(block, block_hash)
    pool.release([taken[1]])
    pool.release([taken[0]])

    assert pool.take(1) == [taken[1]]
    assert pool.cached_prefix([1]) == [taken[0]]


def test_the_end_of_a_prefix_is_evicted_before_its_beginning() -> None:
    pool = BlockPool(2)
    taken = pool.take(2)
    assert taken is not None
    pool.remember(taken[0], 1)
    pool.remember(taken[1], 2)
    pool.release(taken)

    pool.take(1)

    assert pool.cached_prefix([1, 2]) == [taken[0]]


def test_a_shared_block_stays_until_its_last_reference_goes() -> None:
    pool = BlockPool(1)
    taken = pool.take(1)
    assert taken is not None
    pool.remember(taken[0], 1)
    pool.share(taken)
    pool.release(taken)

    assert pool.usage == 1
    assert pool.take(1) is None

    pool.release(taken)
    assert pool.usage == 0


def test_a_refused_take_changes_nothing() -> None:
    pool = BlockPool(2)
    assert pool.take(3) is None
    assert pool.free == 2


def test_a_pool_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one block, found 0"):
        BlockPool(0)


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        pytest.param((b"aaaabbbb", "x"), (b"aaaabbbb", "x"), 2, id="equal"),
        pytest.param((b"aaaabbbb", "x"), (b"aaaacccc", "x"), 1, id="same-beginning"),
        pytest.param((b"aaaabbbb", "x"), (b"ccccbbbb", "x"), 0, id="same-end-only"),
        pytest.param((b"aaaabbbb", "x"), (b"aaaabbbb", "y"), 0, id="another-adapter"),
    ],
)
def test_two_prompts_share_the_blocks_of_their_common_prefix(
    left: tuple[bytes, str], right: tuple[bytes, str], common: int
) -> None:
    first, second = (
        prefix_hashes(text, token_bytes=2, block_size=2, salt=salt) for text, salt in (left, right)
    )
    assert sum(a == b for a, b in zip(first, second, strict=True)) == common


def test_only_full_blocks_have_a_hash() -> None:
    assert len(prefix_hashes(b"x" * 11, token_bytes=1, block_size=4, salt="")) == 2
    assert prefix_hashes(b"xxx", token_bytes=1, block_size=4, salt="") == []
