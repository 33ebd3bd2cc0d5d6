"""The table of `make bench-budget`: to which step a sample belongs, and what a column adds up to."""

import pytest

from bench.budget import OTHER, shares, step_of, table


@pytest.mark.parametrize(
    ("stack", "step"),
    [
        ("run (uvloop/__init__.py:96)", OTHER),
        ("complete (perpetuo/domain/gateway/complete.py:90);admit (perpetuo/domain/gateway/admit.py:80)", "admit"),
        ("admit (perpetuo/domain/gateway/admit.py:80);monotonic (perpetuo/domain/x.py:1)", "call path itself"),
        ("settle (perpetuo/domain/gateway/settle.py:1);_event (perpetuo/domain/gateway/settle.py:99)", "event"),
        ("chat (perpetuo/entrypoints/http/calls.py:1);encode (msgspec/json.py:3)", "call path itself"),
    ],
)
def test_a_sample_belongs_to_its_innermost_frame_with_a_name(stack: str, step: str) -> None:
    """Libraries count for whoever called them; what nobody of ours called is the event loop's."""
    assert step_of(stack.split(";")).startswith(step)


def test_shares_add_up_to_one() -> None:
    """Of all samples that py-spy wrote down."""
    found = shares("a (perpetuo/domain/gateway/admit.py:1) 3\nb (x.py:1) 1\n")
    assert found == {"admit": 0.75, OTHER: 0.25}


def test_the_table_leaves_out_rows_of_nothing() -> None:
    """And says what all of it is."""
    text = table({"chat": {"admit": 12.4, "key": 0.3}, "stream": {"admit": 10.0}})
    assert "| admit | 12 | 10 |" in text
    assert "| key |" not in text
    assert text.endswith("| **in all** | **13** | **10** |")
