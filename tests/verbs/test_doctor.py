"""`doctor` finds what would spoil a run, says what would do, and tries a few steps itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import multitune
from multitune.verbs.doctor import machine
from multitune.verbs.doctor.versions import Installed, judge

FINE = {
    "multitune": Installed("0.1.0", ("torch>=2.11", "numpy>=2", "transformers<6,>=5.17", 'pytest; extra == "test"')),
    "torch": Installed("2.15.0+cu130", ("sympy",)),
    "numpy": Installed("2.4.6"),
    "sympy": Installed("1.14"),
    "transformers": Installed("5.23.0", ("numpy>=1.17", "a name that is none !!")),
    "torchaudio": Installed("2.15.0+cu130", ("torch==2.15.0",)),
}


def codes(**changes: Installed) -> list[tuple[str, str]]:
    return [(finding.code, finding.where) for finding in judge({**FINE, **changes})]


def test_versions_that_fit_have_no_finding() -> None:
    assert codes() == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"torchaudio": Installed("2.9.0", ("torch==2.9.0",))}, ("version-outside", "torchaudio")),
        ({"torchaudio": Installed("2.15.0+cpu", ("torch",))}, ("other-build", "torchaudio")),
        ({"transformers": Installed("4.57.0")}, ("version-outside", "multitune")),
        ({"transformers": Installed("5.23.0", ("numpy<2",))}, ("version-outside", "transformers")),
        ({"torch": Installed("2.15.0", ("triton",))}, ("not-installed", "torch")),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Installed], found: tuple[str, str]) -> None:
    assert codes(**changes) == [found]


def test_a_finding_on_versions_says_what_to_install() -> None:
    (finding,) = judge({**FINE, "transformers": Installed("4.57.0")})
    assert "needs transformers<6,>=5.17, and here is transformers 4.57.0" in finding.message
    assert finding.remedy == 'python -m pip install --upgrade "transformers<6,>=5.17"'


def test_packages_of_no_concern_are_not_judged() -> None:
    assert codes(other=Installed("1", ("numpy<1",))) == []


def test_the_limit_of_a_container_counts_for_cores_and_threads(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    found = machine.cores(tmp_path)
    assert (found.given, found.usable) == (1.5, 1)
    many = machine.Cores(there=64, allowed=64, given=2.0)
    assert [f.code for f in machine.threads(many, {})] == ["cores-limited"]
    assert [f.code for f in machine.threads(many, {"OMP_NUM_THREADS": "16"})] == ["too-many-threads"]
    assert [f.code for f in machine.threads(many, {"OMP_NUM_THREADS": "many"})] == ["threads-unreadable"]
    assert list(machine.threads(many, {"OMP_NUM_THREADS": "2"})) == []
    assert list(machine.threads(machine.Cores(8, 8, 0.0), {})) == []


def test_the_limit_of_a_container_counts_for_memory(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       65536000 kB\nMemAvailable:   60000000 kB\n")
    assert machine.memory(tmp_path, info) == (65536000 * 1024, 60000000 * 1024)
    (tmp_path / "memory.max").write_text(f"{3 * machine.GB}")
    (tmp_path / "memory.current").write_text(f"{2 * machine.GB}")
    total, free = machine.memory(tmp_path, info)
    assert (total, free) == (3 * machine.GB, machine.GB)
    assert [f.code for f in machine.little_memory(free)] == ["little-memory"]


def test_a_folder_that_is_not_there_yet_is_judged_by_what_holds_it(tmp_path: Path) -> None:
    free, findings = machine.disk({"own cache": tmp_path / "not" / "yet"})
    assert free["own cache"] > 0
    assert [f.code for f in findings] in ([], ["little-disk"])


def test_what_is_offline_is_told() -> None:
    assert machine.network({"HF_HUB_OFFLINE": "1"})[0].startswith("offline (HF_HUB_OFFLINE)")
    assert machine.network({"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "x"}) == ["online, as far as the environment says", "HF_ENDPOINT is set"]


def test_the_quick_look_reports_this_machine() -> None:
    result = multitune.doctor(quick=True)
    assert result.figures["cores"] >= 1
    assert "versions" in result.text
    assert "trial" not in result.text


@pytest.mark.line
def test_the_trial_trains_saves_opens_and_asks_and_the_opened_model_says_the_same() -> None:
    from multitune.verbs.doctor.trying import attempt

    tried = attempt("cpu")
    assert tried.findings == ()
    assert tried.figures["cpu/parity"] == 0


@pytest.mark.line
def test_a_trial_that_fails_is_a_finding_and_no_traceback() -> None:
    import torch

    from multitune.verbs.doctor.trying import attempt

    tried = attempt("cuda" if torch.backends.mps.is_available() else "mps")  # which this machine does not have
    assert [finding.code for finding in tried.findings] == ["self-test"]
