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
    """What the figures say about themselves: too few rows, lost rows, no better than the baseline, a part that is not used."""
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
    yield from _unused_parts(report)


def table(report: Report) -> str:
    """The report as aligned plain text: figures with intervals beside the baselines, what each part brings, sources, classes."""
    lines = [f"{report.name}: {report.rows:,} rows", *_aligned(_main_rows(report)), *_block(_ablation_rows(report))]
    lines += [*_block(_source_rows(report)), *_block(_class_rows(report))]
    return "\n".join(lines) + "\n"


def one_line(report: Report) -> str:
    """The primary figures with their intervals: `test: accuracy 0.912 (0.880 to 0.940), 398 rows`."""
    shown: list[str] = []
    for name in report.primary:
        low, high = report.figures.get(f"{name}/low"), report.figures.get(f"{name}/high")
        sure = f" ({number(low)} to {number(high)})" if low is not None and high is not None else ""
        shown.append(f"{_short(report, name)} {number(report.figures[name])}{sure}")
    return f"{report.name}: {', '.join([*shown, f'{report.rows:,} rows'])}"


def number(value: float) -> str:
    """A figure to three places behind the point, to one where it is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _against_baseline(report: Report, name: str, better: str) -> Iterator[Finding]:
    low, high = (report.figures.get(f"{name}/{end}", report.figures[name]) for end in ("low", "high"))
    worst, best = (low, high) if better == "higher" else (high, low)
    for kind in BASELINES:
        base = report.figures.get(_variant(report, name, kind))
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


def _unused_parts(report: Report) -> Iterator[Finding]:
    """The parts that could come from any other row: for every answer, or for some while others need them."""
    for part in _ablated(report):
        shuffled = {
            name: report.figures[variant]
            for name in report.primary
            if (variant := _variant(report, name, f"shuffled_{part}")) in report.figures
        }
        idle = [name for name, value in shuffled.items() if not _much_worse(report, name, value)]
        needed = [_short(report, name) for name in shuffled if name not in idle]
        for name in idle:
            both = f"{number(shuffled[name])} with that of other rows, {number(report.figures[name])} with its own"
            yield Finding(
                "part-not-used",
                Severity.INFO if needed else Severity.WARNING,
                name,
                f'does not depend on "{part}": it is {both}, no sure difference.',
                f"Keep the part: {', '.join(needed)} needs it." if needed else "Leave the part out, or train so that it is needed.",
                {"part": part, "value": report.figures[name], "shuffled": shuffled[name]},
            )


def _much_worse(report: Report, name: str, value: float) -> bool:
    """Whether a value lies beyond the worse end of a figure's interval."""
    if report.primary[name] == "higher":
        return value < report.figures.get(f"{name}/low", report.figures[name])
    return value > report.figures.get(f"{name}/high", report.figures[name])


def _variant(report: Report, name: str, variant: str) -> str:
    return f"{report.name}/{variant}/{_short(report, name)}"


def _short(report: Report, name: str) -> str:
    return name.removeprefix(f"{report.name}/")


def _ablated(report: Report) -> list[str]:
    steps = (_short(report, name).split("/")[0] for name in report.figures)
    return list(dict.fromkeys(step.removeprefix("shuffled_") for step in steps if step.startswith("shuffled_")))


def _own(report: Report) -> list[str]:
    """The figures of the model itself on all rows, short, without intervals, classes and counts."""
    names = (_short(report, name) for name in report.figures)
    variants = ("without_", "shuffled_", *(f"{kind}/" for kind in BASELINES), "source/", "rows")
    return [
        name
        for name in names
        if not name.startswith(variants) and not name.endswith(("/low", "/high")) and "class" not in name.split("/")[:-1]
    ]


def _main_rows(report: Report) -> list[list[str]]:
    kinds = [kind for kind in BASELINES if any(_short(report, name).startswith(f"{kind}/") for name in report.figures)]
    rows = [["figure", "value", "95 % interval", *kinds]]
    for name in _own(report):
        full = f"{report.name}/{name}"
        low, high = report.figures.get(f"{full}/low"), report.figures.get(f"{full}/high")
        sure = f"{number(low)} to {number(high)}" if low is not None and high is not None else ""
        rows.append([name, number(report.figures[full]), sure, *(_cell(report, f"{report.name}/{kind}/{name}") for kind in kinds)])
    return rows


def _ablation_rows(report: Report) -> list[list[str]]:
    rows = [["figure", "part", "left out", "shuffled"]]
    for name in report.primary:
        for part in _ablated(report):
            cells = [_cell(report, _variant(report, name, f"{kind}_{part}")) for kind in ("without", "shuffled")]
            rows.append([_short(report, name), part, *cells])
    return rows


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
        before, mark, rest = f"/{_short(report, name)}".partition("/class/")
        if mark:
            label, _, figure = rest.rpartition("/")
            found.setdefault((before.strip("/"), label), {})[figure] = number(value)
    several = any(answer for answer, _ in found)
    rows = [[*(["answer"] if several else []), "class", "precision", "recall"]]
    for (answer, label), cells in found.items():
        rows.append([*([answer] if several else []), label, cells.get("precision", ""), cells.get("recall", "")])
    return rows


def _cell(report: Report, name: str) -> str:
    value = report.figures.get(name)
    return "" if value is None else number(value)


def _block(rows: list[list[str]]) -> list[str]:
    return ["", *_aligned(rows)] if len(rows) > 1 else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
