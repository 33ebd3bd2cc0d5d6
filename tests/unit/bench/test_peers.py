"""Are the other gateways at the versions that are named, and is one that is missing only left out?"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from bench import peers
from bench.cases import CASES
from bench.subjects import Provider
from bench.upstream import MissingToolError


@pytest.mark.parametrize("start", peers.PEERS)
def test_a_peer_that_is_not_installed_is_left_out(
    start: Callable[[ExitStack, Provider], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sentence that says what to do; nothing is started."""
    for name in ("LITELLM", "PORTKEY"):
        monkeypatch.setattr(peers, name, peers.PLACE / "nowhere" / name)
    with (
        ExitStack() as stack,
        pytest.raises(MissingToolError, match=r"is left out: .* is not there \(make bench-peers\)"),
    ):
        start(stack, Provider(1, 2))


def test_locks_hold_the_versions_that_are_asked_for() -> None:
    """In both ecosystems."""
    asked = (peers.HERE / "litellm" / "requirements.in").read_text()
    (litellm,) = [line.partition("==")[2] for line in asked.splitlines() if line.startswith("litellm[")]
    assert f"\nlitellm=={litellm} " in (peers.HERE / "litellm" / "requirements.txt").read_text()
    package = json.loads((peers.HERE / "portkey" / "package.json").read_text())
    locked = json.loads((peers.HERE / "portkey" / "package-lock.json").read_text())["packages"]
    for name, version in {**package["dependencies"], **package["overrides"]}.items():
        assert locked[f"node_modules/{name}"]["version"] == version


@pytest.mark.parametrize("name", ["plain.yaml", "limits.yaml"])
def test_a_peer_knows_the_models_of_its_cases(name: str) -> None:
    """With a price each, as ours has."""
    config = yaml.safe_load(Path(peers.HERE, "litellm", name).read_text())
    models = {model["model_name"]: model["model_info"] for model in config["model_list"]}
    for case in peers.CASES:
        assert models[json.loads(CASES[case].body)["model"]]["input_cost_per_token"] == 0.5e-6
