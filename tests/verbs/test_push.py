"""`push` uploads what is sealed and nothing else, to a real endpoint on loopback; the token is never shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import multitune
from multitune.core.errors import ArtifactError, UserError
from tests.deliver.making import Made, classifier, make
from tests.verbs.hub import Hub, serving

pytestmark = pytest.mark.line
TOKEN = "hf_" + "secret" * 5


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("pushed"), *classifier(), [{"pattern": "head.*"}])


def pushed(folder: Path, hub: Hub, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **variables}
    command = [sys.executable, "-m", "multitune", "push", str(folder), "me/model", "--endpoint", hub.url, *words]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert TOKEN not in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stderr
    return shown


def test_every_file_of_the_artifact_arrives_and_what_was_there_before_goes(made: Made, hub: Hub, tmp_path: Path) -> None:
    hub.files["me/model@main"] = {".gitattributes": b"x", "old.txt": b"old"}
    shown = pushed(made.artifact.folder, hub, "--private")
    assert shown.returncode == 0, shown.stderr
    held = dict(hub.files["me/model@main"])
    assert held.pop(".gitattributes") == b"x"
    files = {
        path.relative_to(made.artifact.folder).as_posix(): path.read_bytes() for path in made.artifact.folder.rglob("*") if path.is_file()
    }
    assert held == files
    assert hub.private == {"me/model"}
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert "hf download me/model" in shown.stdout
    rows = json.loads(held["golden/rows.json"])
    assert f"with {len(rows)} rows of the test split (golden/)" in shown.stdout


@pytest.mark.slow
def test_a_branch_is_made_where_it_is_named(made: Made, hub: Hub) -> None:
    shown = pushed(made.artifact.folder, hub, "--revision", "v1")
    assert shown.returncode == 0, shown.stderr
    assert "artifact.json" in hub.files["me/model@v1"]
    assert set(hub.files["me/model@main"]) == {".gitattributes"}


def test_what_comes_back_from_a_hub_is_opened_with_what_the_hub_puts_beside_it(made: Made, tmp_path: Path) -> None:
    back = shutil.copytree(made.artifact.folder, tmp_path / "back")
    (back / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (back / ".cache" / "huggingface").mkdir(parents=True)
    (back / ".cache" / "huggingface" / "x.metadata").write_text("x")
    assert multitune.load(back).parity() == 0


@pytest.mark.parametrize("harm", ["changed", "extra", "unsealed"])
def test_what_is_not_sealed_never_leaves_the_machine(
    made: Made, hub: Hub, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(made.artifact.folder, tmp_path / "artifact")
    if harm == "changed":
        (folder / "README.md").write_text("better than it is")
    elif harm == "extra":
        (folder / "notes.txt").write_text("mine")
    else:
        (folder / "artifact.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(ArtifactError):
        multitune.push(folder, "me/model", endpoint=hub.url)
    assert hub.tokens == set()


@pytest.mark.parametrize(("status", "code", "said"), [(403, 2, "write access"), (418, 3, "answers 418")])
def test_a_hub_that_refuses_is_told_with_what_would_do(made: Made, hub: Hub, status: int, code: int, said: str) -> None:
    hub.refuses = status
    shown = pushed(made.artifact.folder, hub)
    assert (shown.returncode, said in shown.stderr) == (code, True), shown.stderr


def test_without_a_token_nothing_is_asked(made: Made, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="there is no token"):
        multitune.push(made.artifact, "me/model", endpoint=hub.url)
    assert hub.tokens == set()


@pytest.mark.parametrize(
    ("repo", "endpoint", "said"),
    [
        ("model", "https://example.org", "org/name"),
        ("me/model", "http://example.org", "unencrypted"),
        ("me/model", "example.org", "no URL"),
        ("me/model", "https://me:hunter2@example.org", "has a name or a password in it"),
    ],
)
def test_a_place_that_will_not_do_is_named(made: Made, monkeypatch: pytest.MonkeyPatch, repo: str, endpoint: str, said: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(UserError, match=said):
        multitune.push(made.artifact, repo, endpoint=endpoint)


def test_offline_is_said_first(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        multitune.push(made.artifact, "me/model")
