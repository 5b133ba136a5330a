"""What padding costs: texts of Zipf lengths, one epoch, against HF Trainer with and without its grouping by length.

The lengths stand in `lengths.json` (tokens, 8 to 256, each as often as one over itself). `speedup`, `speedup_grouped`: HF Trainer's seconds
over ours, as it is and with `group_by_length`. `limit`: our seconds a token over those of our own run of rows that need no padding, as
many and with as many tokens. `agree`: 1 where each row's loss is the same to 1e-5 in batches as drawn, in batches of like length, and
alone. Counting tokens is in our seconds, not in the peer's. `--quick`: half of the rows, and HF Trainer without grouping once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.beside import Side, Wanted, answers, cleared, judged, machine, ratio, table, tell, versions
from benchmarks.padding import job as jobs

ROWS, QUICK = 2048, 1024
REPEATS = 3
SAME = 1e-5
OURS, EVEN, PLAIN, GROUPED, AGREE = "multitune", "no-padding", "hf-trainer", "hf-trainer-grouped", "agree"
PEER = str(Path(__file__).resolve().parents[1] / "peers" / "hf_padding_peer.py")
MINE = ("-m", "benchmarks.padding.ours")
SIDES = (
    Side(OURS, MINE, job={"file": "rows", "bucket": {"window": 50}}),
    Side(EVEN, MINE, job={"file": "even", "bucket": {"window": 100_000}}),
    Side(PLAIN, (PEER,), job={"grouped": False}),
    Side(GROUPED, (PEER,), job={"grouped": True}),
)
CHECK = Side(AGREE, ("-m", "benchmarks.padding.agree"), job={"bucket": {"window": 50}})
WANTED = (
    Wanted("speedup", at_least=1.8),
    Wanted("speedup_grouped", at_least=1.0),
    Wanted("limit", at_most=1.11),
    Wanted("agree", at_least=1),
)


def measure(run: Path, *, fresh: bool, quick: bool = False) -> tuple[dict[str, float], bool]:
    """The figures, and whether all are as wanted.

    Raises: Fault if a side fails.
    """
    folder = cleared(run, fresh=fresh)
    asked = jobs.written(folder / "job", QUICK if quick else ROWS)
    (said,) = answers(folder, (CHECK,), asked, repeats=1)[AGREE]
    once = [side for side in SIDES if quick and side.name == PLAIN]
    found = answers(folder, [side for side in SIDES if side not in once], asked, repeats=REPEATS)
    found |= answers(folder, once, asked, repeats=1) if once else {}
    figures = {
        "speedup": ratio(found, "seconds", PLAIN, OURS),
        "speedup_grouped": ratio(found, "seconds", GROUPED, OURS),
        "limit": ratio(found, "tokens_per_second", EVEN, OURS),
        "agree": float(max(said["apart_grouped"], said["apart_alone"]) <= SAME),
        "apart_grouped": said["apart_grouped"],
        "apart_alone": said["apart_alone"],
        "padding": found[OURS][0]["padding"],
        "padding_drawn": 1 - asked["tokens"]["rows"] / said["tokens_drawn"],
    }
    lines, met = judged(figures, WANTED)
    tell(folder, [*about(asked), "", *table(found, ("tokens_per_second", "tokens"), first="seconds"), "", *lines])
    return figures, met


def about(asked: Mapping[str, object]) -> list[str]:
    """On what, and with what it was measured."""
    sizes = ", ".join(f"{name} {value}" for name, value in jobs.SIZES.items())
    return [f"{machine()}. {versions()}.", f"BERT from its config ({sizes}), {asked['steps']} steps of {asked['batch']} rows."]
