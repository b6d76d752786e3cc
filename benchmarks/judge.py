"""How often the judge of shapes is right on videos of which the truth is known, and on what is no good video.

    python benchmarks/judge.py --videos 96 --json judge.json

with the folder of the repository on PYTHONPATH or the package installed. Real clips: scenes drawn as the corpus is, at
64 x 64 and 8, 10 and 16 frames (a third of them held-out combinations), as drawn and after the embedded VAE, which is
the most that a model can reach. Counted are videos of which colour, shape, direction and movement are all right, that
are one object, and whose object is the same in all frames; with the smallest values and the largest. Counter-examples,
made of the same clips after the VAE, are no such videos: there the share that passes for one is an error of the judge.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from flows.params import load_params
from stiv_model.encoders import vae
from stiv_model.encoders.pixels import to_frames, to_pixels
from tasks.demo import shapes
from tasks.demo.look import BACKGROUNDS, LARGEST, MARGIN, SHORTEST, SMALLEST, TEXTURED, Look

ROOT = Path(__file__).parents[1]
SEED = 4000
LOOKS = {
    "0.25 to 0.42, textured": TEXTURED,
    "0.45 to 0.60, any background": Look((0.45, 0.6), (SHORTEST, 0.36), BACKGROUNDS),
    "smallest, any background": Look((SMALLEST, SMALLEST), (SHORTEST, 1 - 2 * MARGIN - SMALLEST), BACKGROUNDS),
    "largest, any background": Look((LARGEST, LARGEST), (SHORTEST, 1 - 2 * MARGIN - LARGEST), BACKGROUNDS),
}
STRIDE = 3


def scene(number: int, look: Look) -> shapes.Scene:
    return shapes.scene(SEED, number, held_out=number % 3 == 0, look=look)


def clip(drawn: shapes.Scene, frames: int) -> np.ndarray:
    """Return a scene as stage latents takes it: every third frame, 64 x 64, uint8 RGB (T, H, W, 3)."""
    pictures = shapes.render(drawn, 128, frames * STRIDE)[::STRIDE]
    return np.stack([cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA) for picture in pictures])


def through_vae(encoder: vae.Vae, video: np.ndarray) -> np.ndarray:
    """Return a video (T, H, W, 3) as the VAE decodes its own latents of it."""
    return to_frames(encoder.decode(encoder.encode(to_pixels(video))))


def figures(seen: list[shapes.Verdict], drawn: list[shapes.Scene]) -> dict[str, Any]:
    """Return how many were right, one object and the same object, and the smallest values of these."""
    right = sum(
        (verdict.colour, verdict.shape, verdict.direction) == (one.colour, one.shape, one.direction) and verdict.moved
        for verdict, one in zip(seen, drawn, strict=True)
    )
    return {
        "videos": len(seen),
        "right": right,
        "one_object": sum(verdict.is_one_object for verdict in seen),
        "same_object": sum(verdict.is_same_object for verdict in seen),
        "least_concentration": min(verdict.concentration for verdict in seen),
        "least_continuity": min(verdict.continuity for verdict in seen),
        "greatest_continuity": max(verdict.continuity for verdict in seen),
        "keep_form": sum(verdict.keeps_form for verdict in seen),
    }


def spoilt(videos: list[np.ndarray], drawn: list[shapes.Scene], encode: Callable[..., np.ndarray]) -> Iterator[Any]:
    """Yield name and videos of every kind of counter-example."""
    random, count, frames = np.random.default_rng(0), len(videos), len(videos[0])
    own = range(frames)
    yield (
        "frames of different videos",
        [np.stack([videos[random.integers(count)][at] for at in own]) for _ in videos],
    )
    yield "half of another video", [np.stack([*a[: frames // 2], *b[frames // 2 :]]) for a, b in pairs(videos)]
    yield "another object beside it", [np.maximum(a, np.roll(a[::-1], 32, axis=2)) for a in videos]
    changed = [one._replace(shape=shapes.SHAPES[(shapes.SHAPES.index(one.shape) + 1) % 4]) for one in drawn]
    others = [encode(clip(one, frames)) for one in changed]
    yield (
        "another shape from the middle on",
        [np.stack([*a[: frames // 2], *b[frames // 2 :]]) for a, b in zip(videos, others, strict=True)],
    )
    fade = np.linspace(0, 1, frames)[:, None, None, None]
    yield (
        "one shape turns into another",
        [np.rint(a * (1 - fade) + b * fade).astype(np.uint8) for a, b in zip(videos, others, strict=True)],
    )
    grown = [[clip(one._replace(size=one.size * scale), frames) for scale in (0.85, 1.15)] for one in drawn]
    yield "grows by a third", [np.stack([*a[: frames // 2], *b[frames // 2 :]]) for a, b in grown]
    yield "flickering blobs", [blobs(random, frames) for _ in videos]


def pairs(videos: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(videos, videos[1:] + videos[:1], strict=True)


def blobs(random: np.random.Generator, frames: int) -> np.ndarray:
    """Return a video of soft blobs of one colour, which change every frame, as a model makes that has learnt little."""
    field = random.normal(size=(frames, 6, 6)).astype(np.float32)
    cover = np.clip([4 * (cv2.resize(one, (64, 64), interpolation=cv2.INTER_CUBIC) - 0.5) for one in field], 0, 1)
    return np.rint(128 + cover[..., None] * np.array([110, -100, -100])).astype(np.uint8)


def measure(videos: int, lengths: list[int]) -> dict[str, dict[str, Any]]:
    """Return the figures of every kind of video by name."""
    encoder = vae.load(load_params(ROOT / "params.yaml").vae)
    found: dict[str, dict[str, Any]] = {}

    def encode(video: np.ndarray) -> np.ndarray:
        return through_vae(encoder, video)

    def note(name: str, made: list[np.ndarray], drawn: list[shapes.Scene]) -> None:
        found[name] = figures([shapes.judge(video) for video in made], drawn)
        print(name, json.dumps(found[name]), flush=True)

    for look_name, look in LOOKS.items():
        for frames in lengths if look_name in list(LOOKS)[:2] else lengths[:1]:
            drawn = [scene(number, look) for number in range(videos)]
            made = [clip(one, frames) for one in drawn]
            note(f"{look_name}, {frames} frames", made, drawn)
            decoded = [encode(video) for video in made]
            note(f"{look_name}, {frames} frames, after the VAE", decoded, drawn)
            if frames == lengths[0] and look is TEXTURED:
                for name, wrong in spoilt(decoded, drawn, encode):
                    note(name, wrong, drawn)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=96, help="of each kind")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 10, 16])
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.videos, options.frames)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
