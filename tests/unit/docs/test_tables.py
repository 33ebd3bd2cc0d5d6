"""Do the tables of the documentation say what the code's tables say?"""

from perpetuo.adapters.telemetry.metrics import METRICS
from perpetuo.entrypoints.http.errors import TABLE
from tests.unit.docs.pages import ROOT, table_rows


def test_every_error_code_is_documented_as_it_is() -> None:
    """docs/errors.md has each code with its status, type and advice to SDKs, in the order of the code."""
    rows = table_rows((ROOT / "docs" / "errors.md").read_text(), "The codes")
    documented = [(row[0].strip("`"), int(row[1]), row[2], row[3] == "yes") for row in rows]
    assert documented == [(reason.value, row.status, row.type, row.retry) for reason, row in TABLE.items()]


def test_every_error_says_what_to_do() -> None:
    """Neither the caller nor the operator is left without a word."""
    rows = table_rows((ROOT / "docs" / "errors.md").read_text(), "The codes")
    assert [row[0] for row in rows if len(row) != 6 or not row[4] or not row[5]] == []


def test_troubleshooting_names_codes_that_exist() -> None:
    """docs/operations.md repeats status and code as they are."""
    rows = table_rows((ROOT / "docs" / "operations.md").read_text(), "Troubleshooting by error code")
    known = {f"{row.status} `{reason.value}`" for reason, row in TABLE.items()}
    assert {row[0] for row in rows} <= known


def test_every_metric_is_documented_as_it_is() -> None:
    """docs/metrics.md has each metric with its kind and labels, in the order of the code."""
    rows = table_rows((ROOT / "docs" / "metrics.md").read_text(), "The metrics")
    documented = [(row[0].strip("`"), row[1], row[2]) for row in rows]
    assert documented == [(metric.name, metric.kind.value, ", ".join(metric.labels)) for metric in METRICS]
