"""The endpoint label: readable, unique, and never more than the cap."""

from inference_picker.labels import KEPT_S, OTHER, EndpointLabels
from inference_picker.pool import Endpoint, make_snapshot


def endpoint(number: int, pod: str | None = None) -> Endpoint:
    return Endpoint(address=f"10.0.0.{number}:80", pod=pod or f"pod-{number}", version="v")


def test_a_pod_with_several_ports_is_told_apart_by_port() -> None:
    one = Endpoint(address="[fd00::1]:8000", pod="a", version="v")
    two = Endpoint(address="[fd00::1]:8001", pod="a", version="v")
    pool = make_snapshot([one, two, endpoint(3)])
    labels = EndpointLabels()

    assert labels.of(one.address, pool) == ("a:8000", "v")
    assert labels.of(two.address, pool) == ("a:8001", "v")
    assert labels.of("10.0.0.3:80", pool) == ("pod-3", "v")


def test_an_endpoint_without_a_pod_is_named_by_its_address() -> None:
    pool = make_snapshot([Endpoint(address="10.0.0.1:80")])

    assert EndpointLabels().of("10.0.0.1:80", pool) == ("10.0.0.1:80", "")


def test_endpoints_above_the_cap_share_one_label() -> None:
    pool = make_snapshot([endpoint(number) for number in range(5)])
    labels = EndpointLabels(limit=3)

    found = [labels.of(each.address, pool) for each in pool.endpoints]

    assert [each[0] for each in found if each] == ["pod-0", "pod-1", "pod-2", OTHER, OTHER]


def test_a_label_is_free_again_some_time_after_its_endpoint_left() -> None:
    labels = EndpointLabels(limit=1)
    old, new = make_snapshot([endpoint(1)]), make_snapshot([endpoint(2)])
    labels.of("10.0.0.1:80", old)

    assert labels.gone(new, at=0.0) == frozenset()
    assert labels.gone(new, at=KEPT_S) == {"pod-1"}
    newer = make_snapshot([endpoint(3)])
    assert labels.of("10.0.0.3:80", newer) == ("pod-3", "v")


def test_a_pod_that_came_back_under_another_address_keeps_its_label() -> None:
    labels = EndpointLabels()
    old, new = make_snapshot([endpoint(1, "a")]), make_snapshot([endpoint(2, "a")])
    labels.of("10.0.0.1:80", old)
    labels.gone(new, at=0.0)

    assert labels.gone(new, at=KEPT_S) == frozenset()
    assert labels.of("10.0.0.2:80", new) == ("a", "v")
