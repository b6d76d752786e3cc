"""`stiv vbench sample`: the videos of VBench's prompts, each with the name that VBench looks for."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from flows.commands import first_frame
from flows.commands.named_model import choose
from flows.commands.sections import Sections
from flows.running import locks
from stiv_model.encoders.text import check_lengths
from stiv_model.encoders.video_file import CODEC, CRF, write_video
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.evaluation.vbench import suite as suites
from tasks.evaluation.vbench.sampled import VIDEOS, SampledFolder
from tasks.evaluation.vbench.suite import Entry, PlannedVideo
from tasks.generation.videos import make_videos
from tasks.storage import atomic

_SCHEMA = 1


def sample(
    out: Path,
    sections: Sections,
    checkpoint: Path | None = None,
    pipeline: str | None = None,
    suite: Path | None = None,
    images: Path | None = None,
    prompts: Path | None = None,
    dimensions: list[str] | None = None,
    shard: str = "1/1",
    fps: int = 8,
    dry_run: bool = False,
    set: list[str] | None = None,
) -> None:
    """Make the videos that VBench measures: of text to video, 6,220 of its 944 prompts; or of another suite.

    OUT/videos gets the videos, named as VBench looks for them; OUT/sampling.json says what made them. A video is whole
    or absent: the same command goes on where it was. A folder whose videos other settings made is refused. The seed of
    a video follows from its name. Which model makes it: as `stiv sample`.

    Args:
        out: Folder for the videos, and for what is said of them.
        checkpoint: Folder of trained weights, as a training stage wrote it.
        pipeline: Pipeline folder, as `stiv export` wrote it, or the name of one on the hub.
        suite: Suite file of VBench's form, in place of that of text to video: vbench2_i2v_full_info.json of VBench-I2V,
            whose every entry has an image_name.
        images: Folder of the suite's images, such as crop/1-1 of VBench-I2V's image suite; each becomes the first
            frame, cropped and resized to the size of the model's videos.
        prompts: File of rewritten prompts, a line for each entry of the suite in the order of `stiv vbench prompts`;
            the names of the videos keep the original ones.
        dimensions: Only the videos that these dimensions are measured on.
        shard: Which part of the videos to make, such as 3/8; each part may be made on another machine.
        fps: Frames per second of the files, which VBench measures motion by.
        dry_run: Only say what would be made.
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices and
            samples may be set.

    examples:
      stiv vbench sample --out vbench/mine --dry-run
      stiv vbench sample --pipeline pipelines/mine --out vbench/mine
      stiv vbench sample --checkpoint checkpoints/sft --out vbench/sft --shard 3/8 --prompts longer.txt
      stiv vbench sample --out vbench/flicker --dimensions temporal_flickering
      stiv vbench sample --out vbench/i2v --suite vbench2_i2v_full_info.json --images crop/1-1

    Raises:
        OSError: a file cannot be read, or nothing can be written.
        ValueError: a request that cannot be followed, a prompt that is too long, or a folder of other settings.
    """
    entries = suites.entries() if suite is None else suites.read_suite(suite)
    texts = None if prompts is None else suites.read_texts(prompts, entries)
    for first, second in suites.twice_rewritten(texts, entries) if texts else []:
        print(f"--prompts {prompts}: lines {first} and {second} are of one prompt: {first} is used", file=sys.stderr)
    wanted = suites.planned(texts, dimensions, entries)
    suites.check_names([video.name for video in wanted], suites.keeps_case(_existing(out)))
    videos = suites.shard(wanted, shard)
    if dry_run:
        print(_told(videos, out, shard))
        return
    if fps < 1:
        raise ValueError(f"--fps {fps}: a video has one frame per second at least")
    given = _given(suite, images, prompts, entries)
    named = choose(checkpoint, pipeline)
    with locks.output(out / shard, "vbench sample"):
        sha256_of = named.sha256()
        model = named.open(sections, set)
        check_lengths(model.tokenizer, [video.text for video in videos], model.defaults.text_tokens)
        settings = given | _settings(sha256_of, model, sections, fps)
        notes = {"model": str(named.checkpoint or named.pipeline), "torch": torch.__version__}
        folder = SampledFolder(out, settings, notes, shard)
        made = _make(folder, videos, model, images, sections.samples.batch, fps)
    print(f"{folder.videos}: {len(videos)} videos of shard {shard}, {made} of them made now")


def _existing(out: Path) -> Path:
    """Return the folder, or the first above it that is there."""
    return next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())


def _told(videos: Sequence[PlannedVideo], out: Path, shard: str) -> str:
    there = sum((out / VIDEOS / video.name).exists() for video in videos)
    longest = max(len(video.name.encode()) for video in videos)
    prompts = len({video.prompt for video in videos})
    of_flicker = sum("temporal_flickering" in video.dimensions for video in videos)
    return (
        f"shard {shard}: {len(videos)} videos of {prompts} prompts, {of_flicker} of them "
        f"for temporal_flickering; {there} have their name in {out / VIDEOS}; names of {longest} bytes at most"
    )


def _given(suite: Path | None, images: Path | None, prompts: Path | None, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what the videos are made of, as far as it decides about them.

    Raises:
        OSError: an image cannot be read.
        ValueError: one is no picture, there are none where the suite asks for them, or some where it does not.
    """
    names = sorted({entry.image for entry in entries if entry.image})
    if bool(names) != (images is not None):
        lack = f"--suite {suite} is of image to video: name the folder of its images by --images"
        raise ValueError(lack if names else f"--images {images}: the suite is of text to video, and has none")
    suites.check_names(names, is_case_kept=True)
    pictures = [images / name for name in names] if images else []
    for picture in pictures:
        first_frame.check(picture, "--images")
    told = "".join(f"{atomic.sha256_file(picture)} {picture.name}\n" for picture in pictures)
    file = suites.SUITE if suite is None else suite
    rewritten = None if prompts is None else atomic.sha256_file(prompts)
    return {
        "suite": {"name": "vbench t2v" if suite is None else suite.name, "sha256": atomic.sha256_file(file)},
        "images": {"are_given": bool(pictures), "sha256": sha256(told.encode()).hexdigest() if pictures else None},
        "prompts": {"are_rewritten": prompts is not None, "sha256": rewritten},
    }


def _settings(sha256_of: dict[str, str], model: StivPipeline, sections: Sections, fps: int) -> dict[str, Any]:
    """Return what makes the videos, as far as it decides about them."""
    return {
        "schema": _SCHEMA,
        "seeds": suites.SEEDS,
        "model": {"sha256": sha256_of},
        "makes": model.defaults.model_dump(mode="json"),
        "precision": sections.samples.precision,
        "device": sections.devices.sampling,
        "file": {"codec": CODEC, "crf": CRF, "fps": fps},
    }


def _make(
    folder: SampledFolder,
    videos: Sequence[PlannedVideo],
    model: StivPipeline,
    images: Path | None,
    batch: int,
    fps: int,
) -> int:
    """Make the videos that are not there; return how many those are."""
    present = folder.present(videos)
    missing = [video for video in videos if video.name not in present]
    with tqdm(total=len(videos), initial=len(present), unit="video", desc="vbench sample") as bar:
        for video, frames in _frames(missing, model, images, batch):
            folder.add(video, partial(write_video, frames_THWC=frames, fps=fps))
            bar.update()
    return len(missing)


def _frames(
    videos: Sequence[PlannedVideo], model: StivPipeline, images: Path | None, batch: int
) -> Iterator[tuple[PlannedVideo, Any]]:
    """Yield each video with its frames, uint8 RGB (T, H, W, 3)."""
    for first in range(0, len(videos), batch):
        some = videos[first : first + batch]
        texts, seeds = [video.text for video in some], [video.seed for video in some]
        pictures = [first_frame.read(images / video.image, "--images") for video in some if images and video.image]
        sources = [first_frame.as_video(picture, model.defaults) for picture in pictures]
        made = make_videos(model, texts, seeds, "first" if sources else "none", sources or None)
        yield from zip(some, made, strict=True)
