"""Pages of one endpoint one after another: what is remembered gives what a search would."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from inference_picker.engines import PageReader
from inference_picker.page_lines import PageLines

NAME = b"vllm:num_requests_running"


def texts(lines: list[bytes]) -> list[bytes]:
    return list(lines)


def found(page: bytes, pattern: bytes = NAME) -> PageLines[list[bytes]]:
    series = PageLines.search(page, pattern, texts)
    assert series is not None
    return series


def page(running: bytes, *, above: bytes = b"# top\nother 1\n") -> bytes:
    return above + NAME + b'{engine="0"} ' + running + b"\nend 1\n"


def test_a_value_that_changed_is_read_where_it_was() -> None:
    series = found(page(b"3.0"))

    assert series.follow(page(b"4.0"), 0) == 0
    assert series.value == [NAME + b'{engine="0"} 4.0']


def test_a_line_that_numbers_above_have_moved_is_found_near_its_place() -> None:
    series = found(page(b"3.0"))

    assert series.follow(page(b"12.0", above=b"# top\nother 12345\n"), 0) == 4
    assert series.value == [NAME + b'{engine="0"} 12.0']


def test_the_shift_of_the_series_above_is_taken_over() -> None:
    series = found(page(b"3.0"))
    long = b"# top\n" + 60 * b"another_series 123\n"

    assert series.follow(page(b"5.0", above=long), 0) is None
    assert series.follow(page(b"5.0", above=long), len(long) - 15) is not None
    assert series.value == [NAME + b'{engine="0"} 5.0']


def test_a_line_that_joins_the_series_is_noticed() -> None:
    series = found(page(b"3.0"))
    joined = page(b"3.0").replace(b"end 1", NAME + b'{engine="1"} 7.0\nend 1')

    assert series.follow(joined, 0) is not None
    assert len(series.value) == 2


def test_lines_without_the_wanted_label_are_left_out() -> None:
    base = b'#\nm{kind="a"} 1\nm{kind="b"} 2\n'
    series = found(base, b'm{*kind="b"')

    assert series.value == [b'm{kind="b"} 2']
    assert series.follow(base.replace(b"2\n", b"3\n"), 0) is not None
    assert series.value == [b'm{kind="b"} 3']
    assert series.follow(b'#\nm{kind="a"} 1\n', 0) is None


def test_nothing_is_remembered_of_lines_that_are_scattered() -> None:
    scattered = page(b"3.0") + NAME + b'{engine="1"} 7.0\n'

    assert len(found(scattered).value) == 2
    assert found(scattered).follow(scattered, 0) is None


def test_a_page_that_is_cut_within_the_line_is_searched() -> None:
    whole = page(b"30")
    cut = whole[: whole.index(b"30\n") + 1]

    assert found(whole).follow(cut, 0) is None


def test_a_longer_name_is_another_series() -> None:
    longer = page(b"3.0").replace(NAME, NAME + b"_more")

    assert PageLines.search(longer, NAME, texts) is None
    assert found(page(b"3.0")).follow(longer, 0) is None


def test_a_series_that_appears_is_noticed_within_a_second_or_two() -> None:
    reader = PageReader()
    reader.read(page(b"3.0"))
    grown = page(b"3.0") + b"vllm:num_requests_waiting 9\n"

    seen = [reader.read(grown) for _ in range(32)]

    assert seen[-1] is not None
    assert seen[-1].waiting == 9


def test_readings_that_have_not_changed_are_the_same_object() -> None:
    reader = PageReader()

    first = reader.read(page(b"3.0"))

    assert reader.read(page(b"3.0", above=b"# top\nother 17\n")) is first
    assert reader.read(page(b"4.0")) is not first


@dataclass(frozen=True)
class Written:
    """What a server writes on one page: values of any length, in lines that may come and go."""

    filler: list[int]
    running: list[int]
    waiting: list[int]
    usage: list[float]
    adapters: list[str]

    def text(self) -> bytes:
        lines = ["# HELP filler Lines above, whose numbers grow."]
        lines += [f'filler{{le="{place}"}} {value}' for place, value in enumerate(self.filler)]
        for name, values in (
            ("vllm:num_requests_running", self.running),
            ("vllm:num_requests_waiting", self.waiting),
            ("vllm:num_requests_waiting_by_reason", self.waiting),
            ("vllm:kv_cache_usage_perc", self.usage),
        ):
            lines.append(f"# TYPE {name} gauge")
            lines += [f'{name}{{engine="{place}"}} {value}' for place, value in enumerate(values)]
        lines += [
            f'vllm:lora_requests_info{{max_lora="4",running_lora_adapters="{name}",'
            f'waiting_lora_adapters=""}} {1e9 + place}'
            for place, name in enumerate(self.adapters)
        ]
        lines.append('vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0')
        return ("\n".join(lines) + "\n").encode()


numbers = st.integers(0, 10**9)
written = st.builds(
    Written,
    filler=st.lists(numbers, max_size=40),
    running=st.lists(numbers, min_size=1, max_size=3),
    waiting=st.lists(numbers, min_size=1, max_size=3),
    usage=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    adapters=st.lists(st.sampled_from(["a", "b", "a,b"]), min_size=1, max_size=4),
)


@given(st.lists(written, min_size=2, max_size=6))
def test_whatever_changes_between_pages_the_readings_are_those_of_the_page(
    pages: list[Written],
) -> None:
    reader = PageReader()

    for each in pages:
        assert reader.read(each.text()) == PageReader().read(each.text())


@given(written, st.integers(0, 3000), st.binary(max_size=20))
def test_a_page_cut_or_mangled_after_a_good_one_is_read_as_if_it_came_first(
    good: Written, at: int, patch: bytes
) -> None:
    text = good.text()

    for bad in (text[:at], text[:at] + patch):
        reader = PageReader()
        reader.read(text)
        assert reader.read(bad) == PageReader().read(bad)
