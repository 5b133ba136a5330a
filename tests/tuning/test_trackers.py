"""Figures go to trackers too; none of them changes a bit, and none that is missing or fails ends a run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import multitune
from multitune.core import catalog
from multitune.core.errors import PluginError, RecipeError, TrackerError
from multitune.core.recipe import make_recipe
from multitune.core.result import Result
from tests.line.lines import bits, recipe

pytestmark = pytest.mark.line
SMALL = {"name": "chimes", "rows": 60, "seed": 3, "domain": "target", "valid": 0.15, "test": 0.25}


def asked(*trackers: Any) -> dict[str, Any]:
    made = recipe("classifies")
    made["data"]["source"] = SMALL
    made["model"] = {"name": "fusion_encoder", "towers": {"image": "tiny/image"}}
    made["data"]["parts"] = {"image": "image", "pairing": "category"}
    made["strategy"] = {"name": "partial", "blocks": 0}
    made["train"] |= {"steps": 4, "micro_batch": 16, "workers": 0} | ({"trackers": list(trackers)} if trackers else {})
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    multitune.train(asked(), run=folder)
    return folder


def told(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "events.jsonl").read_text("utf-8").splitlines()[1:]:
        event = json.loads(line)
        found.setdefault(event["name"], []).append((event["step"], event["value"]))
    return found


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {name: [(point.step, point.value) for point in read.Scalars(name)] for name in read.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore")  # TensorBoard's own
def test_tensorboard_has_the_curves_of_the_events_and_the_run_its_bits(plain: Path, tmp_path: Path) -> None:
    result = multitune.train(asked("tensorboard"), run=tmp_path / "run")
    written, events = curves(tmp_path / "run" / "trackers" / "tensorboard"), told(tmp_path / "run")
    assert set(written) == set(events)
    assert written["train/loss"] == [(step, pytest.approx(value)) for step, value in events["train/loss"]]
    assert bits(tmp_path / "run") == bits(plain)
    assert not [finding for finding in result.findings if finding.code.startswith("tracker")]


class Kept:
    """A tracker in memory that refuses what comes after some steps."""

    def __init__(self, until: int) -> None:
        self.where, self.values, self.until = "memory", list[tuple[int, Mapping[str, float]]](), until

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        if step > self.until:
            raise TrackerError("full")
        self.values.append((step, values))

    def close(self) -> None:
        self.values.append((-1, {}))


@pytest.fixture
def memory() -> Iterator[dict[str, Kept]]:
    """Two trackers: `kept` takes everything, `brief` two steps; `absent` has a package that is nowhere."""
    made = {"kept": Kept(100), "brief": Kept(2)}

    def absent(options: Any, **_: Any) -> Any:
        raise ImportError("no module")

    for name, tracker in made.items():
        catalog.register("tracker", name, SimpleNamespace(__doc__="x.", Options=catalog.Options, build=lambda _, t=tracker, **__: t))
    module = SimpleNamespace(__doc__="x.", Options=catalog.Options, build=absent, PACKAGE="no_such_package_anywhere")
    catalog.register("tracker", "absent", module)
    yield made
    for name in ("kept", "brief", "absent"):
        del catalog._registered["tracker", name]  # pyright: ignore[reportPrivateUsage]


def findings(result: Result) -> list[str]:
    return [finding.code for finding in result.findings if finding.code.startswith("tracker")]


def test_a_tracker_that_fails_or_is_not_installed_is_told_and_the_run_and_the_others_go_on(
    memory: dict[str, Kept], plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = multitune.train(asked("brief", "absent", "kept"), run=tmp_path / "run")
    assert findings(result) == ["tracker-not-installed", "tracker-lost"]
    assert max(step for step, _ in memory["brief"].values) == 2
    assert [step for step, values in memory["kept"].values if "train/loss" in values] == [1, 2, 3, 4]
    assert memory["kept"].values[-1][0] == -1
    assert bits(tmp_path / "run") == bits(plain)


def test_a_server_that_does_not_answer_is_told_at_the_start_and_the_run_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = multitune.train(asked({"name": "mlflow", "uri": "http://127.0.0.1:9"}), run=tmp_path / "run")
    assert result.figures["steps"] == 4
    (finding,) = [finding for finding in result.findings if finding.code == "tracker-lost" or finding.code == "tracker-not-installed"]
    if finding.code == "tracker-lost":
        assert "127.0.0.1:9 cannot be reached" in finding.message


@pytest.mark.parametrize(
    ("trackers", "error", "said"),
    [
        (("tensorbord",), PluginError, 'Did you mean "tensorboard"'),
        (({"name": "wandb", "projekt": "x"},), PluginError, 'Did you mean "project"'),
        (("tensorboard", "tensorboard"), RecipeError, "named twice"),
    ],
)
def test_a_mistake_is_named_by_the_plan(trackers: tuple[Any, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        multitune.plan(asked(*trackers))


def test_trackers_are_no_part_of_the_request() -> None:
    assert make_recipe(asked("tensorboard")).request_hash() == make_recipe(asked()).request_hash()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_an_offline_run_in_the_runs_folder(plain: Path, tmp_path: Path) -> None:
    result = multitune.train(asked("wandb"), run=tmp_path / "run")
    assert findings(result) == []
    assert list((tmp_path / "run" / "trackers" / "wandb").rglob("run-*.wandb"))
    assert bits(tmp_path / "run") == bits(plain)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_files_and_a_second_start_goes_on_in_the_same_run(plain: Path, tmp_path: Path) -> None:
    result = multitune.train(asked("mlflow"), run=tmp_path / "run")
    assert findings(result) == []
    (losses,) = (tmp_path / "run" / "trackers" / "mlflow").rglob("metrics/train/loss")
    assert len(losses.read_text().splitlines()) == 4
    assert bits(tmp_path / "run") == bits(plain)
