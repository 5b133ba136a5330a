"""The chimes source: balanced, whole scenes, the same bytes again, and damage that is where its list says."""

from __future__ import annotations

import itertools
import json
import wave
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from multitune.core.errors import DataError
from multitune.data.sources import chimes
from multitune.data.sources.chimes import Chimes, Options
from multitune.data.sources.chimes.cells import Cell, plan_cells
from multitune.data.sources.chimes.rows import Request, Scene, write_folder, write_scenes
from multitune.data.sources.chimes.sound import RATE
from multitune.data.sources.chimes.words import COLOURS, CONTOURS, SHAPES, TIMBRES, VOCABULARY, Domain

PICTURE, SOUND = ("shape", "colour", "shape_group"), ("timbre", "contour", "contour_group")


def cells(rows: int, **changes: Any) -> list[Cell]:
    return plan_cells(**{"rows": rows, "scene_rows": 5, "valid": 0.1, "test": 0.1, "seed": 0, "domain": "base", **changes})


def by_split(planned: list[Cell]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = defaultdict(list)
    for cell in planned:
        found[cell.split].append(cell)
    return found


def table(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def best_guess(seen: list[Any], answers: list[str]) -> float:
    """The accuracy of the best function of what was seen, found by counting: no model can do better."""
    groups: dict[Any, Counter[str]] = defaultdict(Counter)
    for key, answer in zip(seen, answers, strict=True):
        groups[key][answer] += 1
    return sum(counts.most_common(1)[0][1] for counts in groups.values()) / len(answers)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Chimes(Options(rows=60, path=tmp_path_factory.mktemp("drawn") / "chimes")).folder()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Chimes(Options(rows=200, faults=0.1, path=tmp_path_factory.mktemp("damaged") / "chimes")).folder()


@pytest.mark.parametrize("rows", [200, 1_000, 4_000, 3_997])
def test_each_pairing_is_as_frequent_as_the_others_in_every_split(rows: int) -> None:
    for members in by_split(cells(rows)).values():
        counts = Counter(cell.pairing for cell in members)
        assert len(counts) == 4
        assert max(counts.values()) - min(counts.values()) <= (len(members) % 4 > 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_everything_that_a_picture_shows_tells_nothing_of_the_sound_and_the_other_way_round(seed: int) -> None:
    for members in by_split(cells(2_000, seed=seed)).values():
        pictures = [(cell.shape, cell.colour) for cell in members]
        sounds = [(cell.timbre, cell.contour) for cell in members]
        for answers in ([cell.pairing for cell in members], [cell.agree for cell in members]):
            assert best_guess(pictures, answers) == 0.5
            assert best_guess(sounds, answers) == 0.5
            assert best_guess(list(zip(pictures, sounds, strict=True)), answers) == 1.0


def test_agree_is_even_within_each_value_of_each_attribute() -> None:
    for members in by_split(cells(4_000)).values():
        for name in ("shape", "colour", "timbre", "contour"):
            counts = Counter((getattr(cell, name), cell.agree) for cell in members)
            for value in {value for value, _ in counts}:
                assert counts[value, "yes"] == counts[value, "no"]


def test_no_sum_of_a_fitted_picture_score_and_a_fitted_sound_score_learns_agree() -> None:
    from sklearn.linear_model import LogisticRegression

    splits = by_split(cells(4_000))

    def seen(members: list[Cell]) -> np.ndarray[Any, Any]:
        values = [
            [c.shape == s for s in SHAPES]
            + [c.colour == s for s in COLOURS]
            + [c.timbre == s for s in TIMBRES]
            + [c.contour == s for s in CONTOURS]
            for c in members
        ]
        return np.array(values, float)

    model = LogisticRegression().fit(seen(splits["train"]), [cell.agree for cell in splits["train"]])
    assert model.score(seen(splits["test"]), [cell.agree for cell in splits["test"]]) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["shape", "colour", "timbre", "contour"])
def test_the_values_of_each_attribute_are_equally_frequent(name: str) -> None:
    for members in by_split(cells(4_000)).values():
        counts = Counter(getattr(cell, name) for cell in members)
        assert max(counts.values()) - min(counts.values()) <= 4


@pytest.mark.parametrize("rows", [12, 203, 4_000])
def test_a_scene_lies_in_one_split(rows: int) -> None:
    planned = cells(rows)
    assert all(len({cell.split for cell in members}) == 1 for _, members in itertools.groupby(planned, key=lambda cell: cell.scene))
    assert len({cell.scene for cell in planned}) == -(-rows // 5)


def test_splits_have_the_shares_that_were_asked_for() -> None:
    assert Counter(cell.split for cell in cells(4_000)) == {"train": 3_200, "valid": 400, "test": 400}
    assert {cell.split for cell in cells(1_000, valid=0.0, test=0.0)} == {"train"}


def test_the_same_options_give_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    again = Chimes(Options(rows=60, path=tmp_path / "again")).folder()
    assert content(again) == content(drawn)


def test_a_row_is_the_same_drawn_alone_and_among_others(drawn: Path, tmp_path: Path) -> None:
    request = Request(rows=60, seed=0, domain="base", scene_rows=5, valid=0.1, test=0.1, parts=("image", "audio"), faults=0.0)
    for part in request.parts:
        (tmp_path / part).mkdir()
    rows = write_scenes(tmp_path, request, [Scene(7, 35, tuple(cells(60)[35:40]))])
    assert rows == table(drawn)[35:40]
    assert all((tmp_path / row[part]).read_bytes() == (drawn / row[part]).read_bytes() for row in rows for part in request.parts)


def test_two_processes_write_what_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(rows=40, seed=3, domain="target", scene_rows=5, valid=0.1, test=0.1, parts=("image",), faults=0.0)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write_folder(one, request)
    monkeypatch.setattr("multitune.data.sources.chimes.rows.SHARED_FROM", 1)
    monkeypatch.setattr("multitune.data.sources.chimes.rows.SCENES_AT_ONCE", 3)
    write_folder(two, request)
    assert content(one) == content(two)


def test_media_are_what_the_columns_say(drawn: Path) -> None:
    for row in table(drawn)[:10]:
        with Image.open(drawn / row["image"]) as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (64, 64), "RGB")
        with wave.open(str(drawn / row["audio"]), "rb") as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth(), sound.getnframes()) == (RATE, 1, 2, RATE)
        assert row["end"] - row["start"] == pytest.approx(1.0)


@pytest.mark.parametrize("domain", ["base", "target"])
def test_captions_name_the_attributes_in_words_of_the_vocabulary(domain: Domain, tmp_path: Path) -> None:
    for row in table(Chimes(Options(rows=300, domain=domain, parts=(), path=tmp_path / "x")).folder()):
        assert set(row["caption"].split()) <= set(VOCABULARY)
        assert {row["shape"], row["colour"]} <= set(row["image_caption"].split())
        assert {row["timbre"], row["contour"]} <= set(row["audio_caption"].split())
        assert row["image_caption"] in row["caption"]
        assert row["audio_caption"] in row["caption"]
        assert not {*TIMBRES, *CONTOURS} & set(row["image_caption"].split())
        assert not {*SHAPES, *COLOURS} & set(row["audio_caption"].split())


def test_only_the_parts_that_are_asked_for_are_drawn(tmp_path: Path) -> None:
    folder = Chimes(Options(rows=10, parts=("image",), path=tmp_path / "x")).folder()
    assert not (folder / "audio").exists()
    assert all("audio" not in row and (folder / row["image"]).is_file() for row in table(folder))


def test_the_target_domain_looks_and_sounds_different(drawn: Path, tmp_path: Path) -> None:
    other = Chimes(Options(rows=60, domain="target", path=tmp_path / "x")).folder()
    ours, theirs = table(drawn), table(other)
    assert not {row["caption"] for row in ours} & {row["caption"] for row in theirs}
    assert not {row["id"] for row in ours} & {row["id"] for row in theirs}


def test_planted_damage_is_what_the_list_says_and_nothing_else(damaged: Path, tmp_path: Path) -> None:
    whole_folder = Chimes(Options(rows=200, path=tmp_path / "whole")).folder()
    whole = {row["id"]: row for row in table(whole_folder)}
    rows = {row["id"]: row for row in table(damaged)}
    planted = {entry["id"]: entry for entry in json.loads((damaged / "planted.json").read_text("utf-8"))}
    assert 20 <= len(planted) <= 21
    assert {entry["kind"] for entry in planted.values()} == {"cut_image", "empty_audio", "swapped_caption", "empty_caption", "duplicate"}
    for row_id, row in rows.items():
        entry = planted.get(row_id)
        same_media = [(damaged / row[part]).read_bytes() == (whole_folder / row[part]).read_bytes() for part in ("image", "audio")]
        if entry is None:
            assert row == whole[row_id]
            assert all(same_media)
            continue
        other = whole.get(entry.get("other", ""), {})
        match entry["kind"]:
            case "cut_image":
                assert same_media == [False, True]
                with pytest.raises((OSError, UnidentifiedImageError, SyntaxError)), Image.open(damaged / row["image"]) as picture:
                    picture.load()
            case "empty_audio":
                assert same_media == [True, False]
                with wave.open(str(damaged / row["audio"]), "rb") as sound:
                    assert sound.getnframes() == 0
            case "empty_caption":
                assert row["caption"] == row["image_caption"] == row["audio_caption"] == ""
            case "swapped_caption":
                assert row["caption"] == other["caption"]
                assert row["shape"] not in row["caption"].split()
            case _:
                assert (damaged / row["image"]).read_bytes() == (damaged / other["image"]).read_bytes()
                assert (row["caption"], row["pairing"]) == (other["caption"], whole[row_id]["pairing"])
                assert row["group"] != other["group"]


def test_read_gives_the_rows_of_the_table(drawn: Path) -> None:
    rows = chimes.build(Options(rows=60, path=drawn)).read()
    assert len(rows) == 60
    assert rows.row(3)["caption"] == table(drawn)[3]["caption"]
    assert (Path(str(rows.root)) / rows.row(3)["image"]).is_file()


def test_the_cache_is_filled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITUNE_CACHE", str(tmp_path))
    first = Chimes(Options(rows=10, parts=("image",))).folder()
    stamp = (first / "rows.jsonl").stat().st_mtime_ns
    assert Chimes(Options(rows=10, parts=("image",))).folder() == first
    assert (first / "rows.jsonl").stat().st_mtime_ns == stamp
    assert Chimes(Options(rows=10, parts=("image",), seed=1)).folder() != first


def test_a_folder_made_with_other_options_is_refused(drawn: Path) -> None:
    with pytest.raises(DataError, match="other options"):
        Chimes(Options(rows=61, path=drawn)).folder()
    assert len(table(drawn)) == 60


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me", "utf-8")
    with pytest.raises(DataError, match="did not make"):
        Chimes(Options(rows=10, path=tmp_path)).folder()
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_splits_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to train on"):
        Options(valid=0.5, test=0.5)
