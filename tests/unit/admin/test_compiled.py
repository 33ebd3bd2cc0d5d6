"""Is a template compiled once, and is what was kept never worse than compiling anew?"""

import sys
from pathlib import Path

import pytest
from jinja2 import Environment

from perpetuo.entrypoints.http.admin.rendering import environment

NAME = "hello.html"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates that were compiled, by whatever environment; as in a process that may write."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    names: list[str] = []
    compile_it = Environment._compile

    def counted(self: Environment, source: str, filename: str) -> object:
        names.append(Path(filename).name)
        return compile_it(self, source, filename)

    monkeypatch.setattr(Environment, "_compile", counted)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / NAME).write_text("Hello {{ name }}.")
    return tmp_path


def shown(folder: Path) -> str:
    """What a new worker makes of the template."""
    return environment(folder).get_template(NAME).render(name="<you>")


def kept(folder: Path) -> list[Path]:
    return [*folder.glob("__pycache__/*")]


def test_what_one_worker_has_compiled_the_next_one_reads(folder: Path, compiled: list[str]) -> None:
    """One file a template, in whose place a later one comes."""
    assert [shown(folder) for _ in range(3)] == ["Hello &lt;you&gt;."] * 3
    assert compiled == [NAME]
    (folder / NAME).write_text("Good day {{ name }}.")
    assert [shown(folder) for _ in range(2)] == ["Good day &lt;you&gt;."] * 2
    assert compiled == [NAME] * 2
    assert len(kept(folder)) == 1


@pytest.mark.parametrize("broken", [0, 5, 20, 40, 80])
def test_what_can_not_be_read_is_compiled_anew(folder: Path, compiled: list[str], broken: int) -> None:
    """A file that was cut off, or holds something else from there on."""
    shown(folder)
    (path,) = kept(folder)
    whole = path.read_bytes()
    for text in (whole[:broken], whole[:broken] + b"\xff" * 40):
        path.write_bytes(text)
        assert shown(folder) == "Hello &lt;you&gt;."
        assert path.read_bytes() == whole


def test_where_python_writes_nothing_nothing_is_written(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is there is read."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    shown(folder)
    assert kept(folder) == []
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    shown(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    shown(folder)
    assert compiled == [NAME] * 2


def test_a_directory_that_can_not_be_written_costs_nothing_else(folder: Path, compiled: list[str]) -> None:
    """A file in its place; the superuser, as whom tests may run, can write everywhere else."""
    (folder / "__pycache__").write_text("in the way")
    assert [shown(folder) for _ in range(2)] == ["Hello &lt;you&gt;."] * 2
    assert compiled == [NAME] * 2
