"""How much damage inside packets the shots notice, codec by codec.

    python benchmarks/damage.py --files 24 --json damage.json

Per codec a clean video of 50 drawn frames, 128 x 72, a key frame every 25 where the codec has others, then `files`
copies with four bits turned around between a third and two thirds of each. Each is probed and split by the settings of
params.yaml (shots from 0.1 s on); a frame is damaged where more than 1 % of its pixels differ by more than 24 levels
from the clean video's. `seen` counts the damaged frames; `left` those of them that are in a shot that is ok; `spared`
the frames that are in one and not damaged, of all frames; `failed` the files that are not used at all.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flows.params import load_params
from tasks.decoding import cuts, decode, probe
from tasks.decoding.limits import Limits
from tasks.videos import shot_rules
from tests import odd_videos

_VISIBLE_LEVELS, _VISIBLE_SHARE = 24, 0.01
_BITS = 4
_X265 = {"x265-params": "log-level=none:pools=1:keyint=25"}
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {  # name: (file, encoder, options)
    "H.264": ("a.mp4", "libx264", {}),
    "H.264, transport stream": ("a.ts", "libx264", {}),
    "HEVC": ("b.mp4", "libx265", _X265),
    "AV1": ("c.mp4", "libsvtav1", {"preset": "12"}),
    "VP9": ("d.webm", "libvpx-vp9", {}),
    "VP8": ("e.webm", "libvpx", {}),
    "MPEG-4": ("f.avi", "mpeg4", {}),
    "MPEG-2": ("g.ts", "mpeg2video", {}),
    "MJPEG": ("h.avi", "mjpeg", {}),
}


class Counts(NamedTuple):
    seen: int
    left: int
    spared: int
    frames: int
    failed: int


def pictures(path: Path, limits: Limits) -> dict[int, np.ndarray]:
    with decode.open_video(str(path), limits) as opened:
        return {frame.pts: frame.to_ndarray(format="rgb24").astype(int) for frame in decode.decoded(opened)}


def is_other(picture: np.ndarray, right: np.ndarray) -> bool:
    """Say whether a picture is seen to be another than it should be; of damage, it may have another size."""
    if picture.shape != right.shape:
        return True
    return bool((np.abs(picture - right).max(axis=2) > _VISIBLE_LEVELS).mean() > _VISIBLE_SHARE)


def count(clean: Path, spoilt: Path, files: int, limits: Limits, rules: dict) -> Counts:
    right = pictures(clean, limits)
    seen = left = spared = frames = failed = 0
    for seed in range(files):
        odd_videos.spoilt(clean, spoilt, seed, _BITS, 1 / 3, 2 / 3)
        probed = probe.probe(str(spoilt), limits)
        found = probed
        if probed["status"] == "ok":
            known = {"claimed_frames": probed["frames"], "fps": probed["fps"], "repairs": probed["repairs"]}
            found = cuts.split(str(spoilt), limits, **known, **rules)
        if found["status"] != "ok":
            failed += 1
            continue
        kept = [(shot["start_pts"], shot["end_pts"]) for shot in found["shots"] if shot["status"] == "ok"]
        for time, picture in pictures(spoilt, limits).items():
            if time not in right:
                continue
            is_kept = any(start <= time < end for start, end in kept)
            is_seen = is_other(picture, right[time])
            frames += 1
            seen, left, spared = seen + is_seen, left + (is_seen and is_kept), spared + (is_kept and not is_seen)
    return Counts(seen, left, spared, frames, failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    params = load_params()
    limits = Limits(**params.sandbox.model_dump(exclude={"workers"}))
    rules = shot_rules.rules_of(params.shots) | {"min_seconds": 0.1}
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, encoder, options) in CODECS.items():
            clean = odd_videos.write(Path(folder) / file, codec=encoder, gop=25, options=options)
            figures[name] = count(clean, Path(folder) / f"spoilt_{file}", asked.files, limits, rules)._asdict()
            print(name, figures[name], flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
