"""Which run this is: two descriptions of the same identity compute the same, wherever and on however many ranks."""

from typing import Any

from pydantic import JsonValue

from stiv_model.settings import Run

_HOW = {
    "ranks",
    "nodes",
    "launcher",
    "device",
    "sequence_ranks",
    "accumulation",
    "activation_checkpointing",
    "zero_stage",
    "persistent_parameters",
    "offload",
    "nvme_path",
    "compile",
    "hang_seconds",
    "checkpoint_seconds",
    "checkpoint_steps",
    "keep_checkpoints",
    "keep_every_steps",
    "validation_steps",
    "validation_prompts",
    "validation_sampling_steps",
    "validation_guidance_scale",
}
"""Training settings that say how a run is computed, not what: they may change when it goes on."""
_OUTSIDE = {"latents", "parent", "temporal_parent", "monitoring"}
"""Paths, since what they lead to is said by its hash; and what watches a run."""


def identity(run: Run) -> dict[str, JsonValue]:
    """Return what a run is, by dotted settings key; what watches it is no part of that."""
    return _flat(run.model_dump(mode="json", exclude={"training": _HOW, **dict.fromkeys(_OUTSIDE, True)}))


def _flat(section: dict[str, Any], at: str = "") -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return flat
