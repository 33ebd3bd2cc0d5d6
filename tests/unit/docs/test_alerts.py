"""Alerts, their page, the dashboard and the gateway's metrics speak of the same things."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from perpetuo.adapters.telemetry.metrics import METRICS, Kind
from scripts.monitoring.__main__ import DASHBOARD, RULES, files
from scripts.monitoring.alerts import ALERTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "alerts.md").read_text()
SECTIONS = dict(zip(*[iter(re.split(r"^## (Perpetuo\w+)$", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))
NAMES = {
    series
    for metric in METRICS
    for series in ([f"{metric.name}_bucket"] if metric.kind is Kind.HISTOGRAM else [metric.name])
}


def queries() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def promtool(*arguments: str) -> str:
    if shutil.which("promtool") is None:
        text = "no promtool on the PATH (Debian: apt install prometheus)"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_files_are_what_the_code_says() -> None:
    """`make monitoring` would change nothing."""
    for path, text in files().items():
        assert path.read_text() == text, f"{path.name}: run `make monitoring`"


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    """In the same order, its severity first. The first thing to do is the same, and stands before them all too."""
    assert list(SECTIONS) == [alert.name for alert in ALERTS]
    for alert in ALERTS:
        text = SECTIONS[alert.name]
        assert text.lstrip().startswith(f"**{alert.severity}.**"), alert.name
        assert "\n1. `perpetuo doctor" in text, alert.name
    assert "perpetuo doctor" in PAGE[: PAGE.index("## Perpetuo")]


def test_the_link_of_an_alert_leads_to_its_section() -> None:
    """Anchors are headings in small letters."""
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("text", [*(alert.expr for alert in ALERTS), *queries()])
def test_a_query_names_only_metrics_that_exist(text: str) -> None:
    """A renamed metric would be a panel without a line, an alert that never rings."""
    assert set(re.findall(r"perpetuo_\w+", text)) <= NAMES


def test_each_alert_is_tried_on_made_up_series() -> None:
    """None is shipped that nobody has seen ring."""
    tried = (ROOT / "deploy" / "prometheus" / "perpetuo.test.yaml").read_text()
    assert [alert.name for alert in ALERTS if alert.name not in tried] == []


def test_promtool_takes_the_rules_and_they_ring_when_they_should() -> None:
    """The tests of the rules lie beside them."""
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(RULES.with_name("perpetuo.test.yaml")))


def test_promtool_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """Each as the expression of a rule; Grafana's own interval stands for five minutes."""
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(queries())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_panels_lie_side_by_side() -> None:
    """No two of them cover the same place."""
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & taken, panel["title"]
        assert max(x for x, _ in places) < 24
        taken |= places
