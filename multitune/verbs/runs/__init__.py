"""List runs with their figures, or lay plans and figures side by side.

Without a folder, `runs/` is listed. `--sort` puts the best of a figure first, such as test/accuracy; `--tag` picks runs by the words that
`train --tag` gave them. Two or more runs by name are laid side by side, and so is all that is listed with `--diff`: where their plans
differ, and their figures with intervals. Nothing is locked or changed: a run that goes on can be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from multitune.core import catalog
from multitune.core.errors import RunError, did_you_mean, one_of
from multitune.core.result import Result, smaller_is_better
from multitune.verbs.runs import drawing
from multitune.verbs.runs.reading import Seen, is_run, read, runs_in

HOME = Path("runs")
SMALLER = frozenset({"seconds", "bytes", "lost"})  # beside those that are better when smaller anywhere


class Options(catalog.Options):
    """Which runs, in which order."""

    folders: tuple[Path, ...] = Field(
        default=(), description="runs, or folders of runs; by default runs/", json_schema_extra=catalog.POSITIONAL | {"metavar": "RUN"}
    )
    sort: str = Field(default="", description="a figure, such as test/accuracy: the best first")
    tag: tuple[str, ...] = Field(default=(), description="only runs with this tag; may be given several times")
    diff: bool = Field(default=False, description="lay all that are listed side by side")
    run: Path | None = Field(default=None, description="also write what is shown into this folder")
    fresh: bool = Field(default=False, description="no effect here; taken so that the same flags fit every verb")


def build(options: Options) -> Result:
    """The runs that there are."""
    made = runs(*options.folders, sort=options.sort, tags=options.tag, diff=options.diff)
    return made if options.run is None else made.kept(options.run / "runs.txt")


def runs(*folders: Path | str, sort: str = "", tags: Sequence[str] = (), diff: bool = False) -> Result:
    """A table of runs, or the runs that are given side by side.

    sort: a figure; the best run first, those without it last. tags: a run is shown if it has all of them.
    figures: `runs`, `finished`, and each run's own as `<run>/test/accuracy`. paths: run -> its folder.
    Raises: RunError for a folder that is not there or holds no runs, and for a figure or a tag that none has.
    """
    given = [_found(Path(folder)) for folder in folders or (HOME,)]
    listed = _tagged([seen for folder in given for seen in _seen(folder, alone=len(given) == 1)], tags)
    width, by_name = drawing.columns(), all(map(is_run, given))
    shown = _sorted(_distinct(listed), sort, keep=by_name)
    together = diff or by_name
    if together and drawing.fits(len(shown), width=width):
        lines = list(drawing.beside(shown, width=width))
    else:
        lines = [*drawing.table(shown, figure=sort, width=width), "", _count(shown, given[0])]
        lines += ["", *drawing.grouped(shown, width=width)] if together else []
    findings = tuple(finding for seen in shown for finding in seen.findings)
    lines += ["", *(finding.line() for finding in findings)] if findings else []
    figures = {"runs": float(len(shown)), "finished": float(sum(seen.finished for seen in shown))}
    figures |= {f"{seen.name}/{name}": value for seen in shown for name, value in seen.figures.items()}
    return Result(ok=True, figures=figures, findings=findings, paths={seen.name: seen.folder for seen in shown}, text="\n".join(lines))


def _found(folder: Path) -> Path:
    """The folder, or the run in `runs/` that has this name."""
    for path in (folder, HOME / folder):
        if path.is_dir():
            return path
    homes = [home for home in (folder.parent, HOME / folder.parent) if home.is_dir()]
    near = did_you_mean(folder.name, [path.name for home in homes for path in home.iterdir() if path.is_dir()])
    raise RunError(str(folder), "there is no such folder.", near or "Name a run, or a folder of runs.")


def _seen(folder: Path, *, alone: bool) -> Iterator[Seen]:
    """The run of a folder, or the runs in it, named by their paths below it."""
    if is_run(folder):
        yield read(folder)
        return
    inside = list(runs_in(folder))
    if not inside:
        raise RunError(str(folder), "holds no runs.", "Name a run, or a folder of runs.")
    home = folder if alone else folder.parent
    for path in inside:
        yield read(path, name=path.relative_to(home).as_posix())


def _distinct(listed: Sequence[Seen]) -> list[Seen]:
    """The same with names that tell runs apart: the whole path where two folders have one name."""
    folders: dict[str, set[Path]] = {}
    for seen in listed:
        folders.setdefault(seen.name, set()).add(seen.folder.resolve())
    return [seen if len(folders[seen.name]) == 1 else _renamed(seen) for seen in listed]


def _renamed(seen: Seen) -> Seen:
    return read(seen.folder, name=seen.folder.as_posix())


def _tagged(listed: Sequence[Seen], tags: Sequence[str]) -> list[Seen]:
    known = {tag for seen in listed for tag in seen.tags}
    for tag in tags:
        if tag not in known:
            raise RunError("--tag", f'no run has "{tag}".', f"There are the tags {one_of(known)}.")
    picked = [seen for seen in listed if set(tags) <= set(seen.tags)]
    if not picked:
        raise RunError("--tag", f"no run has all of {one_of(tags)}.", "Give one of them.")
    return picked


def _sorted(listed: Sequence[Seen], figure: str, *, keep: bool) -> list[Seen]:
    """By a figure, the best first; without one as they are given, or by date."""
    by_date = list(listed) if keep else sorted(listed, key=lambda seen: seen.date)
    if not figure:
        return by_date
    known = list(dict.fromkeys(name for seen in listed for name in seen.figures))
    if figure not in known:
        tests = [name for name in known if name.startswith("test/") and f"{name}/low" in known]
        remedy = did_you_mean(figure, known) or f"There are {one_of(tests or known)}."
        raise RunError("--sort", f'no run has the figure "{figure}".', remedy)
    sign = 1.0 if _smaller_is_better(figure) else -1.0
    return sorted(by_date, key=lambda seen: (figure not in seen.figures, sign * seen.figures.get(figure, 0.0)))


def _smaller_is_better(figure: str) -> bool:
    words = {*figure.rpartition("/")[2].split("_"), *figure.split("/")}
    return (smaller_is_better(figure) or not SMALLER.isdisjoint(words)) and "second" not in words


def _count(shown: Sequence[Seen], folder: Path) -> str:
    finished = sum(seen.finished for seen in shown)
    count = f"{len(shown)} {'run' if len(shown) == 1 else 'runs'}, {finished} finished"
    if len(shown) < 2:
        return count
    first = sorted(shown, key=lambda seen: not seen.finished)[:2]  # those that have figures, where there are such
    names = [seen.name if folder == HOME else str(seen.folder) for seen in first]
    return f"{count}; compare some: multitune runs {' '.join(names)}"
