"""Multi-view: one view of an object is given, and six more are made (paper, section 5 and appendix J.3).

Shapes: V views, H height, W width.
"""

from typing import Any

import numpy as np

from stiv_model.diffusion.cameras import FRAMES, GIVEN_FRAMES, GUIDANCE_SCALE
from stiv_model.pipeline.one_video import VideoModel, make_video


def views(model: VideoModel, image: np.ndarray, seed: int = 0, **call: Any) -> np.ndarray:
    """Return the six views of an object, uint8 RGB (V, H, W, 3), from `cameras.CAMERAS`.

    Args:
        model: a `StivPipeline`.
        image: the given view, uint8 RGB (H, W, 3), of the size that is made.
        seed: of the starting noise, which is drawn on the CPU.
        call: more arguments of the call; where they say nothing, `guidance` is joint and `guidance_scale` 3.5.

    Raises:
        ValueError: as the call; or the model was never trained to make views.
    """
    usual = {"num_frames": FRAMES, "stride_frames": 1, "guidance": "joint", "guidance_scale": GUIDANCE_SCALE}
    said = {name: value for name, value in call.items() if value is not None}
    return make_video(model, "", seed, dict.fromkeys(range(GIVEN_FRAMES), image), **(usual | said))[GIVEN_FRAMES:]
