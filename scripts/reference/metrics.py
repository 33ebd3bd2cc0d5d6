"""What is counted?"""

from collections.abc import Iterator

from perpetuo.adapters.telemetry.metrics import METRICS
from scripts.reference.markdown import GENERATED, table


def lines() -> Iterator[str]:
    yield from ["# Metrics: every name", "", GENERATED, ""]
    yield "How they are counted and what to watch: [metrics](../metrics.md)."
    yield from ["", "## The metrics", ""]
    rows = [(f"`{m.name}`", m.kind.value, ", ".join(m.labels), m.help) for m in METRICS]
    yield from table(("Name", "Kind", "Labels", "Meaning"), rows)
    yield from ["", "## Buckets of histograms", "", "Upper bounds in seconds.", ""]
    buckets = [(f"`{m.name}`", ", ".join(f"{bound:g}" for bound in m.buckets)) for m in METRICS if m.buckets]
    yield from table(("Name", "Buckets"), buckets)
