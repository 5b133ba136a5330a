"""What gradient caching costs, and what it spares: a small CLIP, batches of 256 and 1024 pairs in micro-batches of 64.

Seconds are those of a step after the first, over the epochs that the steps make of the same rows, pictures read and prepared within them
(ours remembers prepared ones, the peer reads them again); bytes are the peak above what was there before the first. `memory`: growth at
1024 over growth at a batch of 64, over the same rows. `limit`: seconds over those of the same step undivided, all graphs kept, with the
same allocator. `speedup`: sentence-transformers' cached loss, as it comes, over ours; `speedup_kept`: with our allocator's thresholds in
its environment. `allocator`: our seconds with the C library's own thresholds over ours. `agree`: 1 where cached gradients are those of
the undivided step and of the peer to 1e-5 (of each tensor's norm, or of a hundredth of the whole where that is more).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.beside import Found, Side, Wanted, answers, cleared, judged, machine, ratio, table, tell, versions
from benchmarks.contrastive import job as jobs

OURS, UNDIVIDED, SYSTEM, SMALL, PEER, KEPT = "multitune", "undivided", "multitune-system", "batch-64", "sentence-transformers", "peer-kept"
MINE = ("-m", "benchmarks.contrastive.ours")
SCRIPT = str(Path(__file__).resolve().parents[1] / "peers" / "sentence_transformers_cached_peer.py")
MICRO = 64
RAISED = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
BATCHES = {256: "_256", 1024: ""}
ROWS, QUICK_ROWS = 2048, 1024
STEPS, QUICK_STEPS = {256: 17, 1024: 7}, {256: 9, 1024: 4}
EPOCHS_OF_SMALL = 2
SAME = 1e-5
WANTED = (
    *(Wanted(f"limit{suffix}", at_most=1.35) for suffix in BATCHES.values()),
    *(Wanted(f"speedup{suffix}", at_least=1.0) for suffix in BATCHES.values()),
    Wanted("memory", at_most=1.25),
    Wanted("agree", at_least=1),
)


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """The figures, and whether all are as wanted.

    Raises: Fault if a side fails; UserError if the peer's packages cannot be installed.
    """
    folder, steps = cleared(run, fresh=fresh), QUICK_STEPS if quick else STEPS
    rows = QUICK_ROWS if quick else ROWS
    asked = jobs.written(folder / "job", rows)
    alone = Side(SMALL, MINE, job={"allocator": "auto", "batch": MICRO, "steps": EPOCHS_OF_SMALL * rows // MICRO})
    small = answers(folder, (alone,), {**asked, "micro": MICRO}, repeats=1)
    figures: dict[str, float] = {}
    lines: list[str] = []
    for batch, suffix in BATCHES.items():
        job = {**asked, "batch": batch, "micro": MICRO, "steps": steps[batch]}
        found = answers(folder / str(batch), tuple(sides(batch, quick=quick)), job, repeats=1 if quick else 3)
        figures |= {f"{name}{suffix}": value for name, value in compared(found, small).items()}
        title = f"{batch} pairs a step, {steps[batch] - 1} steps after the first"
        lines += ["", title, "", *table({**small, **found}, ("wait", "growth"), first="seconds")]
    figures |= agreement(folder / "agree", asked, 256 if quick else 1024)
    told, met = judged(figures, WANTED)
    tell(folder, [*about(), *lines, "", *told])
    return figures, met


def sides(batch: int, *, quick: bool) -> Iterator[Side]:
    """Those that are compared at one batch; in the quick form without the other allocators."""
    yield Side(OURS, MINE, job={"allocator": "auto"})
    yield Side(UNDIVIDED, MINE, job={"allocator": "auto", "micro": batch})
    yield Side(PEER, (SCRIPT,), overlaid=True)
    if not quick:
        yield Side(SYSTEM, MINE, job={"allocator": "system"})
        yield Side(KEPT, (SCRIPT,), overlaid=True, environment=RAISED)


def compared(found: Found, small: Found) -> dict[str, float]:
    """The figures of one batch."""
    both = {**found, **small}
    figures = {
        "speedup": ratio(found, "seconds", PEER, OURS),
        "limit": ratio(found, "seconds", OURS, UNDIVIDED),
        "memory": ratio(both, "growth", OURS, SMALL),
        "memory_undivided": ratio(both, "growth", UNDIVIDED, SMALL),
        "memory_peer": ratio(both, "growth", PEER, SMALL),
    }
    if KEPT in found:
        figures |= {"speedup_kept": ratio(found, "seconds", KEPT, OURS), "allocator": ratio(found, "seconds", SYSTEM, OURS)}
    return figures


def agreement(folder: Path, asked: Mapping[str, object], rows: int) -> dict[str, float]:
    """How far gradients of the same rows lie apart: the peer's first, then ours, cached and undivided, beside it."""
    job = {**asked, "batch": rows, "micro": MICRO, "steps": 0, "gradients": str(folder / "peer.safetensors")}
    peer = Side(PEER, (SCRIPT,), overlaid=True)
    folder.mkdir(parents=True, exist_ok=True)
    answers(folder, (peer,), job, repeats=1)
    ((said,),) = answers(folder, (Side("agree", ("-m", "benchmarks.contrastive.agree")),), job, repeats=1).values()
    return {
        "agree": float(max(said["apart_undivided"], said["apart_peer"]) <= SAME),
        **{name: said[name] for name in ("apart_undivided", "apart_peer")},
    }


def about() -> list[str]:
    """On what, and with what it was measured."""
    blocks = ", ".join(f"{name} {value}" for name, value in jobs.BLOCKS.items())
    size = f"{jobs.SIDE} px in patches of {jobs.PATCH}, captions of {jobs.LENGTH} words"
    return [f"{machine()}. {versions(('sentence-transformers', 'datasets'))}.", f"CLIP from its config, both towers {blocks}; {size}."]
