"""The options of every command that makes videos, by diffusers' names with dashes."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from flows.command_line import Options


class VideoOptions(Options):
    """What a video is made of, by which model, and where it goes."""

    out: Path
    """File for the video (mp4); its settings are written beside it as JSON. Where several are made, a folder for
    them."""
    prompt: str | None = None
    """What the video shall show, in words."""
    prompts: Path | None = None
    """Text file with a prompt on each line, in place of --prompt."""
    negative_prompt: str | None = None
    """What the video shall not show, in words."""
    image: Path | None = None
    """Picture file that becomes the first frame: turned upright, scaled to cover the size of the video, and cut at its
    centre."""
    last_image: Path | None = None
    """Picture file that becomes the last frame."""
    video: Path | None = None
    """Video file whose last frames become the first ones, as many as the model was trained to be given."""
    num_frames: PositiveInt | None = None
    """Frames of the video, the given ones among them (default: those of the model, as height, width, steps and guidance
    are)."""
    height: PositiveInt | None = None
    """Of the video, pixels."""
    width: PositiveInt | None = None
    """Of the video, pixels."""
    num_inference_steps: PositiveInt | None = None
    """Sampling steps from noise to video."""
    guidance: Literal["text", "joint", "separate"] | None = None
    """What guidance strengthens: text, text and image together (joint), or each by a scale of its own (separate)."""
    guidance_scale: NonNegativeFloat | None = None
    """How much the video follows the prompt; 1 is no guidance."""
    image_guidance_scale: NonNegativeFloat | None = None
    """How much the video follows its given frames, with --guidance separate; 1 is no guidance."""
    seed: int = 0
    """Seed of the starting noise: the same seed makes the same video."""
    num_videos: PositiveInt = 1
    """Videos of each prompt, with this seed and the next ones."""
    fps: PositiveFloat | None = None
    """Frames per second of the file (default: those that follow from --video, else 8)."""
    checkpoint: Path | None = None
    """Folder of trained weights, as a training stage wrote it; size and sampler are those of params.yaml."""
    pipeline: str | None = None
    """Pipeline folder, as `stiv export` wrote it, or the name of one on the hub."""
    again: Path | None = None
    """The JSON beside a video: make that video again, byte for byte; only --out, and where the model lies now
    (--checkpoint or --pipeline), go with it."""
    untrained: bool = False
    """Go on where the model was never trained for such given frames, such a length or such a stride; the JSON says
    so."""
