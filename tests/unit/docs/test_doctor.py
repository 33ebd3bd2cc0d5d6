"""Is every finding of `perpetuo doctor` documented as it is?"""

from perpetuo.entrypoints.doctor.findings import FINDINGS
from tests.unit.docs.pages import ROOT, anchors, table_rows

PAGE = (ROOT / "docs" / "doctor.md").read_text()


def test_every_finding_is_documented_as_it_is() -> None:
    """docs/doctor.md has each code with its level and what to do, in the order of the code."""
    rows = table_rows(PAGE, "The findings")
    documented = [(row[0].strip("`"), row[1], row[3]) for row in rows]
    assert documented == [(code, advice.level, advice.todo) for code, advice in FINDINGS.items()]
    assert [row[0] for row in rows if len(row[2]) < 10] == []


def test_a_finding_that_sends_to_the_page_names_a_heading_of_it() -> None:
    """``docs/doctor.md#…`` leads somewhere."""
    named = {word.partition("#")[2].rstrip(".") for a in FINDINGS.values() for word in a.todo.split() if "#" in word}
    assert named
    assert named <= anchors(PAGE)
