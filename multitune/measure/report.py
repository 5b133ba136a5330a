"""What an evaluation found: flat figures, tables of detail, findings, and all of it as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Prediction

SMALL = 100
BASELINES = ("majority", "mean", "chance", "untuned")


@dataclass(frozen=True)
class Report:
    """The result of one evaluation.

    name: what the figures begin with, `test`. rows: measured, the lost ones excepted. figures: `test/accuracy`, with its interval as
    `test/accuracy/low` and `.../high`. primary: the figures that matter most -> whether higher or lower is better. details: tables,
    their first row the heading. predictions: in the order of the rows, where they were to be kept.
    """

    name: str
    rows: int
    figures: Mapping[str, float]
    primary: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    predictions: tuple[Prediction, ...] = ()

    def beside(self, figures: Mapping[str, float]) -> Report:
        """This report with other figures beside its own, such as those of the untuned model, and what they say."""
        joined = replace(self, figures={**self.figures, **figures})
        return replace(joined, findings=(*self.findings, *(finding for finding in judge(joined) if finding not in self.findings)))


def judge(report: Report) -> Iterator[Finding]:
    """What the figures say about themselves: too few rows, lost rows, no better than the baseline."""
    lost = int(report.figures.get(f"{report.name}/rows_lost", 0))
    if lost:
        yield Finding(
            "rows-lost",
            Severity.WARNING,
            report.name,
            f"{lost} of {report.rows + lost} rows could not be read and were left out.",
            "The ledger names them.",
            {"lost": lost},
        )
    if report.rows < SMALL:
        yield Finding(
            "small-split",
            Severity.WARNING,
            report.name,
            f"{report.rows} rows are few; see how wide the intervals are.",
            "Put more rows into this split.",
            {"rows": report.rows},
        )
    for name, better in report.primary.items():
        yield from _against_baseline(report, name, better)


def table(report: Report) -> str:
    """The report as aligned plain text: figures with intervals beside the baselines, what each part is worth, sources, slices, classes."""
    lines = [f"{report.name}: {report.rows:,} rows", *_aligned(_main_rows(report)), *_block(parts_table(report))]
    lines += [*_block(_source_rows(report)), *_block(report.details.get("slices", ())), *_block(_class_rows(report))]
    return "\n".join(lines) + "\n"


def one_line(report: Report) -> str:
    """The primary figures with their intervals: `test: accuracy 0.912 (0.880 to 0.940), 398 rows`."""
    shown: list[str] = []
    for name in report.primary:
        low, high = report.figures.get(f"{name}/low"), report.figures.get(f"{name}/high")
        sure = f" ({number(low)} to {number(high)})" if low is not None and high is not None else ""
        shown.append(f"{short(report, name)} {number(report.figures[name])}{sure}")
    return f"{report.name}: {', '.join([*shown, f'{report.rows:,} rows'])}"


def number(value: float) -> str:
    """A figure to three places behind the point, to one where it is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _against_baseline(report: Report, name: str, better: str) -> Iterator[Finding]:
    low, high = (report.figures.get(f"{name}/{end}", report.figures[name]) for end in ("low", "high"))
    worst, best = (low, high) if better == "higher" else (high, low)
    for kind in BASELINES:
        base = report.figures.get(variant_of(report, name, kind))
        if base is None or (worst > base if better == "higher" else worst < base):
            continue
        surely_worse = low < high and (best < base if better == "higher" else best > base)
        sure = f"({number(low)} to {number(high)}) is surely worse than" if surely_worse else "is not surely better than"
        yield Finding(
            f"no-better-than-{kind}",
            Severity.WARNING,
            name,
            f"{number(report.figures[name])} {sure} {kind} ({number(base)}).",
            "Train longer, at another rate, or look at the data." if kind != "untuned" else "Look at the rate and at what moves.",
            {"value": report.figures[name], "worst": worst, kind: base},
        )


def variant_of(report: Report, name: str, variant: str) -> str:
    """The name of a figure's variant: of `test/accuracy` and `majority`, `test/majority/accuracy`."""
    return f"{report.name}/{variant}/{short(report, name)}"


def short(report: Report, name: str) -> str:
    """A figure's name without the split's."""
    return name.removeprefix(f"{report.name}/")


def ablated(report: Report) -> list[str]:
    """The parts that were left out or shuffled."""
    steps = [short(report, name).split("/")[0] for name in report.figures]
    parts = [step.removeprefix(kind) for step in steps for kind in ("without_", "shuffled_") if step.startswith(kind)]
    return list(dict.fromkeys(parts))


def _own(report: Report) -> list[str]:
    """The figures of the model itself on all rows, short, without intervals, classes and counts."""
    names = (short(report, name) for name in report.figures)
    variants = ("without_", "shuffled_", *(f"{kind}/" for kind in BASELINES), "source/", "slice/", "rows")
    return [
        name
        for name in names
        if not name.startswith(variants) and not name.endswith(("/low", "/high")) and "class" not in name.split("/")[:-1]
    ]


def _main_rows(report: Report) -> list[list[str]]:
    kinds = [kind for kind in BASELINES if any(short(report, name).startswith(f"{kind}/") for name in report.figures)]
    rows = [["figure", "value", "95 % interval", *kinds]]
    for name in _own(report):
        full = f"{report.name}/{name}"
        low, high = report.figures.get(f"{full}/low"), report.figures.get(f"{full}/high")
        sure = f"{number(low)} to {number(high)}" if low is not None and high is not None else ""
        rows.append([name, number(report.figures[full]), sure, *(_cell(report, f"{report.name}/{kind}/{name}") for kind in kinds)])
    return rows


def parts_table(report: Report) -> list[list[str]]:
    """What each part is worth, a row for each figure and part; only the heading where nothing was left out or shuffled.

    A cost is how much worse the model is without the part; with its interval where there is one.
    """
    rows = [["figure", "part", "left out", "costs", "shuffled", "costs"]]
    for name in report.primary:
        for part in ablated(report):
            variants = [variant_of(report, name, f"{kind}_{part}") for kind in ("without", "shuffled")]
            if any(variant in report.figures for variant in variants):
                cells = [cell for variant in variants for cell in (_cell(report, variant), _sure(report, f"{variant}/cost"))]
                rows.append([short(report, name), part, *cells])
    return rows


def _sure(report: Report, name: str) -> str:
    """A figure with its interval."""
    low, high = report.figures.get(f"{name}/low"), report.figures.get(f"{name}/high")
    return _cell(report, name) + (f" ({number(low)} to {number(high)})" if low is not None and high is not None else "")


def _source_rows(report: Report) -> list[list[str]]:
    rows = [["source", "figure", "value"]]
    start = f"{report.name}/source/"
    for name, value in report.figures.items():
        if name.startswith(start) and not name.endswith(("/low", "/high")):
            source, _, figure = name.removeprefix(start).partition("/")
            rows.append([source, figure, number(value)])
    return rows


def _class_rows(report: Report) -> list[list[str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in report.figures.items():
        before, mark, rest = f"/{short(report, name)}".partition("/class/")
        if mark:
            label, _, figure = rest.rpartition("/")
            found.setdefault((before.strip("/"), label), {})[figure] = number(value)
    several = any(answer for answer, _ in found)
    columns = list(dict.fromkeys(figure for cells in found.values() for figure in cells))
    rows = [[*(["answer"] if several else []), "class", *(column.replace("_", " ") for column in columns)]]
    for (answer, label), cells in found.items():
        rows.append([*([answer] if several else []), label, *(cells.get(column, "") for column in columns)])
    return rows


def _cell(report: Report, name: str) -> str:
    value = report.figures.get(name)
    return "" if value is None else number(value)


def _block(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["", *_aligned(rows)] if len(rows) > 1 else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
