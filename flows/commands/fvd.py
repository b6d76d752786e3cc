"""`stiv fvd`: two folders of clips, how far one is from the other."""

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from stiv_model.metrics import least
from tasks.evaluation import clip_folder, folder_features, reference
from tasks.evaluation.clip_folder import ClipRule
from tasks.evaluation.folder_features import Measured
from tasks.pages.reasons import meaning_of
from tasks.sandbox.settings import SandboxSettings
from tasks.videos.settings import VideoSettings

if TYPE_CHECKING:
    from stiv_model.metrics.extractors import Extractor


def fvd(
    *folders: Path,
    videos: VideoSettings,
    sandbox: SandboxSettings,
    frames: int | None = None,
    stride: int = 1,
    clips: int = 1,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    mixed: bool = False,
    extractor: Path | None = None,
    curve: Path | None = None,
    save: Path | None = None,
    json: bool = False,
) -> None:
    """Say how far a folder of made clips is from one of real clips: FVD and KVD, with floor, interval and protocol.

    The first folder is of real clips, the second of made ones; the first alone gives the floor, which is one half of it
    against the other. Videos are .npy of uint8 (T, H, W, 3), or files, which are opened in the sandbox. A second of CPU
    for each clip of 10 frames, once: features are kept in .cache/features. Exit code 1 when a video could not be
    measured. Never FVD alone: docs/evaluation.md.

    Args:
        folders: A folder of real videos, or a file that --save wrote of one; then a folder of made ones.
        frames: Frames of a clip; without it all of a video are one clip.
        stride: Distance of a clip's frames in its video.
        clips: Clips of a video, at most, one after the other from its first frame on.
        height: Files are scaled to cover so many pixels, and cut out at their centre; without it they keep their size.
        width: The same of their width.
        fps: Frames per second of arrays, which do not say.
        mixed: Take files of several rates and codecs as they are; without it they are refused.
        extractor: Another network than I3D: a TorchScript (.pt, .ts) or weights of I3D (.safetensors). The figure then
            has the file's name, and is no FVD.
        curve: File for the distance over the number of clips, extrapolated to infinity (SVG, and JSON beside).
        save: File for the real clips' features, to be compared with later, or to be evaluation.reference.
        json: Print JSON, for programs.

    examples:
      stiv fvd real made
      stiv fvd real made --frames 16 --stride 2 --json
      stiv fvd real --frames 16 --clips 4 --height 256 --width 256 --save real.safetensors
      stiv fvd real.safetensors made --frames 16 --height 256 --width 256 --curve curve.svg

    Raises:
        OSError: a folder is not there, or the extra eval is not installed.
        ValueError: the clips are not of one kind, or there is no figure of them.
    """
    rule = _rule(folders, frames, stride, clips, height, width)
    if curve is not None and len(folders) == 1:
        raise ValueError(f"--curve {curve} is of made clips against real ones, and one folder is named: name the other")
    if extractor is None and frames is not None and frames < least.I3D_FRAMES:
        raise ValueError(f"--frames is {frames}: I3D needs {least.I3D_FRAMES}")
    network = _extractor(extractor)
    read = _Reader(rule, network, fps, mixed, tuple(videos.extensions), sandbox)
    sides = [read(folder) for folder in folders]
    from tasks.evaluation import distances
    from tasks.pages import distance_figure

    real = sides[0].reference
    if save is not None:
        reference.write(save, real)
    found: dict[str, Any] = {"name": network.frechet, "kernel_name": network.kernel}
    found["protocol"] = real.protocol.model_dump(mode="json")
    if len(sides) == 1:
        found["floor"] = distances.as_json(distances.floor_of(real.features))
    else:
        made = sides[1].reference
        real.protocol.refuse_unlike(made.protocol, str(folders[0]), str(folders[1]))
        compared = distances.compare(real.features, made.features)._asdict()
        found |= {name: one and distances.as_json(one) for name, one in compared.items()}
        found["kernel_distance"] = distances.kernel(real.features, made.features)
        if curve is not None:
            curves = distances.curves(real.features, made.features)
            found["curve"] = distance_figure.write(curve, curves, network.frechet)
    found["videos"] = {str(folder): side.account for folder, side in zip(folders, sides, strict=True)}
    found["not_measured"] = [one for side in sides for one in side.not_measured]
    print(jsonlib.dumps(found, indent=2) if json else _text(found))
    if found["not_measured"]:
        raise SystemExit(1)


def _rule(
    folders: tuple[Path, ...], frames: int | None, stride: int, clips: int, height: int | None, width: int | None
) -> ClipRule:
    """Return which clips are taken.

    Raises:
        ValueError: an option has no such value, or there are not one or two folders.
    """
    if len(folders) not in (1, 2):
        raise ValueError(f"{len(folders)} folders are named: name one of real videos, and one of made ones")
    if min(stride, clips) < 1:
        raise ValueError(f"--stride is {stride} and --clips is {clips}: both are 1 or more")
    if clips > 1 and frames is None:
        raise ValueError(f"--clips is {clips}, and without --frames all of a video are one clip: state --frames")
    if (height is None) != (width is None):
        raise ValueError(f"--height is {height} and --width is {width}: state both, or neither")
    return ClipRule(frames, stride, clips, None if height is None or width is None else (height, width))


def _extractor(file: Path | None) -> "Extractor":
    from stiv_model.metrics import extractors  # torch

    return extractors.published() if file is None else extractors.from_file(file)


class _Reader(NamedTuple):
    """Brings a folder, or a file of features, to features."""

    rule: ClipRule
    extractor: "Extractor"
    fps: float | None
    mixed: bool
    extensions: tuple[str, ...]
    sandbox: SandboxSettings

    def __call__(self, folder: Path) -> Measured:
        """Return the features of a folder's clips, with a line of progress.

        Raises:
            OSError, ValueError: as `fvd`.
        """
        if folder.suffix == ".safetensors":
            there = reference.read(folder)
            return Measured(there, {"clips": len(there.features)}, [])
        with clip_folder.opened(folder, self.extensions, self.rule, self.sandbox) as found:
            shown = tqdm(found, desc=str(folder), total=len(found), unit="video", disable=None)
            return folder_features.measure(found, shown, self.rule, self.extractor, self.fps, self.mixed)


def _text(found: dict[str, Any]) -> str:
    """Return what was found as lines to read."""
    lines = []
    parts = (
        ("made", "{n_made} made clips against {n_real} real ones"),
        ("floor", "its floor: {n_made} other real clips against {n_real}"),
        ("made_at_floor", "as many made clips as the floor: {n_made} against {n_real}"),
    )
    for key, words in parts:
        if one := found.get(key):
            low, high = one["interval"]
            said = words.format(**one)
            lines.append(f"{found['name']:<24} {one['distance']:>10.2f}   [{low:.2f}, {high:.2f}]   {said}")
    if "kernel_distance" in found:
        lines.append(f"{found['kernel_name']:<24} {found['kernel_distance']:>10.4f}")
    for name, curve in found.get("curve", {}).items():
        lines.append(
            f"{found['name'] + ' at infinity':<24} {curve['at_infinity']:>10.2f}   of {name} clips, "
            f"r squared {curve['r_squared']:.3f}"
        )
    lines += [f"{name}: {value}" for name, value in found["protocol"].items()]
    lines += [f"{name}: {account}" for name, account in found["videos"].items()]
    for one in found["not_measured"]:
        lines.append(f"{one['id']}: {one['status']}, {one['reason']}: {meaning_of(one['reason']).meaning}")
    return "\n".join(lines)
