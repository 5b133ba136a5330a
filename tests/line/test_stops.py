"""Killed, interrupted, run twice at once, run on two ranks: the real command in real processes, on each of the three shapes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from tests.line.lines import SHAPES, bits, recipe
from tests.line.test_bad_input import pictures
from tests.line.test_bad_input import recipe as bad_recipe

pytestmark = pytest.mark.line
# The shape that classifies here, the others among the slow proofs; in one process each shape is killed and resumed in tests/tuning.
ONE_HERE = ["classifies", *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES if shape != "classifies")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def written(folder: Path, shape: str, **changes: object) -> Path:
    path = folder / f"{shape}.yaml"
    with path.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(recipe(shape, **changes), stream)
    return path


def started(path: Path, run: Path, *more: str, session: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "multitune", "train", str(path), "--run", str(run), *more]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **piped, text=True, env=ENVIRONMENT, start_new_session=session)


def probed(*command: str) -> subprocess.CompletedProcess[str]:
    """A command that says on standard output whether torch was imported, and its exit code."""
    probe = (
        "import sys; from multitune.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print('torch' in sys.modules, end.code)"
    )
    return subprocess.run([sys.executable, "-c", probe, *command], capture_output=True, text=True, timeout=60, check=False)


def finished(path: Path, run: Path, *more: str) -> str:
    process = started(path, run, *more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.005)


@pytest.mark.parametrize("shape", ONE_HERE)
def test_killed_and_resumed_is_uninterrupted(shape: str, tmp_path: Path) -> None:
    path = written(tmp_path, shape)
    finished(path, tmp_path / "whole")
    process = started(path, tmp_path / "killed")
    wait_for(tmp_path / "killed" / "checkpoints" / "step-000002", process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "result.json").exists()
    finished(path, tmp_path / "killed")
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


@pytest.mark.slow
def test_a_picture_replaced_between_a_kill_and_the_resume_is_refused(tmp_path: Path) -> None:
    made = bad_recipe(pictures(tmp_path / "data"))
    made["train"] |= {"steps": 200, "evaluate_every": 200, "checkpoint_every": 1}
    (tmp_path / "pictures.yaml").write_text(json.dumps(made))
    run = tmp_path / "run"
    process = started(tmp_path / "pictures.yaml", run)
    wait_for(run / "checkpoints" / "step-000001", process)
    process.kill()
    process.communicate()
    (tmp_path / "data" / "5.png").write_bytes((tmp_path / "data" / "6.png").read_bytes())
    again = started(tmp_path / "pictures.yaml", run)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 2
    assert "the image of row r5" in err


NEGATIVE = '''"""Turn a picture into its negative."""
from multitune.core import catalog
KIND = "augmentation"
class Options(catalog.Options): ...
class Negative:
    modality = "image"
    def apply(self, value, generator):
        return 255 - value
def build(options):
    return Negative()
'''


@pytest.mark.slow
def test_verify_resume_kills_a_run_with_a_plugin_of_a_file_and_finds_the_same_bits(tmp_path: Path) -> None:
    made = recipe("classifies")
    made["data"]["parts"]["image"] = {"modality": "image", "augment": ["negative"]}
    train = {**made["train"], "steps": 12, "evaluate_every": 2, "checkpoint_every": 2}
    path = written(tmp_path, "classifies", data=made["data"], train=train)
    (tmp_path / "negative.py").write_text(NEGATIVE)
    command = [sys.executable, "-m", "multitune", "--plugin", str(tmp_path / "negative.py")]
    command += ["verify-resume", str(path), "--kills", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["figures"] == {"kills": 1.0, "equal": 1.0, "steps": 12.0}


@pytest.mark.parametrize(("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_a_checkpoint_and_the_same_command_goes_on(number: int, code: int, tmp_path: Path) -> None:
    path = written(tmp_path, "embeds", train={**recipe("embeds")["train"], "steps": 40, "evaluate_every": 40, "checkpoint_every": 40})
    run = tmp_path / "run"
    process = started(path, run)
    wait_for(run / "events.jsonl", process)
    while (run / "events.jsonl").read_bytes().count(b"train/loss") < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert "goes on" in err
    assert "Traceback" not in err
    assert len(list((run / "checkpoints").glob("step-*"))) == 1
    finished(path, run)
    assert (run / "result.json").is_file()


def test_a_second_run_in_the_folder_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    path = written(tmp_path, "embeds", train={**recipe("embeds")["train"], "steps": 500})
    first = started(path, tmp_path / "run")
    wait_for(tmp_path / "run" / "request.json", first)
    second = probed("train", str(path), "--run", str(tmp_path / "run"))
    first.kill()
    first.communicate()
    assert second.stdout.split() == ["False", "2"]
    assert "in use by another run" in second.stderr


def test_a_folder_that_takes_nothing_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = probed("train", str(written(tmp_path, "embeds")), "--run", str(tmp_path / "file" / "run"))
    assert refused.stdout.split() == ["False", "2"]
    assert "cannot be written (Not a directory)" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_no_worker_outlives_a_main_process_that_was_killed(tmp_path: Path) -> None:
    path = written(tmp_path, "classifies", train={**recipe("classifies")["train"], "steps": 5000, "workers": 2})
    process = started(path, tmp_path / "run", session=True)
    wait_for(tmp_path / "run" / "checkpoints" / "step-000002", process)
    assert len(of_session(process.pid)) >= 3
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while of_session(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not of_session(process.pid)


def of_session(leader: int) -> list[int]:
    """The processes of a session that run."""
    found: list[int] = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = place.read_text("utf-8").rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(place.parent.name))
    return found


@pytest.mark.slow  # in the quick tests tests/tuning/test_ranks.py and tests/line/test_ranks.py train on two
@pytest.mark.parametrize("shape", SHAPES)
def test_two_ranks_are_one(shape: str, tmp_path: Path) -> None:
    path = written(tmp_path, shape)
    one, two = tmp_path / "one", tmp_path / "two"
    finished(path, one)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "multitune",
        "--",
        "train",
        str(path),
    ]
    ended = subprocess.run([*command, "--run", str(two)], capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for file in sorted((one / "artifact").rglob("*.safetensors")):
        mine, theirs = load_file(file), load_file(two / "artifact" / file.relative_to(one / "artifact"))
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            scale = max(float(tensor.float().abs().max()), 1e-3)
            assert float((tensor.float() - theirs[name].float()).abs().max()) <= 1e-5 * scale + 1e-6, f"{file.name} {name}"
