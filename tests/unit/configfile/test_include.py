"""Can each team have a file of its own, and is every mistake told in the file it is in?"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from perpetuo.adapters.configfile import ConfigError, load, load_sources, read_sources
from perpetuo.domain.model.settings import Settings
from tests.unit.configfile.samples import VALID

MAIN = f"{VALID}include: [tenants.d/*.yaml]\n"
TEAM = """\
plans:
  - {id: small, limits: {budgetDay: 1}}
tenants:
  - {id: team-a, plan: small, apiKeys: [sk-team-a-one]}
"""


class Files:
    """A configuration of several files in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.main = directory / "c.yaml"
        (directory / "tenants.d").mkdir()
        self.write(MAIN)

    def write(self, text: str, name: str = "c.yaml") -> Path:
        path = self.main.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def load(self) -> Settings:
        return load(self.main, {"TEAM_KEY": "sk-from-the-environment"})

    def problems(self) -> list[str]:
        """What is wrong, file names relative to the directory."""
        try:
            self.load()
        except ConfigError as error:
            return [str(problem).replace(f"{self.main.parent}/", "") for problem in error.problems]
        return []


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_included_files_are_joined_in_the_order_of_their_names(files: Files) -> None:
    """All four lists may stand in any file, and parts of one file may use names of another."""
    files.write(TEAM, "tenants.d/b.yaml")
    files.write(
        "providers:\n  - {id: more, kind: demo}\nmodels:\n  - {name: m, targets: [{provider: more, model: m}]}\n"
        "tenants:\n  - {id: team-b, plan: small, apiKeys: ['${TEAM_KEY}']}\n",
        "tenants.d/a.yaml",
    )
    found = files.load()
    assert list(found.tenants) == ["acme", "team-b", "team-a"]
    assert found.tenants["team-b"].limits == found.tenants["team-a"].limits
    assert list(found.providers) == ["demo", "openai", "more"]
    assert "m" in found.models.by_name


def test_patterns_that_match_nothing_or_comments_alone_are_fine(files: Files) -> None:
    """A team that has not written anything yet stops nobody; `perpetuo check` mentions it."""
    assert files.problems() == []
    assert read_sources(files.main, {}).unmatched == ["tenants.d/*.yaml"]
    files.write("# nothing yet\n", "tenants.d/a.yaml")
    assert files.problems() == []
    assert read_sources(files.main, {}).unmatched == []


def test_a_tenant_in_two_files_names_both(files: Files) -> None:
    """With line and column of each; so does a key that two teams use."""
    files.write(TEAM, "tenants.d/a.yaml")
    files.write("tenants:\n  - {id: team-a, plan: pro, apiKeys: [sk-acme-one]}\n", "tenants.d/b.yaml")
    assert files.problems() == [
        "tenants.d/b.yaml:2:10: tenants[0].id: team-a is already the id of tenants[0] in tenants.d/a.yaml:4:5",
        "tenants.d/b.yaml:2:39: tenants[0].apiKeys[0]: the same key as tenants[0].apiKeys[0] in c.yaml:10:37: "
        "a key has one holder",
    ]


MISTAKES = [
    (
        "tenants: [{id: t, plan: prow}]",
        "1:25: tenants[0].plan: prow is no plan (did you mean pro?); there are: pro, small",
    ),
    ("tenants: [{id: t, pln: pro}]", "1:19: tenants[0].pln: unknown key (did you mean plan?); known here: "),
    ("tenants: [{id: t, plan: pro, apiKeys: ['${NO_KEY}']}]", "1:40: tenants[0].apiKeys[0]: NO_KEY is not set"),
    ("tenants: [", "2:1: no YAML: "),
    ("tenants: 5", "1:10: tenants: has to be a list"),
    ("[]", "1:1: an included file is a mapping with providers, models, plans, tenants"),
    (
        "admin: {keys: []}",
        "1:1: admin: may only stand in c.yaml; included files hold providers, models, plans, tenants",
    ),
    ("include: [x.yaml]", "1:1: include: an included file can't include others: name them in c.yaml"),
    ("tenant: []", "1:1: tenant: unknown key (did you mean tenants?); an included file holds providers, "),
    ("plans: [{id: x, limits: {budgetDay: -1}}]", "1:37: plans[0].limits.budgetDay: -1 is not allowed: "),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES, ids=[text[:24] for text, _ in MISTAKES])
def test_a_mistake_is_told_in_its_file(files: Files, text: str, told: str) -> None:
    """Line, column and path are those of the included file, also when files before it have as many items."""
    files.write(TEAM, "tenants.d/a.yaml")
    files.write(f"{text}\n", "tenants.d/b.yaml")
    (problem,) = files.problems()
    assert problem.startswith(f"tenants.d/b.yaml:{told}"), problem


INCLUDES = [
    ("[../other.yaml]", "../other.yaml is not allowed: a path beside or below this file"),
    ("[/etc/passwd]", "/etc/passwd is not allowed: a path beside or below this file"),
    ("['']", '"" is not allowed: a path beside or below this file'),
    ("[[a]]", "a list is not allowed: a path beside or below this file"),
    ("a.yaml", "a.yaml is not allowed: a list"),
    ("[absent.yaml]", "absent.yaml is included, and there is no such file"),
    ("[tenant.d/*.yaml]", "tenant.d/*.yaml leads nowhere: there is no directory "),
]


@pytest.mark.parametrize(("written", "told"), INCLUDES, ids=[written for written, _ in INCLUDES])
def test_an_include_that_leads_nowhere_or_outside_is_an_error(files: Files, written: str, told: str) -> None:
    """A directory that is away is one too: a lost mount must not take a hundred tenants with it."""
    files.write(f"{VALID}include: {written}\n")
    (problem,) = files.problems()
    assert problem.startswith("c.yaml:11:")
    assert told in problem.replace(f"{files.main.parent}/", "")


def test_a_file_is_read_once_and_never_includes_itself(files: Files) -> None:
    """However many patterns name it."""
    files.write(f"{VALID}include: ['*.yaml', 'tenants.d/*.yaml', tenants.d/a.yaml, '**/*.yaml']\n")
    files.write(TEAM, "tenants.d/a.yaml")
    assert list(files.load().tenants) == ["acme", "team-a"]


def test_the_version_covers_every_file(files: Files) -> None:
    """It changes with each of them and with their names, and of one file alone it is what it was before."""
    versions = [load_sources(read_sources(files.main, {})).version]
    for text, name in ((TEAM, "tenants.d/a.yaml"), (f"{TEAM} ", "tenants.d/a.yaml"), ("", "tenants.d/b.yaml")):
        files.write(text, name)
        versions.append(load_sources(read_sources(files.main, {})).version)
    assert len(set(versions)) == 4


@profile(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.data())
def test_every_item_is_found_in_its_file(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    """Whatever the files hold, an item's path in the whole leads back to its file and place there."""
    files = Files(tmp_path_factory.mktemp("include"))
    for n, size in enumerate(sizes):
        items = "".join(f"  - {{id: t-{n}-{i}, plan: pro}}\n" for i in range(size))
        files.write(f"tenants:{' []' if not size else ''}\n{items}", f"tenants.d/{n}.yaml")
    sources = read_sources(files.main, {})
    ids = [tenant["id"] for tenant in sources.root["tenants"]]
    assert ids == ["acme", *(f"t-{n}-{i}" for n, size in enumerate(sizes) for i in range(size))]
    at = data.draw(st.integers(0, len(ids) - 1))
    number, path = sources.locate(("tenants", at, "id"))
    assert sources.files[number].document.at(path) == ids[at]
    assert sources.files[number].whole_path(path) == ("tenants", at, "id")
