"""
How are times of many calls kept so that percentiles of any span can still be told?

Rule 1: a time falls into a bucket; bounds grow by 2^(1/4) each from 1 ms to a quarter of an hour, for ever the same, so
        that the counts of two spans are added bucket by bucket and nothing else.
Rule 2: a percentile told from counts lies in the bucket of the true one: at most a fifth away from it, never outside of
        what the bucket holds. Which value it is: the nearest rank's, its place within the bucket by its rank.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

import attrs

GROWTH = 2**0.25
BOUNDS: tuple[float, ...] = tuple(GROWTH**n for n in range(80))
"""Milliseconds. Bucket 0 is below the first of them, bucket n from bound n-1 up to bound n, the last all above."""


def bucket_of(milliseconds: float) -> int:
    return bisect_right(BOUNDS, milliseconds)


def edges(bucket: int) -> tuple[float, float]:
    """What a bucket holds, in ms; of the last one a bucket's width is told."""
    low = BOUNDS[bucket - 1] if bucket else 0.0
    return low, BOUNDS[bucket] if bucket < len(BOUNDS) else low * GROWTH


@attrs.frozen
class Histogram:
    """How many calls took how long; a bucket without a call is left out."""

    counts: Mapping[int, int] = attrs.field(factory=dict)

    @classmethod
    def of(cls, times: Iterable[float]) -> "Histogram":
        counts: dict[int, int] = {}
        for time in times:
            bucket = bucket_of(time)
            counts[bucket] = counts.get(bucket, 0) + 1
        return cls(counts)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def percentile(self, percent: int) -> float | None:
        """Milliseconds that ``percent`` of all calls took at most; ``None``: there was no call."""
        rank = max(1, -(-self.total * percent // 100))
        for bucket in sorted(self.counts):
            count = self.counts[bucket]
            if rank <= count:
                low, high = edges(bucket)
                return low + (high - low) * (rank - 0.5) / count
            rank -= count
        return None


def merged(histograms: Iterable[Histogram]) -> Histogram:
    counts: dict[int, int] = {}
    for one in histograms:
        for bucket, count in one.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return Histogram(counts)
