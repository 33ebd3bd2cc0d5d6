"""Does what the documentation names exist?"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from perpetuo.entrypoints.commands.group import COMMANDS
from tests.unit.docs.pages import ROOT, anchors, name, pages, prose, shell_lines, spans

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FUNCTION = re.compile(r"(perpetuo/[\w/]+\.py):([A-Za-z_][\w.]*)")
FILE = re.compile(r"(?:perpetuo|tests|scripts|docs|alembic|migrations)/[\w./*-]*")
PERPETUO = re.compile(r"(?<![\w./@:-])perpetuo ([a-z]+)(?: ([a-z]+))?")
MAKE = re.compile(r"(?<![\w-])make ([a-z-]+)")
SUBCOMMANDS = {"keys": {"new", "hash", "rotate"}}

every_page = pytest.mark.parametrize("page", pages(), ids=name)


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Files are there, and so are the headings within them."""
    missing = []
    for link in LINK.findall(prose(page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            missing.append(link)
    assert not missing


@every_page
def test_commands_exist(page: Path) -> None:
    """`perpetuo …` and `make …` in code are commands that can be typed."""
    text = page.read_text()
    code = [*shell_lines(text), *spans(text)]
    wrong = []
    for line in code:
        for command, following in PERPETUO.findall(line):
            if command not in COMMANDS or (command in SUBCOMMANDS and following not in SUBCOMMANDS[command]):
                wrong.append(f"perpetuo {command} {following}")
        wrong += [f"make {target}" for target in MAKE.findall(line) if target not in _targets()]
    assert not wrong


@every_page
def test_files_named_in_code_exist(page: Path) -> None:
    """A path in code is a path of this repository."""
    named = [span for span in spans(page.read_text()) if FILE.fullmatch(span.partition(":")[0])]
    missing = [span for span in named if not list(ROOT.glob(span.partition(":")[0].rstrip("/")))]
    assert not missing


@every_page
def test_functions_named_in_code_exist(page: Path) -> None:
    """``file:function`` leads to a function, method or class."""
    named = [match.groups() for span in spans(page.read_text()) if (match := FUNCTION.fullmatch(span))]
    missing = [f"{file}:{function}" for file, function in named if function not in _definitions(file)]
    assert not missing


def test_the_life_of_a_request_names_functions() -> None:
    """The page that follows a call is checked by the test above: it really uses that notation."""
    text = (ROOT / "docs" / "life-of-a-request.md").read_text()
    assert len([span for span in spans(text) if FUNCTION.fullmatch(span)]) > 30


@pytest.mark.parametrize("folder", ["model", "policy", "gateway"])
def test_the_architecture_names_every_module_of_the_domain(folder: str) -> None:
    """The layout says which words, decisions and use cases there are: all of them, and no others."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    layout = re.search(rf"^    {folder}/ .*?: (.*?)(?=^    \w|^  \w)", page, re.MULTILINE | re.DOTALL)
    assert layout is not None
    modules = {path.stem for path in (ROOT / "perpetuo" / "domain" / folder).glob("*.py")} - {"__init__"}
    assert set(re.findall(r"\w+", layout[1])) == modules


@cache
def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*)(?: [a-z -]+)?:", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def _definitions(file: str) -> set[str]:
    """Names of a module's functions and classes, methods as ``Class.method``."""
    path = ROOT / file
    if not path.exists():
        return set()
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found
