"""Percentiles from counts are as good as the buckets are narrow, and adding counts loses nothing."""

from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.histogram import BOUNDS, GROWTH, Histogram, bucket_of, edges, merged

TIMES = st.floats(0, BOUNDS[-1] * 0.99)


def nearest_rank(times: list[float], percent: int) -> float:
    return sorted(times)[max(1, -(-len(times) * percent // 100)) - 1]


@given(st.lists(TIMES, min_size=1, max_size=300), st.sampled_from([1, 50, 95, 99, 100]))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(times: list[float], percent: int) -> None:
    """So it is at most a bucket's width away."""
    true, told = nearest_rank(times, percent), Histogram.of(times).percentile(percent)
    low, high = edges(bucket_of(true))
    assert told is not None
    assert low <= told <= high
    assert abs(told - true) <= high - low
    assert true < 1 or high / low <= GROWTH + 1e-9


@given(st.lists(st.lists(TIMES, max_size=50), max_size=6))
def test_counts_of_parts_add_up_to_counts_of_the_whole(parts: list[list[float]]) -> None:
    """In any number of parts."""
    whole = Histogram.of(time for part in parts for time in part)
    assert merged(Histogram.of(part) for part in parts) == whole
    assert whole.total == sum(map(len, parts))


def test_without_a_call_there_is_no_percentile() -> None:
    """Not zero milliseconds."""
    assert Histogram().percentile(50) is None


@given(st.floats(0, 10 * BOUNDS[-1]))
def test_every_time_has_a_bucket(time: float) -> None:
    """Also one beyond the last bound, which is told as the last bucket."""
    low, high = edges(bucket_of(time))
    assert low <= time
    assert time < high or time >= BOUNDS[-1]
