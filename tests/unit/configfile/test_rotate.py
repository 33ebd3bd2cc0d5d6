"""Does a rotation change the two places it should, and nothing else?"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.configfile.load import load
from perpetuo.adapters.configfile.problems import ConfigError
from perpetuo.adapters.configfile.rotate import NotRotatedError, Rotation, rotate

DAY_US = 86_400_000_000
NOW_US = 1_795_694_400_000_000  # 2026-11-26 12:00 UTC
NEW_KEY = "sk-the-new-key-0123456789"
HEAD = """\
# ä: a comment that stays
providers: [{id: demo, kind: demo}]
models: [{name: m, free: true, targets: [{provider: demo, model: m}]}]
plans: [{id: pro, limits: {budgetDay: 1}}]
"""
DIGESTS = [f"sha256:{n:064x}" for n in range(1, 9)]


def write(directory: str | Path, text: str, name: str = "perpetuo.config.yaml") -> Path:
    path = Path(directory) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return path


def turned(path: Path, tenant: str = "acme", name: str = "key-1", grace_us: int = 7 * DAY_US) -> Rotation:
    variables = {"KEY_OF_ACME": "sk-from-the-environment-0123"}
    return rotate(path, variables, tenant, name, NEW_KEY, now_us=NOW_US, grace_us=grace_us)


# --- every way to write a list of keys -----------------------------------------------------------

SCALARS = st.sampled_from(["sk-plain-{n}-0123456789", '"sk-quoted-{n}-0123456789"', "'{digest}'", '"{digest}"'])
FLOWS = st.sampled_from(
    [
        "{{hash: '{digest}'}}",
        '{{hash: "{digest}", name: named-{n} }}',
        "{{hash: '{digest}', models: [\"gpt-*\", m], limits: {{budgetDay: 0.5}}}}",
        "{{hash: '{digest}', expires: 2027-06-01, name: old-{n}}}",
    ]
)
BLOCKS = st.sampled_from(
    [
        "hash: '{digest}'",
        "hash: '{digest}' # its hash\n{pad}name: block-{n}   # its name",
        "name: long-{n}\n{pad}limits:\n{pad}  rateLimitMin: 5\n{pad}  budgetDay: 0.25\n{pad}hash: '{digest}'",
        "hash: '{digest}'\n{pad}models:\n{pad}- m\n{pad}expires: 2027-06-01T00:00:00Z",
    ]
)


def key_list(entries: Sequence[tuple[str, str]], *, flow: bool, indent: int, comments: bool) -> str:
    """``apiKeys`` as somebody might write them, below a tenant that is indented by four."""
    filled = [text.format(n=n, digest=DIGESTS[n], pad=" " * (indent + 2)) for n, (_, text) in enumerate(entries)]
    if flow:
        return f"    apiKeys: [{', '.join(filled)}]" + ("  # all of them" if comments else "")
    lines = [f"{' ' * indent}- {entry}" + ("  # one of them" if comments else "") for entry in filled]
    return "    apiKeys:\n" + ("      # a note\n" if comments else "") + "\n".join(lines)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, int]:
    """A configuration, and which key of ``acme`` is to be rotated."""
    flow = draw(st.booleans())
    kinds = SCALARS | FLOWS if flow else SCALARS | FLOWS | BLOCKS
    entries = [("", draw(kinds)) for _ in range(draw(st.integers(1, 4)))]
    keys = key_list(entries, flow=flow, indent=draw(st.sampled_from([4, 6])), comments=draw(st.booleans()))
    after = draw(
        st.sampled_from(["", "\n", "\n    timeZone: UTC\n", "\n\n  # the other\n  - {id: other, plan: pro}\n"])
    )
    text = f"{HEAD}tenants:\n  - id: acme\n    plan: pro\n{keys}{after}"
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return draw(st.sampled_from(["", "\ufeff"])) + text, draw(st.integers(0, len(entries) - 1))


@settings(deadline=None, max_examples=60)
@given(files())
def test_a_rotation_changes_this_key_and_adds_one_however_it_is_written(made: tuple[str, int]) -> None:
    """Both keys are in what comes out, the old one with its end; every other line is as it was."""
    text, place = made
    with TemporaryDirectory() as directory:
        path = write(directory, text)
        before = load(path, {}).tenants["acme"].keys
        old = before[place]
        done = turned(path, name=old.name)
        write(directory, done.text)
        after = load(path, {}).tenants["acme"].keys
        assert [key.name for key in after] == [*(key.name for key in before), done.name]
        assert [key.digest for key in after[:-1]] == [key.digest for key in before]
        assert after[place].expires_us == NOW_US + 7 * DAY_US
        assert (after[-1].expires_us, after[-1].models, after[-1].limits) == (None, old.models, old.limits)
        lines, found = text.removeprefix("\ufeff").splitlines(), done.text.splitlines()
        assert len([line for line in lines if line not in found]) <= 1
        assert done.text.count("#") == text.count("#")
        assert NEW_KEY not in done.text


def test_the_lines_to_paste_are_what_the_file_would_hold(tmp_path: Path) -> None:
    """By hash, with the old name, and where to put it."""
    path = write(tmp_path, HEAD + "tenants:\n  - {id: acme, plan: pro, apiKeys: ['${KEY_OF_ACME}']}\n")
    done = turned(path)
    assert done.line == 6
    assert done.old in done.text
    assert done.new in done.text
    assert done.old.startswith('{hash: "sha256:')
    assert done.old.endswith('name: "key-1", expires: "2026-12-03T12:00:00Z"}')
    assert done.name == "key-1-2026-11"
    assert "sk-from" not in done.text


def test_a_name_carries_one_month_however_often_it_is_rotated(tmp_path: Path) -> None:
    """And a number when there is such a key already."""
    keys = f"[{{hash: '{DIGESTS[0]}', name: web-2026-08}}, {{hash: '{DIGESTS[1]}', name: web-2026-11}}]"
    path = write(tmp_path, HEAD + f"tenants:\n  - {{id: acme, plan: pro, apiKeys: {keys}}}\n")
    assert turned(path, name="web-2026-08").name == "web-2026-11-2"


def test_a_tenant_of_an_included_file_is_found_there(tmp_path: Path) -> None:
    """The main file is left alone."""
    path = write(tmp_path, HEAD + "tenants: [{id: other, plan: pro}]\ninclude: [teams/*.yaml]\n")
    team = write(
        tmp_path, "tenants:\n  - id: acme\n    plan: pro\n    apiKeys:\n    - 'sk-of-the-team-01234'\n", "teams/a.yaml"
    )
    done = turned(path)
    assert done.file == team
    team.write_bytes(done.text.encode())
    assert [key.name for key in load(path, {}).tenants["acme"].keys] == ["key-1", "key-1-2026-11"]


def test_what_can_not_be_rotated_is_said(tmp_path: Path) -> None:
    """No such tenant, no such key, a key that ends sooner, a file that is not valid."""
    keys = f"[{{hash: '{DIGESTS[0]}', name: web, expires: 2026-11-27}}]"
    path = write(tmp_path, HEAD + f"tenants:\n  - {{id: acme, plan: pro, apiKeys: {keys}}}\n")
    with pytest.raises(NotRotatedError, match="no tenant nobody"):
        turned(path, "nobody")
    with pytest.raises(NotRotatedError, match=r"has no key batch\. It has: web"):
        turned(path, name="batch")
    with pytest.raises(NotRotatedError, match="already ends at 2026-11-27T00:00:00Z"):
        turned(path, name="web")
    with pytest.raises(ConfigError):
        turned(write(tmp_path, "providers: 5\n"))
