"""What a worker goes by that starts while the files are broken."""

import stat
from pathlib import Path

from perpetuo.adapters.configfile.kept import NAME, keep, last_kept
from perpetuo.adapters.configfile.load import load_sources
from perpetuo.adapters.configfile.sources import read_sources

MAIN = """
providers: [{id: demo, kind: openai, baseUrl: "http://127.0.0.1:9", apiKey: "${UP}"}]
models: [{name: m, targets: [{provider: demo, model: m}]}]
plans: [{id: pro, limits: {budgetDay: unlimited}}]
tenants: []
include: ["teams/*.yaml"]
"""


def test_what_was_right_comes_back_with_all_its_files(tmp_path: Path) -> None:
    """Included ones too; the same version, and the broken files as what was read last."""
    run, path = tmp_path / "run", tmp_path / "perpetuo.config.yaml"
    run.mkdir()
    (tmp_path / "teams").mkdir()
    team = tmp_path / "teams" / "a.yaml"
    path.write_text(MAIN)
    team.write_text("tenants: [{id: a, plan: pro, apiKeys: [sk-a-0123456789]}]\n")
    right = read_sources(path, {"UP": "sk-secret"})
    assert last_kept(run, right.seen, {}) is None
    keep(run, right)
    team.write_text("tenants: [{id: a, plan: gone}]\n")
    broken = read_sources(path, {"UP": "sk-secret"})
    kept = last_kept(run, broken.seen, {"UP": "sk-secret"})
    assert kept is not None
    assert kept.version == right.version
    assert kept.seen == broken.seen
    assert load_sources(kept) == load_sources(right)


def test_s3_no_secret_of_the_environment_is_written_down(tmp_path: Path) -> None:
    """Texts are kept as they were written, where only this user can read them."""
    path = tmp_path / "perpetuo.config.yaml"
    path.write_text(MAIN.replace("include", "# include"))
    keep(tmp_path, read_sources(path, {"UP": "sk-secret"}))
    assert "sk-secret" not in (tmp_path / NAME).read_text()
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    keep(None, read_sources(path, {}))
    assert last_kept(None, read_sources(path, {}).seen, {}) is None


def test_a_copy_that_cannot_be_written_is_in_nobodys_way(tmp_path: Path) -> None:
    """The run directory is gone: a right configuration is taken over all the same."""
    path = tmp_path / "perpetuo.config.yaml"
    path.write_text(MAIN.replace("include", "# include"))
    sources = read_sources(path, {"UP": "sk-secret"})
    keep(tmp_path / "gone", sources)
    assert last_kept(tmp_path / "gone", sources.seen, {}) is None
