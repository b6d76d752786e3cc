"""What all comparisons of `benchmarks.recipe` share: sizes, the corpus' look, the model, and how stages are described.

The values are the demo's (params.yaml) of the day on which the comparisons were set up, stated here one by one, so that
a demo with other values leaves the results as they are.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flows.params import load_params
from stiv_model.latents.dataset import Batch
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import (
    ConstantRate,
    LearnedSettings,
    ModelSettings,
    RecipeSettings,
    RotarySettings,
    SamplerSettings,
    TrainingSettings,
)
from stiv_model.training.loss import draw, losses
from tasks.demo.look import Look

PARAMS = load_params()
Kind = Literal["large", "small", "spoilt"]
"""Of clips: 64 pixels, 32 pixels, 64 pixels of which nine in ten are spoilt."""
Part = Literal["all", "best_tenth", "any_tenth"]
"""Of the clips of a kind, that a stage trains on."""
SIDES: dict[Kind, int] = {"large": 64, "small": 32, "spoilt": 64}
MICRO = (128.0, 128.0, 0.0, 0.0)
"""The micro-conditions of the source video's size and crop."""
LOOK = Look(size=(0.54, 0.58), travel=(0.2, 0.21), backgrounds=("shaded", "plain"), start=0.46, across=(0.46, 0.54))
TEXT = PARAMS.text.model_copy(update={"tokens": 17})
LEARNED = LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=5, std=0.5)
ROTARY = RotarySettings(kind="rotary", base=10000.0, spatial_scale=1.0, temporal_scale=1.0)
GFLOP_PER_SECOND = 33.0
"""What one core of the machine of docs/recipe.md does: seconds in the plans stand for so much arithmetic each."""
_MODEL = {
    **{"width": 96, "depth": 3, "unmasked_depth": 1, "heads": 4, "ffn_ratio": 4.0, "spatial_patch": 2},
    **{"temporal_patch": 2, "norm_epsilon": 1e-6, "qk_norm": True, "sandwich_norm": True, "condition_norm": True},
    **{"cross_attention_norm": False, "micro_conditions": True, "adaln": "shared", "temporal_modulation": False},
    **{"causal_time": False, "temporal_gain": 0.2, "temporal_contrast": 0.0, "image_condition": "replacement"},
    **{"positions": LEARNED},
}
MODEL = PARAMS.model.model_copy(update=_MODEL)
_OPTIMIZER = {"kind": "adamw", "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "clip_norm": 1.0, "ema_decay": 0.98}
TRAINING = PARAMS.training.model_copy(
    update={
        "timestep_density": "logit_normal",
        "timestep_shift": 3.0,
        "temporal_mask_ratio": 0.0,
        "clean_frame_loss": False,
        "optimizer": PARAMS.training.optimizer.model_copy(update=_OPTIMIZER),
    }
)
SAMPLER = PARAMS.sampler.model_copy(
    update={
        **{"solver": "euler", "steps": 12, "shift": 3.0, "guidance": "joint", "guidance_scale": 2.0},
        **{"guidance_start": 0.0, "guidance_end": 1.0, "renormalise": False, "batch_guidance": True},
    }
)


class Size(NamedTuple):
    """How large the comparisons are; another size has other results."""

    clips: int = 420
    held_out: int = 48
    """Clips of held-out combinations, whose captions and first frames are the prompts."""
    compute: float = 1.0
    """Times the compute of every stage."""
    sampling_steps: int = 12


class Stage(NamedTuple):
    """One training: what it starts from, what it sees, and for how long. A seed makes weights of it."""

    name: str
    kind: Kind
    part: Part
    every: int
    """Frames of a clip from one frame of a sample to the next."""
    model: ModelSettings
    recipe: RecipeSettings
    training: TrainingSettings
    size: Size
    parent: "Stage | None"
    temporal_parent: "Stage | None"

    @property
    def is_video(self) -> bool:
        return self.recipe.frames > 1

    @property
    def gflop(self) -> float:
        """Of its own steps, forward and backward."""
        return self.recipe.steps * self.recipe.batch * gflop_of(self.model, self.recipe, self.kind)

    def ancestors(self) -> Iterator["Stage"]:
        """Yield all stages that its weights come from, each once, the first ones first; itself is the last."""
        found: dict[Stage, None] = {}
        for parent in (self.parent, self.temporal_parent):
            if parent is not None:
                found |= dict.fromkeys(parent.ancestors())
        yield from found
        yield self

    def described(self) -> dict[str, Any]:
        """Return all that decides about the weights but the seed, as JSON has it."""
        own = self._asdict() | {part: getattr(self, part).model_dump() for part in ("recipe", "model")}
        # results are known by a hash of this, and older ones do not say these
        if own["recipe"]["balance"] is None:
            del own["recipe"]["balance"]
        if not own["model"]["temporal_contrast"]:
            del own["model"]["temporal_contrast"]
        own["training"] = {name: getattr(self.training, name) for name in _DECIDE} | {
            "optimizer": self.training.optimizer.model_dump()
        }
        own["size"] = self.size._asdict()
        return own | {
            name: at and at.described()
            for name, at in (("parent", self.parent), ("temporal_parent", self.temporal_parent))
        }


_DECIDE = ("timestep_density", "timestep_shift", "temporal_mask_ratio", "clean_frame_loss")


class Plan:
    """Makes stages, by the seconds of one core that their arithmetic would take.

    Args:
        size: of all of them.
    """

    def __init__(self, size: Size):
        self.size = size

    def images(self, name: str, seconds: float, **changes: Any) -> Stage:
        """Return a stage of T2I with the demo's settings, but for `changes`; half of its steps decay."""
        return self.stage(name, seconds, **{"frames": 1, "batch": 64, "rate": 5e-3, "decay": 0.5} | changes)

    def videos(self, name: str, seconds: float, parent: Stage | None, **changes: Any) -> Stage:
        """Return a stage of videos with the demo's settings, but for `changes`; none of its steps decays."""
        return self.stage(
            name, seconds, **{"frames": 10, "batch": 16, "rate": 3e-3, "decay": 0.0, "parent": parent} | changes
        )

    def stage(
        self,
        name: str,
        seconds: float,
        *,
        frames: int,
        batch: int,
        rate: float,
        decay: float,
        parent: Stage | None = None,
        temporal_parent: Stage | None = None,
        kind: Kind = "large",
        part: Part = "all",
        every: int = 2,
        model: ModelSettings = MODEL,
        mask_ratio: float = 0.0,
        clean_frames: str = "none",
        image_dropout: float = 0.0,
    ) -> Stage:
        """Return a stage.

        Args:
            name: in the tables.
            seconds: of one core, at `GFLOP_PER_SECOND`; they decide the number of steps.
            frames: of a sample.
            batch: samples per step.
            rate: peak of the learning rate.
            decay: share of the steps over which it falls to zero.
            parent: whose weights it starts from.
            temporal_parent: from which it has temporal attention.
            kind, part, every: which clips, and which of their frames.
            model: that is trained.
            mask_ratio, clean_frames, image_dropout: as recipes have them.
        """
        given = {"frames": frames, "batch": batch, "learning_rate": rate, "mask_ratio": mask_ratio}
        given |= {
            "clean_frames": clean_frames,
            "text_dropout": 0.1,
            "image_dropout": image_dropout,
            "best_fraction": 1.0,
            "balance": None,
        }
        any_steps = RecipeSettings(steps=1, warmup_steps=1, decay={"kind": "constant"}, **given)
        cost = batch * gflop_of(model, any_steps, kind)
        steps = max(3, round(self.size.compute * seconds * GFLOP_PER_SECOND / cost))
        falling = min(round(decay * steps), steps - 1)
        fall = {"kind": "linear", "steps": falling, "floor": 0.0} if falling else {"kind": "constant"}
        recipe = RecipeSettings(
            steps=steps, warmup_steps=max(1, min(20, steps // 6, steps - falling)), decay=fall, **given
        )
        return Stage(name, kind, part, every, model, recipe, TRAINING, self.size, parent, temporal_parent)


def gflop_of(model: ModelSettings, recipe: RecipeSettings, kind: Kind) -> float:
    """Return the floating-point operations of forward and backward of one sample, in 10^9, as PyTorch counts them."""
    alike = {"steps": 1, "batch": 1, "learning_rate": 1.0, "warmup_steps": 1, "image_dropout": 0.0}
    alike |= {"decay": ConstantRate(kind="constant")}
    return _gflop(model, recipe.model_copy(update=alike), SIDES[kind] // 8)


@cache
def _gflop(model: ModelSettings, recipe: RecipeSettings, side: int) -> float:
    network = StivTransformer(model, recipe.frames > 1)
    latents = torch.zeros(1, recipe.frames, model.latent_channels, side, side)
    tokens, pooled = torch.zeros(1, TEXT.tokens, model.text_width), torch.zeros(1, model.text_width)
    text = Text(tokens, torch.ones(1, TEXT.tokens).bool(), pooled)
    batch = Batch([0], latents, text, torch.ones(1, len(MICRO_CONDITIONS)))
    draws = draw([0], latents.shape[1:], side**2 // model.spatial_patch**2, recipe, TRAINING)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        losses(network, batch, draws, text, recipe, TRAINING).mean().backward()
    return counter.get_total_flops() / 1e9


def sampler(steps: int, **changes: Any) -> SamplerSettings:
    """Return the demo's sampler with so many steps, but for `changes`."""
    return SAMPLER.model_copy(update={"steps": steps} | changes)
