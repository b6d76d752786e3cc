"""What FVD tells of clips of `shapes`, and what not: over n, and of clips that were spoilt in ways that are known.

    OMP_NUM_THREADS=1 python -m benchmarks.fvd [--clips 24] [--others 256]

Real clips are those of `benchmarks.fvd_reference`, and from the 256th scene on others of the same look. Every kind of
damage is held against the same clips, and against as many others. Features are kept in .cache/features, so that it goes
on where it was stopped. Writes benchmarks/results/fvd.json and docs/fvd.svg.
"""

import argparse
import io
import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.fvd_reference import SEED, clip
from flows.params import load_params
from stiv_model.encoders import vae
from stiv_model.encoders.pixels import to_frames, to_pixels
from stiv_model.metrics import extractors
from stiv_model.metrics.frechet import curve_over_n, frechet_distance
from tasks.demo import shapes
from tasks.demo.look import TEXTURED
from tasks.evaluation.features import features_of
from tasks.generation.samples import source_video

RESULTS, FIGURE = Path("benchmarks/results/fvd.json"), Path("docs/fvd.svg")
FIRST_OTHER = 256
COUNTS = (6, 12, 24, 48, 96, 192, 256)


def coded(video: np.ndarray, crf: int) -> np.ndarray:
    """Return a clip after H.264, uint8 RGB (T, H, W, 3)."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(10), options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def resized(video: np.ndarray, rule: int) -> np.ndarray:
    """Return a clip that another rule than FVD's brings to 224 x 224."""
    return np.stack([cv2.resize(frame, (224, 224), interpolation=rule) for frame in video])


def shuffled(video: np.ndarray) -> np.ndarray:
    """Return the frames in another order, the same for all clips."""
    return video[np.random.default_rng(1).permutation(len(video))]


def blurred(video: np.ndarray) -> np.ndarray:
    """Return the frames after a Gaussian of 5 x 5 pixels."""
    return np.stack([cv2.GaussianBlur(frame, (5, 5), 0) for frame in video])


@cache
def _vae() -> vae.Vae:
    return vae.load(load_params().vae)


def through_vae(video: np.ndarray) -> np.ndarray:
    """Return what the embedded VAE makes of a clip: nothing that a model on its latents makes can be nearer."""
    return to_frames(_vae().decode(_vae().encode(to_pixels(video))))


DAMAGE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "through the embedded VAE": through_vae,
    "H.264, crf 12": lambda video: coded(video, 12),
    "first frame frozen": lambda video: np.repeat(video[:1], len(video), 0),
    "frames shuffled": shuffled,
    "blurred, 5 x 5": blurred,
    "H.264, crf 23": lambda video: coded(video, 23),
    "H.264, crf 0": lambda video: coded(video, 0),
    "resized by nearest neighbour": lambda video: resized(video, cv2.INTER_NEAREST),
    "resized by bicubic": lambda video: resized(video, cv2.INTER_CUBIC),
}


def main() -> None:
    """Measure, print, and write the results and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--others", type=int, default=256)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    params, extractor = load_params(), extractors.published()

    def rows_of(videos: list[np.ndarray]) -> np.ndarray:
        return np.stack([features_of(video, extractor) for video in videos])

    def rows(numbers: range, change: Callable[[np.ndarray], np.ndarray] = lambda video: video) -> np.ndarray:
        return rows_of([change(clip(number, params)) for number in numbers])

    n = asked.clips
    real, other = rows(range(max(asked.others, n))), rows(range(FIRST_OTHER, FIRST_OTHER + max(asked.others, n)))
    found = {"clips": n, "over_n": over_n(real, other), "curve": curve_over_n(real, other)._asdict()}
    found["damage"] = {"none": against(real[:n], real[:n], other[:n])}
    print(json.dumps(found), flush=True)
    for name, change in DAMAGE.items():
        found["damage"][name] = against(rows(range(n), change), real[:n], other[:n])
        print(name, found["damage"][name], flush=True)
    found["textured"] = textured(rows_of)
    print("textured", found["textured"])
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    FIGURE.write_text(drawn(found))


def textured(rows_of: Callable[[list[np.ndarray]], np.ndarray]) -> dict[str, float | int]:
    """Return what 12 still clips, and 12 real ones, are from 12 others: small, textured, of 84 combinations."""
    params = load_params()
    scenes = [shapes.scene(SEED, number, held_out=False, look=TEXTURED) for number in range(24)]
    clips = [source_video(scene, params.latents, params.corpus) for scene in scenes]
    other, real = rows_of(clips[:12]), rows_of(clips[12:])
    still = rows_of([np.repeat(video[:1], len(video), 0) for video in clips[12:]])
    distances = {"real": frechet_distance(other, real), "frozen": frechet_distance(other, still)}
    return {"clips": 12} | {name: round(value, 1) for name, value in distances.items()}


def against(made: np.ndarray, same: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return the FVD of clips against those that they were made of, and against as many others."""
    return {"same": round(frechet_distance(same, made), 1), "others": round(frechet_distance(other, made), 1)}


def over_n(real: np.ndarray, other: np.ndarray) -> dict[int, float]:
    """Return the FVD of real clips against others, mean over pieces of n that stand side by side (ten at most)."""
    found = {}
    for n in (count for count in COUNTS if count <= len(real)):
        pieces = range(0, len(real) - n + 1, n)[:10]
        found[n] = round(float(np.mean([frechet_distance(real[at : at + n], other[at : at + n]) for at in pieces])), 1)
    return found


def drawn(found: dict) -> str:
    """Draw both tables as SVG."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1, 1.5]})
    counts = list(found["over_n"])
    left.plot(counts, list(found["over_n"].values()), "o-", color="#2563a8", markersize=4, linewidth=1)
    left.set(
        xscale="log", yscale="log", xlabel="clips of either side, n", ylabel="FVD of real against other real clips"
    )
    left.set_xticks(counts[:-1], [str(count) for count in counts[:-1]])
    left.minorticks_off()
    names = list(found["damage"])
    places = np.arange(len(names))
    sides = ((-0.19, "same", "the same clips", "#c2410c"), (0.19, "others", "as many others", "#2563a8"))
    for offset, key, label, colour in sides:
        values = [max(found["damage"][name][key], 0) for name in names]
        right.barh(places + offset, values, 0.36, color=colour, label=f"against {label}")
        for place, value in zip(places, values, strict=True):
            right.text(value, place + offset, f" {abs(value):.0f}", va="center", fontsize=7)
    right.set_yticks(places, names)
    right.invert_yaxis()
    right.set_xlabel(f"FVD, n = {found['clips']}")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fvd"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


if __name__ == "__main__":
    main()
