"""What one per cent more videos costs stage latents in bytes that are written, of latents of the size of XL-256.

    python benchmarks/added_latents.py --clips 10000 --json added_latents.json

with the folder of the repository on PYTHONPATH or the package installed. As benchmarks/added.py does of shots: the
stage runs over generated tables of eight clips a video, then over these and one per cent more, then over all of them
from nothing. Everything is the stage's own but decoding and the networks: a clip's tensors are random numbers (363,597
bytes), always the same. The third output must be the second, byte for byte. It takes twice the bytes of the latents on
the disk: 7.3 GB for 10,000 clips.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import added, unencoded
from tasks.latents import encode
from tasks.latents.encoders import Tensors, text_hash
from tasks.storage import tables
from tasks.storage.stage import run

CLIPS_OF_VIDEO = 8
SHAPES = {"latents": (20, 4, 32, 32), "tokens": (77, 1280), "mask": (77,), "pooled": (1280,)}


def write_tables(folder: Path, videos: int) -> None:
    """Write the tables of clips and captions of so many videos, in the order of their sha256."""
    clips = []
    for video in sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(videos)):
        for start in range(0, 1000 * CLIPS_OF_VIDEO, 1000):
            name = {"clip": tables.clip_id(video, start, start + 1000), "video": video, "uri": f"{video}.mp4"}
            clips.append(name | {"status": "ok", "start_pts": start, "end_pts": start + 1000, "aesthetic": 5.0})
    said = [{"clip": row["clip"], "status": "ok", "captioner": "sidecar", "text": row["clip"]} for row in clips]
    for name, rows, schema in (("clips", clips, tables.CLIPS), ("captions", said, tables.CAPTIONS)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        tables.write_rows(folder / name / f"{name}.parquet", rows, schema)


def encode_nothing(clips: list[dict[str, Any]], found: object, encoding: object) -> Iterator[encode.Encoded]:
    """Take the place of `encode.encode_clips`."""
    for clip in clips:
        random = np.random.default_rng(int(hashlib.sha256(clip["clip"].encode()).hexdigest()[:16], 16))
        made: Tensors = {}
        for name, shape in SHAPES.items():
            count = int(np.prod(shape))
            if name == "mask":
                made[name] = torch.ones(shape, dtype=torch.bool)
            else:  # of 16 random bits each; some are no numbers, and nobody computes with them
                made[name] = torch.from_numpy(np.frombuffer(random.bytes(2 * count), np.float16).reshape(shape).copy())
        text = {name: tensor for name, tensor in made.items() if name != "latents"}
        digest = hashlib.sha256(made["latents"].numpy().data).hexdigest()
        row = {"status": "ok", "reason": None, "crop_top": 0, "crop_left": 0}
        yield encode.Encoded(row | {"sha256": digest, "text_sha256": text_hash(text)}, made)


class _Frames:
    waited = 0.0


@contextmanager
def decode_nothing(clips: object, frames: object) -> Iterator[_Frames]:
    """Take the place of `encode.decoded`."""
    yield _Frames()


def run_stage(folder: Path) -> dict[str, Path]:
    """Run the stage on the tables of a folder; return the files of its output."""
    run(unencoded.stage(folder), folder / "latents", folder / "latents.json", "code", earlier=folder / "earlier")
    return {path.name: path for path in (folder / "latents").iterdir()}


def main() -> None:
    options = added.arguments(__doc__, "clips", 10_000)
    substitutes: Any = encode
    substitutes.encode_clips, substitutes.decoded = encode_nothing, decode_nothing
    with tempfile.TemporaryDirectory(prefix="stiv-added-", dir=options.folder) as name:
        videos = options.clips // CLIPS_OF_VIDEO
        figures = added.measure(Path(name), videos, videos + -(-videos // 100), write_tables, run_stage)
    added.report(figures, options.json)


if __name__ == "__main__":
    main()
