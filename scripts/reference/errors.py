"""Which refusals are there, and what should be done about each?"""

from collections.abc import Iterator

from perpetuo.domain.model.errors import Reason
from perpetuo.entrypoints.http.advice import ADVICE
from perpetuo.entrypoints.http.errors import TABLE
from scripts.reference.markdown import GENERATED, table


def lines() -> Iterator[str]:
    yield from ["# Errors: every code", "", GENERATED, ""]
    yield "How a refusal looks, which headers tell a client what to do, how to find one call: [errors](../errors.md)."
    yield from ["", "## The codes", ""]
    head = ("Code", "Status", "Type", "SDK retries", "The caller", "The operator")
    yield from table(head, [_row(reason) for reason in TABLE])


def _row(reason: Reason) -> tuple[str, ...]:
    row, advice = TABLE[reason], ADVICE[reason]
    see = f" See [{advice.see[0]}](../{advice.see[1]})." if advice.see else ""
    retry = "yes" if row.retry else "no"
    return f"`{reason.value}`", str(row.status), row.type, retry, advice.caller, advice.operator + see or "–"
