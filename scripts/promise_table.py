"""
Which tests prove which promise, and at which level?

Rewrites the parts of ``docs/promises.md`` between markers: the table of promises and their tests, and the list of what
is not proved yet. A test belongs to a promise by its name: ``test_r1_…`` to R1, ``test_r1_b3_…`` to both. A
test fails when the page is not what this script would write.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "promises.md"
PROMISE = re.compile(r"^- \*\*([A-Z]\d{1,2})\*\* (.+)$", re.MULTILINE)
NAMED = re.compile(r"test_((?:[a-z]\d{1,2}_)+)")
TABLE = ("<!-- table: written by scripts/promise_table.py -->\n", "<!-- end of table -->\n")
OPEN = ("<!-- open: written by scripts/promise_table.py -->\n", "<!-- end of open -->\n")

CLUSTER = "cluster"
LEVELS = {
    "tests/unit/": "unit",
    "tests/contract/": "contract",
    "tests/integration/cluster/": CLUSTER,
    "tests/integration/": "servers",
}
"""By where a test stands; the first prefix that fits counts."""

NEED_CLUSTER = ("R1", "R4", "B1", "B2", "B3", "B4", "B5", "I5", "I7", "C1", "C3", "C4", "A1", "O5")
"""Promises that one process can't prove: they need two gateways with two workers each over one Redis."""


@attrs.frozen
class Test:
    """One test function and the promises in its name."""

    __test__ = False

    name: str
    file: str
    promises: tuple[str, ...]

    @property
    def level(self) -> str:
        return next(level for prefix, level in LEVELS.items() if self.file.startswith(prefix))


def main() -> None:
    PAGE.write_text(rewritten(PAGE.read_text(), collect()))
    print(f"wrote {PAGE.relative_to(ROOT)}")


def collect(root: Path = ROOT) -> list[Test]:
    """Every test function that names a promise, in the order of files and lines."""
    files = sorted((root / "tests").rglob("*.py"))
    return [test for file in files for test in _tests(file.read_text(), file.relative_to(root).as_posix())]


def _tests(source: str, file: str) -> Iterator[Test]:
    functions = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    for function in sorted(functions, key=lambda node: node.lineno):
        if named := promises_in(function.name):
            yield Test(function.name, file, named)


def promises_in(name: str) -> tuple[str, ...]:
    """The promises in the name of a test function."""
    named = NAMED.match(name)
    return tuple(named[1].upper().strip("_").split("_")) if named else ()


def promises(page: str) -> dict[str, str]:
    """The promises of the page: number to text."""
    return dict(PROMISE.findall(page))


def rewritten(page: str, tests: Sequence[Test]) -> str:
    known = promises(page)
    by_promise = {number: [test for test in tests if number in test.promises] for number in known}
    return _between(_between(page, TABLE, _table(by_promise)), OPEN, _open(by_promise))


def _between(page: str, markers: tuple[str, str], lines: Iterable[str]) -> str:
    head, _, rest = page.partition(markers[0])
    _, _, tail = rest.partition(markers[1])
    return head + markers[0] + "\n".join(["", *lines, ""]) + "\n" + markers[1] + tail


def _table(by_promise: Mapping[str, Sequence[Test]]) -> Iterator[str]:
    yield "| Promise | Proved at | Tests |\n|---|---|---|"
    for number, tests in by_promise.items():
        if tests:
            yield f"| {number} | {', '.join(levels(tests))} | {'<br>'.join(_by_file(tests))} |"


def levels(tests: Sequence[Test]) -> list[str]:
    found = {test.level for test in tests}
    return [level for level in ("unit", "contract", "servers", CLUSTER) if level in found]


def _by_file(tests: Sequence[Test]) -> Iterator[str]:
    for file in dict.fromkeys(test.file for test in tests):
        names = ", ".join(f"`{test.name}`" for test in tests if test.file == file)
        yield f"[{file.removeprefix('tests/')}](../{file}): {names}"


def _open(by_promise: Mapping[str, Sequence[Test]]) -> Iterator[str]:
    without = [number for number, tests in by_promise.items() if not tests]
    lower = [n for n in NEED_CLUSTER if by_promise.get(n) and CLUSTER not in levels(by_promise[n])]
    yield f"- No test of that name: {', '.join(without) or 'none'}."
    yield f"- Not proved yet with two gateways and two workers each, only below that: {', '.join(lower) or 'none'}."


if __name__ == "__main__":
    main()
