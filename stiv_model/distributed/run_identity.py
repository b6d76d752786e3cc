"""Which run this is: two descriptions of the same identity compute the same, wherever and on however many ranks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

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


_NEUTRAL: Mapping[str, JsonValue] = {
    "recipe.decay.kind": "constant",
    "recipe.balance": None,
    "training.clean_frame_loss": False,
    "training.temporal_mask_ratio": 0.0,
    "training.timestep_shift": 1.0,
    "model.causal_time": False,
    "model.temporal_gain": 0.0,
    "model.temporal_contrast": 0.0,
    "model.positions.std": 0.02,
    "model.temporal_modulation": False,
    "model.image_condition": "replacement",
    "model.cross_attention_norm": False,
}
"""What a run computes that says nothing of a key: one that began in a release without it goes on. A new settings key
belongs here, with the value at which it changes no step."""
_LONGER, _DECAY = "recipe.steps", "recipe.decay.kind"


class Difference(NamedTuple):
    """A settings key of which a run says something else than it did; None where it says nothing."""

    key: str
    before: JsonValue
    now: JsonValue

    def __str__(self) -> str:
        was = "was not there" if self.before is None else f"was {self.before}"
        return f"{self.key} {was}, {'is gone' if self.now is None else f'is {self.now}'}"


def identity(run: Run) -> dict[str, JsonValue]:
    """Return what a run is, by dotted settings key; what watches it is no part of that."""
    return identity_of(run.model_dump(mode="json"))


def identity_of(recorded: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return what a run is by its run.json, which may be that of a release with other keys."""
    training = {key: value for key, value in recorded.get("training", {}).items() if key not in _HOW}
    return _flat({key: value for key, value in recorded.items() if key not in _OUTSIDE} | {"training": training})


def differences(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> list[Difference]:
    """Return in what two identities differ by meaning, by key, where the later one is not the earlier one gone on.

    A key that only one of them has is no difference where the other has the value that changes nothing, and a run whose
    steps only became more goes on: no step that it has taken would have been another. Where its learning rate decays
    over the last steps, some would have been.
    """
    found = [
        Difference(key, before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key, _NEUTRAL.get(key)) != now.get(key, _NEUTRAL.get(key))
    ]
    is_constant = now.get(_DECAY, _NEUTRAL[_DECAY]) == _NEUTRAL[_DECAY]
    return [] if is_constant and [one.key for one in found] == [_LONGER] and _is_more(found[0]) else found


def told(found: list[Difference]) -> str:
    """Return a few differences as words, and how many more there are."""
    few = ", ".join(map(str, found[:3]))
    return few if len(found) <= 3 else f"{few}, and {len(found) - 3} more"


def _is_more(steps: Difference) -> bool:
    return isinstance(steps.before, int) and isinstance(steps.now, int) and steps.now > steps.before


def _flat(section: Mapping[str, Any], at: str = "") -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return flat
