"""What made a video: the JSON beside it, which its file carries too, and by which it is made again."""

import json
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from flows.commands.named_model import NamedModel
from flows.commands.sections import Sections
from stiv_model import settings_errors
from stiv_model.encoders.video_file import CODEC, CPU_INDEPENDENT, CRF, PRESET, THREADS, write_video
from stiv_model.settings import Device, Precision, SamplerSettings, Settings, TextSettings, VaeSettings
from tasks.applications.given import Given
from tasks.applications.view_files import CameraRecord
from tasks.latents.settings import LatentSettings
from tasks.storage import atomic

_LIBRARIES = ("stiv-platform", "torch", "diffusers", "transformers", "numpy", "av", "pillow")


class ModelRecord(Settings):
    """Which model made it: a checkpoint, a pipeline folder, or where both are null the one of the package."""

    checkpoint: str | None
    pipeline: str | None
    sha256: dict[str, str]
    """Of its files of weights and its index, by name."""


class SectionRecord(Settings):
    """Sections of params.yaml, as they were, of which a pipeline folder has its own."""

    sampler: SamplerSettings
    vae: VaeSettings
    text: TextSettings
    latents: LatentSettings


class GivenRecord(Settings):
    """A file of given frames."""

    option: str
    file: str
    sha256: str
    places: tuple[int, ...]
    """Of the frames in the file that were given, from 0."""
    shown: tuple[int, int]
    """Width and height of its upright pictures, pixels."""
    used: tuple[int, int]
    """Width and height of their middle that was used."""
    fps: float | None


class VideoRecord(Settings):
    """All that decides the bytes of a video."""

    layout: Literal[1]
    """Of this record."""
    command: str
    options: dict[str, Any]
    """That the command takes and that were given, but for --out."""
    model: ModelRecord
    settings: SectionRecord | None
    """With which a checkpoint was opened; null of a pipeline folder."""
    device: Device
    precision: Precision
    """Of the model."""
    asked: dict[str, Any]
    """What the model was called with: size, stride and sampler."""
    given: tuple[GivenRecord, ...]
    untrained: str | None
    """What of it the model was never trained for; null where it was for all."""
    fps: str
    """Frames per second of the file."""
    stride_frames: int
    """Source frames from one of its frames to the next."""
    encoding: dict[str, str | int]
    threads: int
    """Of torch on the CPU: the last bits of sums depend on them."""
    versions: dict[str, str]
    """Of the packages that make the bytes."""
    cameras: tuple[CameraRecord, ...] | None = None
    """Of the pictures that were made, where they are views of an object."""
    file: str | None = None
    """Name of the video beside this record; null in the record that the video carries."""
    sha256: str | None = None
    """Of the video's bytes, as `file`."""

    @property
    def comment(self) -> str:
        """What the video carries of it."""
        return self.model_dump_json(exclude={"file", "sha256"})

    def sections(self, here: Sections) -> Sections:
        """Return the sections of params.yaml that the video was made with; of what it says nothing, those of today."""
        own = dict(self.settings) if self.settings else {}
        samples = here.samples.model_copy(update={"precision": self.precision})
        devices = here.devices.model_copy(update={"sampling": self.device})
        return here._replace(**own, samples=samples, devices=devices)


def describe(
    command: str,
    options: dict[str, Any],
    model: NamedModel,
    sha256: dict[str, str],
    sections: Sections,
    asked: Settings,
    given: list[Given],
    untrained: str | None,
    fps: Fraction,
    stride_frames: int,
    cameras: tuple[CameraRecord, ...] | None = None,
) -> VideoRecord:
    """Return the record of a video that is about to be made here.

    Args:
        sha256: of the model's files, as `NamedModel.sha256` said before it was loaded.
    """
    files = [
        GivenRecord(
            option=each.option,
            file=str(each.file),
            sha256=each.sha256,
            places=each.places,
            shown=each.shown,
            used=each.used,
            fps=each.fps,
        )
        for each in given
    ]
    names = {} if model.is_shipped else {"checkpoint": model.checkpoint, "pipeline": model.pipeline}
    return VideoRecord(
        layout=1,
        command=command,
        options=options,
        model=ModelRecord(
            checkpoint=None if names.get("checkpoint") is None else str(names["checkpoint"]),
            pipeline=names.get("pipeline"),
            sha256=sha256,
        ),
        settings=None
        if model.checkpoint is None
        else SectionRecord(sampler=sections.sampler, vae=sections.vae, text=sections.text, latents=sections.latents),
        device=sections.devices.sampling,
        precision=sections.samples.precision,
        asked=asked.model_dump(mode="json"),
        given=tuple(files),
        untrained=untrained,
        fps=str(fps),
        stride_frames=stride_frames,
        encoding={
            "codec": CODEC,
            "crf": CRF,
            "preset": PRESET,
            "threads": THREADS,
            "cpu_independent": CPU_INDEPENDENT,
        },
        threads=torch.get_num_threads(),
        versions={name: version(name) for name in _LIBRARIES},
        cameras=cameras,
    )


def beside(video: Path) -> Path:
    """Return where the record of a video lies."""
    return video.with_suffix(".json")


_OF_A_RECORD = {"layout", "command", "options", "model", "asked"}
"""Keys of the record of every release, by which one is known."""


def check_replaceable(video: Path) -> None:
    """Refuse to put a video, or its record, in the place of a file that no record of ours describes.

    A video of ours, which the record beside it describes, is replaced, as ffmpeg's users ask for with -y: it can be
    made again.

    Args:
        video: where it is to be.

    Raises:
        ValueError: with the file.
    """
    path = beside(video)
    told = _values(path)
    if path.exists() and not told.keys() >= _OF_A_RECORD:
        raise ValueError(
            f"{path}, where the record of --out {video} goes, is there and is no record of a video: name another "
            "--out, or move it away"
        )
    if video.exists() and told.get("sha256") != atomic.sha256_file(video):
        raise ValueError(
            f"--out {video} is there, and no {path.name} beside it says that it was made by stiv: name another file, "
            "or move it away"
        )


def _values(path: Path) -> dict[str, Any]:
    """Return what a file of JSON says; nothing where it is of another program, or there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write(video: Path, frames: np.ndarray, record: VideoRecord) -> str:
    """Write a video, uint8 RGB (T, H, W, 3), and its record beside it: each whole or absent, the video last.

    Returns:
        the sha256 of the video's bytes.
    """
    video.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(video) as made:
        write_video(made, frames, Fraction(record.fps), record.comment)
        return _write_beside(video, made, record)


def put(made: Path, video: Path, record: VideoRecord) -> str:
    """Give a written video its name, and write its record beside it, as `write` does.

    Args:
        made: the file, on the file system of the video.

    Returns:
        the sha256 of the video's bytes.
    """
    with atomic.atomic_write(video) as named:
        made.replace(named)
        return _write_beside(video, named, record)


def _write_beside(video: Path, made: Path, record: VideoRecord) -> str:
    sha256 = atomic.sha256_file(made)
    told = record.model_copy(update={"file": video.name, "sha256": sha256})
    with atomic.atomic_write(beside(video)) as text:
        text.write_text(told.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return sha256


def read(path: Path, command: str) -> VideoRecord:
    """Return the record of a video that a command made.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no such record, or of another command.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--again {path} is not there: name the JSON beside a video")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--again {path} is no JSON ({error}): name the JSON beside a video") from None
    record = settings_errors.checked(VideoRecord, values, f"--again {path}")
    if record.command != command:
        raise ValueError(f"--again {path} is of stiv {record.command}: give it to that command")
    return record


def stride_of(video: Path) -> int | None:
    """Return how many source frames lie between two frames of a video that has its record beside it; None of others.

    Raises:
        ValueError: the record beside it cannot be read.
    """
    path = beside(video)
    values = _values(path)
    if "sha256" not in values or values["sha256"] != atomic.sha256_file(video):
        return None
    record = settings_errors.checked(VideoRecord, values, path)
    return record.stride_frames


def check_same(record: VideoRecord, sha256: dict[str, str], given: list[Given], path: Path) -> None:
    """Refuse to make a video again from other weights or files than made it.

    Args:
        sha256: of the model's files, by name.

    Raises:
        ValueError: with the file and both hashes.
    """
    here = sha256 | {str(each.file): each.sha256 for each in given}
    there = record.model.sha256 | {each.file: each.sha256 for each in record.given}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            found, wanted = (str(each.get(name, "nothing"))[:12] for each in (here, there))
            raise ValueError(
                f"--again {path}: {name} was {wanted} when the video was made, and is {found}: bring it back, or name "
                "where it lies now (--checkpoint, --pipeline)"
            )


def check_bytes(record: VideoRecord, now: VideoRecord, sha256: str, video: Path) -> None:
    """Refuse a video whose bytes are not those of its record, which stays there to be looked at.

    Raises:
        ValueError: with both hashes, and the versions that differ.
    """
    if sha256 == record.sha256:
        return
    other = {
        name: (was, now.versions.get(name)) for name, was in record.versions.items() if now.versions.get(name) != was
    }
    versions = ", ".join(f"{name} {was} there, {here} here" for name, (was, here) in other.items())
    raise ValueError(
        f"{video} has sha256 {sha256[:12]}, but its record says {str(record.sha256)[:12]}: it was made on another "
        f"machine{f', or with other packages ({versions})' if versions else ''}; the video is there to be compared"
    )
