"""Cuts and replay: where a family can be cut, what its rows leave there, and the proof that putting it back changes nothing."""

from multitune.models.replay.cuts import Candidates, Cut, Refusal, Seam, candidates, could_be, places
from multitune.models.replay.probing import probe_rows, probe_sample, probe_samples
from multitune.models.replay.proof import Proof, prove
from multitune.models.replay.recording import Stored, encode_at, encode_rows
from multitune.models.replay.replaying import blanked, replay
from multitune.models.replay.settling import Settled, settle

__all__ = [
    "Candidates", "Cut", "Proof", "Refusal", "Seam", "Settled", "Stored",
    "blanked", "candidates", "could_be", "encode_at", "encode_rows", "places", "probe_rows", "probe_sample", "probe_samples",
    "prove", "replay", "settle",
]  # fmt: skip
