"""Train the embedded captioner from random weights: `python -m tasks.demo.train_captioner --help`.

The result is small enough to live in the repository, so that captions by a model, and what such a captioner invents,
can be had with no download. It is made from `shapes` scenes of all combinations: it describes, and nobody asks it for
a combination that it has not seen.
"""

import argparse
import logging
import math
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stiv_model.captioner.captioner import SmallCaptioner, load_captioner, save_captioner, to_picture
from stiv_model.captioner.files import BEGIN, END, PAD, CaptionerConfig, index_of
from stiv_model.captioner.network import CaptionerNetwork
from tasks.decoding import measures
from tasks.demo import shapes
from tasks.demo.look import BACKGROUNDS, TEXTURED, Look
from tasks.storage import atomic

log = logging.getLogger(__name__)

FRAMES = 4
"""As many stills as stage shots stores of a shot (`shots.stills`)."""
STILL_TIMES = np.array([4, 9, 14, 19]) / 19
"""When the stills of a video of 20 frames are taken (`cuts.Piece.chosen_stills`); 0 is its first frame, 1 its last."""
VIDEO_PIXELS = 128
"""Of the videos of the corpus, and so of their stills."""

ANYWHERE = Look(TEXTURED.size, TEXTURED.travel, BACKGROUNDS)
"""Small objects that may start anywhere: one frame does not say where one moves."""
LARGE = Look((0.42, 0.58), (0.2, 0.3), BACKGROUNDS)
CENTRAL = Look((0.44, 0.58), (0.2, 0.28), BACKGROUNDS, start=0.4, across=(0.36, 0.64))
"""As in the demo and in `make learn`: an object starts near the middle."""
LOOKS = (ANYWHERE, LARGE, ANYWHERE, CENTRAL)
"""Of scenes in turn."""
HELD_OUT_EVERY = 8
"""One scene in so many is of a held-out combination, of which there are 12 of 96."""

LEARNING_RATE = 1e-3
WARMUP_STEPS = 100
OTHER_WORDS = 0.1
"""Weight of words that no picture decides: how a sentence is built is learnt in no time, and partly chance."""
FEWER_FRAMES_SHARE = 0.2
"""Share of the steps whose sentences are about two or three frames."""
TEST_SEED_OFFSET = 1
"""Scenes for measuring are those of the next seed."""

EXAMPLE = """example:
  OMP_NUM_THREADS=1 python -m tasks.demo.train_captioner --out stiv_model/embedded/captioner
"""


class Accuracy(NamedTuple):
    """Shares of scenes of which a word was right."""

    colour: float
    shape: float
    direction: float
    background: float
    """Of the captions that name one."""


def split_words(text: str) -> list[str]:
    """Return the words of a caption; a comma is one."""
    return text.replace(",", " ,").split()


def make_config() -> CaptionerConfig:
    """Return the sizes of the shipped network, and the words of all captions of `shapes`."""
    kinds = {
        "colour": shapes.COLOURS,
        "shape": shapes.SHAPES,
        "direction": shapes.DIRECTIONS,
        "background": BACKGROUNDS,
    }
    scene = shapes.scene(0, 0, held_out=False)
    captions = [shapes.caption(scene._replace(template=number)) for number in range(shapes.TEMPLATES)]
    words = {word for text in captions for word in split_words(text)}
    return CaptionerConfig(
        pixels=64,
        frames=FRAMES,
        channels=(16, 48, 96),
        frame_tokens=4,
        features=128,
        layers=2,
        max_words=24,
        words=(PAD, BEGIN, END, *sorted(words.union(*kinds.values()))),
        kinds=kinds,
    )


def still_scene(seed: int, number: int, held_out: bool, look: Look) -> tuple[shapes.Scene, list[bytes]]:
    """Return a scene and its stills, taken as stage shots takes them."""
    scene = shapes.scene(seed, number, held_out, look)
    return scene, take_stills(scene, STILL_TIMES)


def take_stills(scene: shapes.Scene, times: np.ndarray) -> list[bytes]:
    """Return the scene at these times, 0 to 1, as JPEG."""
    return [measures.jpeg(frame[..., ::-1]) for frame in shapes.render_at(scene, VIDEO_PIXELS, times)]


def still_times(random: np.random.Generator) -> np.ndarray:
    """Return times of stills at even distances, anywhere in the scene."""
    distance = random.uniform(0.2, 1 / (FRAMES - 1))
    return random.uniform(0, 1 - (FRAMES - 1) * distance) + distance * np.arange(FRAMES)


class Scenes:
    """Scenes as the network sees them, and what is said of them.

    Args:
        count: how many.
        seed: of the scenes, and of what a batch is drawn by.
        config: the network's.
    """

    def __init__(self, count: int, seed: int, config: CaptionerConfig) -> None:
        self.random, self.config = np.random.default_rng(seed), config
        shape = (count, FRAMES, 3, config.pixels, config.pixels)
        self.pictures_NFCHW = torch.empty(shape, dtype=torch.uint8)
        self.words_NT = torch.full((count, config.max_words), index_of(PAD))
        for number in range(count):
            scene = shapes.scene(seed, number, number % HELD_OUT_EVERY == 0, LOOKS[number % len(LOOKS)])
            stills = take_stills(scene, still_times(self.random))
            seen = torch.stack([to_picture(still, config.pixels) for still in stills])
            self.pictures_NFCHW[number] = (255 * seen).round()
            said = [BEGIN, *split_words(shapes.caption(scene)), END]
            self.words_NT[number, : len(said)] = torch.tensor([config.words.index(word) for word in said])
        words_of_kinds = {word for kind in config.kinds.values() for word in kind}
        self.weights_V = torch.tensor([1.0 if word in words_of_kinds else OTHER_WORDS for word in config.words])
        self._mirrored = self._swapping(("left", "right"))
        self._reversed = self._swapping(("left", "right"), ("up", "down"))

    def _swapping(self, *pairs: tuple[str, str]) -> Tensor:
        swapped = dict(pairs) | {second: first for first, second in pairs}
        return torch.tensor([self.config.words.index(swapped.get(word, word)) for word in self.config.words])

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return pictures (B, F, C, H, W) from 0 to 1 and words (B, T), some mirrored, some played backwards.

        Backwards, an object comes from where it went: so a single frame never says where one moves.
        """
        chosen = torch.from_numpy(self.random.integers(len(self.words_NT), size=size))
        pictures, words = self.pictures_NFCHW[chosen].float() / 255, self.words_NT[chosen]
        for flipped_dim, swapped in ((-1, self._mirrored), (1, self._reversed)):
            is_flipped = torch.from_numpy(self.random.random(size) < 0.5)
            flipped = pictures.flip(flipped_dim)
            pictures = torch.where(is_flipped[:, None, None, None, None], flipped, pictures)
            words = torch.where(is_flipped[:, None], swapped[words], words)
        longest = int((words != index_of(PAD)).sum(dim=1).max())
        return pictures, words[:, :longest]

    def frames(self) -> list[int]:
        """Return which frames a step's sentences are about: mostly all."""
        is_fewer = self.random.random() < FEWER_FRAMES_SHARE
        count = int(self.random.integers(2, FRAMES)) if is_fewer else FRAMES
        return sorted(self.random.choice(FRAMES, count, replace=False).tolist())


def loss(network: CaptionerNetwork, scenes: Scenes, seen_BSD: Tensor, words_BT: Tensor) -> Tensor:  # noqa: N803
    """Return the weighted cross-entropy of each next word."""
    logits_BTV, _ = network.next_words(seen_BSD, words_BT[:, :-1])  # noqa: N806 (shape suffix)
    return nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1), words_BT[:, 1:].flatten(), scenes.weights_V, ignore_index=index_of(PAD)
    )


def step_loss(network: CaptionerNetwork, scenes: Scenes, batch: int) -> Tensor:
    """Return the loss of sentences about all frames plus half of that of sentences about a single one."""
    pictures, words = scenes.batch(batch)
    tokens_BFQD = network.see(pictures.flatten(0, 1)).unflatten(0, (batch, FRAMES))  # noqa: N806
    single = torch.from_numpy(scenes.random.integers(FRAMES, size=batch))
    together = network.relate(tokens_BFQD[:, scenes.frames()])
    alone = network.relate(tokens_BFQD[torch.arange(batch), single, None])
    return loss(network, scenes, together, words) + 0.5 * loss(network, scenes, alone, words)


def still_scenes(
    count: int, seed: int, look: Look = ANYWHERE, held_out: bool = False
) -> list[tuple[shapes.Scene, list[bytes]]]:
    """Return the first scenes of this seed, each with its stills."""
    return [still_scene(seed, number, held_out, look) for number in range(count)]


def accuracy_of(
    describe: Callable[[Sequence[bytes]], str], scenes: Sequence[tuple[shapes.Scene, list[bytes]]]
) -> Accuracy:
    """Return how often a captioner is right.

    Args:
        describe: stills to sentence.
        scenes: each with its stills.
    """
    right: dict[str, list[bool]] = {kind: [] for kind in Accuracy._fields}
    for scene, stills in scenes:
        words = split_words(describe(stills))
        for kind in ("colour", "shape", "direction"):
            known = getattr(shapes, f"{kind.upper()}S")
            right[kind].append([word for word in words if word in known] == [getattr(scene, kind)])
        right["background"] += [word == scene.background for word in words if word in BACKGROUNDS]
    return Accuracy(*(float(np.mean(values)) if values else math.nan for values in right.values()))


def train(scenes: Scenes, steps: int, batch: int, log_steps: int, seed: int) -> CaptionerNetwork:
    """Train for `steps` optimizer steps; a half cosine to zero after a warm-up."""
    network = CaptionerNetwork(scenes.config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    for step in range(1, steps + 1):
        fade = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, step / WARMUP_STEPS) * fade
        value = step_loss(network, scenes, batch)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
        if step % log_steps == 0 or step == steps:
            accuracy = accuracy_of(SmallCaptioner(network, "").describe, still_scenes(48, seed + TEST_SEED_OFFSET))
            network.train()
            log.info("step %d of %d, loss %.3f, CPU %.0f s", step, steps, np.mean(losses), time.process_time())
            log.info("of 48 scenes: %s", "  ".join(f"{k} {v:.2f}" for k, v in accuracy._asdict().items()))
            losses.clear()
    return network


def readme(
    captioner: SmallCaptioner, rows: Sequence[tuple[str, Accuracy]], count: int, seconds: float, command: str
) -> str:
    """Return what stands beside the weights: what they are, how they were made, and how often they are right.

    Args:
        rows: what was measured, each of `count` scenes.
        seconds: CPU time that the training took.
        command: that made them.
    """
    weights = sum(values.numel() for values in captioner.network.parameters())
    table = "\n".join(
        f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in accuracy) + " |" for name, accuracy in rows
    )
    return f"""# The embedded captioner

A network of {weights:,} weights that writes sentences about stills of `shapes` (tasks/demo/shapes.py), and
about nothing else. Made from random weights in {seconds:.0f} CPU seconds on one core by

    {command}

sha256 of config and weights together, as captions name it: `{captioner.sha256}`.

Right words, per cent of {count} scenes that it was not trained on, of which {len(STILL_TIMES)} stills were taken as
stage shots takes them (docs/captioner.md):

| | colour | shape | direction | background |
|---|---|---|---|---|
{table}
"""


def measure_all(captioner: SmallCaptioner, count: int, seed: int) -> list[tuple[str, Accuracy]]:
    """Return the rows of the README: of each look, and of held-out combinations, both ways of describing."""
    rows = []
    for name, look, held_out in (
        ("objects that start anywhere", ANYWHERE, False),
        ("the same, held-out combinations", ANYWHERE, True),
        ("large objects", LARGE, False),
        ("objects that start near the middle", CENTRAL, False),
    ):
        scenes = still_scenes(count, seed, look, held_out)
        for way, describe in (("all frames", captioner.describe), ("one frame at a time", captioner.describe_merged)):
            rows.append((f"{name}, {way}", accuracy_of(describe, scenes)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, replaced if it exists")
    parser.add_argument("--scenes", type=int, default=3000, help="different scenes (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2500, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="scenes per step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=16, help="of weights and scenes (default: %(default)s)")
    parser.add_argument("--log-steps", type=int, default=250, help="measure every so many steps")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)  # sums in the same order on every machine
    torch.manual_seed(options.seed)
    scenes = Scenes(options.scenes, options.seed, make_config())
    log.info("%d scenes, CPU %.0f s", options.scenes, time.process_time())
    network = train(scenes, options.steps, options.batch, options.log_steps, options.seed)
    command = f"OMP_NUM_THREADS=1 python -m tasks.demo.train_captioner {shlex.join(sys.argv[1:])}"
    save(network, options.out, command, options.seed + TEST_SEED_OFFSET)


def save(network: CaptionerNetwork, folder: Path, command: str, seed: int, count: int = 300) -> None:
    """Write weights, config and README.md with what was measured, whole or not at all."""
    work = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    save_captioner(network, work)
    seconds, captioner = time.process_time(), load_captioner(work)
    text = readme(captioner, measure_all(captioner, count, seed), count, seconds, command)
    (work / "README.md").write_text(text)
    for file in work.iterdir():
        file.chmod(0o644)  # safetensors leaves its files readable by their owner only
    atomic.finish(work, folder)


if __name__ == "__main__":
    main()
