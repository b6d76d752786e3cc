"""What a training leaves in the folder of its run, by name, for those who write it and those who read it later.

Imports nothing that takes time. What a run is given and what it makes is said where that is made: `data_plan.FILE`,
`certificate.START`, `metadata.WEIGHTS`.
"""

LOSSES = "losses.tsv"
"""Loss, gradient norm, learning rate and speed, a line per step."""
NOISE_LEVEL_LOSSES = "noise_levels.tsv"
"""The loss by noise level, a line per step."""
LEDGER = "ledger.tsv"
"""Which samples each step saw."""
INCIDENTS = "incidents.jsonl"
"""The steps that were not taken, and why."""
SHOWN = "shown"
"""The folder that only people look at: what trackers write there, and validation/."""

NOISE_LEVELS = 10
"""Equal intervals of the time t: 0 is noise, 1 is data."""
LEVEL_NAMES = tuple(f"t{level / NOISE_LEVELS:.1f}" for level in range(NOISE_LEVELS))
"""Columns of `NOISE_LEVEL_LOSSES`, each named after the time at which its interval begins."""
