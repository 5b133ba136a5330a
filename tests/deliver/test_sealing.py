"""A sealed folder: one changed bit, one more file, one fewer, a link or a pickle, and it is not believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from multitune.core.errors import ArtifactError
from multitune.core.randomness import generator
from multitune.core.store import key
from multitune.deliver import sealing

SEAL = "artifact.json"


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    for name, data in {"README.md": b"# card\n", "towers/image/model.safetensors": bytes(range(256)), "golden/0/0.png": b"\x89PNG"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    sealing.seal(folder, SEAL, {"form": 1, "name": "ünï"})
    return folder


def test_what_was_sealed_comes_back(sealed: Path) -> None:
    facts = sealing.opened(sealed, SEAL)
    assert (facts["form"], facts["name"]) == (1, "ünï")
    assert sorted(facts["files"]) == ["README.md", "golden/0/0.png", "towers/image/model.safetensors"]


@pytest.mark.parametrize("name", ["README.md", "towers/image/model.safetensors", "golden/0/0.png", SEAL])
def test_one_flipped_bit_in_any_file_is_refused(sealed: Path, name: str) -> None:
    file = sealed / name
    whole = file.read_bytes()
    random = generator("flip", name)
    for _ in range(60):
        place, bit = int(random.integers(len(whole))), int(random.integers(8))
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        file.write_bytes(changed)
        with pytest.raises(ArtifactError, match="was changed since it was written"):
            sealing.opened(sealed, SEAL)


def test_every_single_bit_of_the_seal_counts(sealed: Path) -> None:
    file = sealed / SEAL
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        file.write_bytes(changed)
        with pytest.raises(ArtifactError):
            sealing.opened(sealed, SEAL)


def test_a_shorter_and_a_longer_file_are_refused(sealed: Path) -> None:
    for data in (b"# car", b"# card\n\n", b""):
        (sealed / "README.md").write_bytes(data)
        with pytest.raises(ArtifactError, match=r"README\.md: was changed"):
            sealing.opened(sealed, SEAL)


def test_a_file_more_is_refused(sealed: Path) -> None:
    (sealed / "towers" / "image" / "extra.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"extra\.json: does not belong to the artifact"):
        sealing.opened(sealed, SEAL)


def test_a_file_fewer_is_refused(sealed: Path) -> None:
    (sealed / "golden" / "0" / "0.png").unlink()
    with pytest.raises(ArtifactError, match=r"0\.png: is missing"):
        sealing.opened(sealed, SEAL)


def test_two_files_that_changed_places_are_refused(sealed: Path) -> None:
    one, other = sealed / "README.md", sealed / "golden" / "0" / "0.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(ArtifactError, match="was changed"):
        sealing.opened(sealed, SEAL)


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
@pytest.mark.parametrize("name", ["README.md", "towers/image", SEAL])
def test_a_link_is_refused_even_to_the_same_bytes(sealed: Path, tmp_path: Path, name: str) -> None:
    (sealed / name).rename(tmp_path / "outside")
    (sealed / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ArtifactError, match="is a link"):
        sealing.opened(sealed, SEAL)


@pytest.mark.parametrize("name", ["model.bin", "weights.PT", "code.py"])
def test_a_pickle_or_a_program_is_refused_though_it_was_sealed(sealed: Path, name: str) -> None:
    (sealed / SEAL).unlink()
    (sealed / name).write_bytes(b"x")
    sealing.seal(sealed, SEAL, {"form": 1})
    with pytest.raises(ArtifactError, match="is a pickle or a program"):
        sealing.opened(sealed, SEAL)


def test_a_seal_that_names_files_elsewhere_is_refused(sealed: Path) -> None:
    body = json.loads((sealed / SEAL).read_bytes())
    del body["seal"]
    body["files"]["../outside"] = {"sha256": "0" * 64, "size": 0}
    (sealed / SEAL).write_text(json.dumps(body | {"seal": key(body)}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    with pytest.raises(ArtifactError, match="outside: is missing"):
        sealing.opened(sealed, SEAL)


def test_a_folder_without_a_seal_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is no artifact \(it has no artifact\.json\)"):
        sealing.opened(tmp_path, SEAL)


def test_a_place_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such folder"):
        sealing.opened(tmp_path / "nowhere", SEAL)
