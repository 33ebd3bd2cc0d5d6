"""Is everything that can be looked up described?"""

import re
from pathlib import Path

import pytest

from perpetuo.adapters import environment
from perpetuo.adapters.sql.tables import metadata
from perpetuo.adapters.telemetry.metrics import METRICS
from perpetuo.domain.model.errors import Reason
from perpetuo.entrypoints.http.advice import ADVICE
from perpetuo.entrypoints.http.errors import TABLE
from tests.unit.docs.pages import ROOT, pages, spans, table_rows

VARIABLE = re.compile(r"(?:export )?(PERPETUO_[A-Z_]+|[A-Z]+_URL|[A-Z]+_PORT|LOG_[A-Z]+)\b")
OF_TOOLS = {"PERPETUO_BIND"}
"""Read by compose.yaml."""


def test_every_error_says_what_to_do() -> None:
    """The caller is never left without a word, and the operator only where there is nothing to do."""
    assert set(ADVICE) == set(TABLE) == set(Reason)
    assert [reason for reason, advice in ADVICE.items() if not advice.caller] == []


def test_troubleshooting_names_codes_that_exist() -> None:
    """docs/operations.md repeats status and code as they are."""
    rows = table_rows((ROOT / "docs" / "operations.md").read_text(), "Troubleshooting by error code")
    known = {f"{row.status} `{reason.value}`" for reason, row in TABLE.items()}
    assert {row[0] for row in rows} <= known


def test_every_metric_is_described() -> None:
    """A name alone tells nobody what it counts."""
    assert [metric.name for metric in METRICS if not metric.help.endswith(".")] == []


@pytest.mark.parametrize("table", ["events", "refusals", "events_rejected"])
def test_every_column_is_described(table: str) -> None:
    """A new column comes with a ``doc``."""
    assert [column.name for column in metadata.tables[table].columns if not column.doc] == []


def test_every_variable_is_described() -> None:
    """What the environment's modules ask for is in their table, and nothing else is."""
    source = "".join(path.read_text() for path in Path(environment.__file__).parent.glob("*.py"))
    asked = set(re.findall(r'(?:reader|self)\.\w+\(\s*"([A-Z_]+)"', source))
    assert {variable.name for variable in environment.VARIABLES} == asked - environment.INTERNAL


def test_variables_that_pages_name_are_read() -> None:
    """A variable in code on a page is one of the table, alone or with ``_FILE``."""
    known = {variable.name for variable in environment.VARIABLES} | environment.INTERNAL | OF_TOOLS
    unknown = {
        (page.name, name)
        for page in pages()
        for span in spans(page.read_text())
        if (match := VARIABLE.match(span)) and (name := match[1].removesuffix("_FILE")) not in known
    }
    assert unknown == set()
