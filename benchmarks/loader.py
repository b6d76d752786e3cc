"""How fast latents are read, against WebDataset on the same bytes in the same run.

    python benchmarks/loader.py --rounds 5 --json loader.json

Both read every sample once, in a shuffled order, into batches of torch tensors, in one process and one thread, one
after the other and changing places from round to round; each round once from the page cache, and once after their
files were dropped from it. `first` is ours with the hash of every latent checked, as in the first epoch of a process.
WebDataset shuffles shards and keeps a buffer of 256; `usual` decodes as its documentation shows, `bare` leaves out all
decoding that can be left out.

Printed: samples per second, median [smallest, largest] over the rounds; the ratio to WebDataset in the same round,
which is what can be compared between machines; the time from a random position to the first batch from there; and
what training steps of the embedded model wait for their batches. Takes 1 GB of disk.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import webdataset
from torch import Tensor

from flows.params import load_params
from stiv_model.latents import data_plan
from stiv_model.latents.dataset import LatentData
from stiv_model.latents.folder import TABLE
from stiv_model.latents.order import Order, micro_batches
from stiv_model.latents.shard_files import TEXT_SHA256, text_sha256, write
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import NULL_TEXT
from stiv_model.training.prefetch import ReadAhead
from tasks.storage import tables

ROOT = Path(__file__).parents[1]
BATCH, SHARD_CLIPS, SHUFFLE_BUFFER, SEED, DEPTH = 8, 100, 256, 0, 2
CASES = (("first", "usual"), ("later", "usual"), ("later", "bare"))
_NPY_HEADER_BYTES, _VAE_STRIDE = 128, 8
EVERY_CLIP = load_params(ROOT / "params.yaml").train["t2i"].model_copy(update={"best_fraction": 1.0})
"""A recipe that takes clips of any length."""
MADE_BY = {"vae_sha256": "random", "text_sha256": "random"}


class Shapes(NamedTuple):
    """What one sample has."""

    latents: tuple[int, int, int, int]
    text: tuple[int, int]

    @property
    def parts(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {
            "latents": (torch.float16, self.latents),
            "tokens": (torch.float16, self.text),
            "mask": (torch.bool, self.text[:1]),
            "pooled": (torch.float16, self.text[1:]),
        }


LARGE = Shapes((20, 8, 32, 32), (59, 768))
"""XL-256 with 20 latent frames: 0.42 MB."""


class Speed(NamedTuple):
    """Samples per second of wall time, and of CPU time."""

    wall: float
    cpu: float


def make(folder: Path, samples: int, shapes: Shapes) -> None:
    """Write random samples into `folder`/shards as stage `latents` does, and into `folder`/tar."""
    shards, tars = folder / "shards", folder / "tar"
    shards.mkdir()
    tars.mkdir()
    rows = []
    for first in range(0, samples, SHARD_CLIPS):
        count = min(SHARD_CLIPS, samples - first)
        tensors = {name: random_tensor(count, *part) for name, part in shapes.parts.items()}
        name = f"shard-{first // SHARD_CLIPS:05d}.safetensors"
        write(shards / name, tensors, MADE_BY)
        rows += [table_row(first + row, stored(tensors, row), name, row) for row in range(count)]
        with webdataset.TarWriter(str((tars / name).with_suffix(".tar"))) as tar:
            for row in range(count):
                parts = {f"{part}.npy": tensor[row].numpy() for part, tensor in tensors.items()}
                tar.write({"__key__": f"{first + row:06d}", **parts})
    null = {name: random_tensor(1, *part) for name, part in shapes.parts.items() if name != "latents"}
    write(shards / NULL_TEXT, null, MADE_BY | {TEXT_SHA256: text_sha256(stored(null, 0))})
    tables.write_rows(shards / TABLE, rows, tables.LATENTS)
    for path in files(folder):  # a page that is not on disk yet stays in memory
        with path.open("rb") as file:
            os.fsync(file.fileno())


def random_tensor(count: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape).to(dtype)


def stored(tensors: Mapping[str, Tensor], row: int) -> dict[str, memoryview]:
    """Return the bytes of one clip."""
    return {name: tensor[row].numpy().data for name, tensor in tensors.items()}


def table_row(number: int, clip: Mapping[str, memoryview], shard: str, row: int) -> dict:
    return dict.fromkeys(tables.LATENTS.names) | {
        "clip": f"clip-{number:06d}",
        "status": "ok",
        "aesthetic": 0.0,
        "width": 256,
        "height": 256,
        "crop_top": 0,
        "crop_left": 0,
        "stride_frames": 3,
        "frames": len(clip["latents"]),
        "shard": shard,
        "row": row,
        "sha256": hashlib.sha256(clip["latents"]).hexdigest(),
        "text_sha256": text_sha256(clip),
    }


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def cool(folder: Path) -> None:
    """Drop the files from the page cache."""
    for path in files(folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(folder: Path) -> None:
    """Fill the page cache in the order of the files: pages of some reads in random order are dearer to copy."""
    cool(folder)
    for path in files(folder):
        path.read_bytes()


def ours(data: LatentData, epoch: int) -> Iterator[Tensor]:
    order, size = Order(len(data.samples), SEED), len(data.samples)
    for first in range(0, size, BATCH):
        places = range(first, min(first + BATCH, size))
        yield data.batch([order[epoch * size + place] for place in places]).latents_BFCHW


def theirs(tars: Path, epoch: int, shapes: Shapes, how: str, skipped: int = 0) -> Iterator[Tensor]:
    names = [str(path) for path in files(tars)]
    random.Random(epoch).shuffle(names)
    samples = webdataset.WebDataset(names, shardshuffle=False, empty_check=False)
    shuffled = samples.shuffle(SHUFFLE_BUFFER, seed=epoch).slice(skipped, None)

    def bare(sample: dict) -> list[Tensor]:
        return [
            torch.frombuffer(bytearray(sample[f"{name}.npy"]), dtype=dtype, offset=_NPY_HEADER_BYTES).view(shape)
            for name, (dtype, shape) in shapes.parts.items()
        ]

    def usual(sample: dict) -> list[Tensor]:
        return [torch.from_numpy(sample[f"{name}.npy"]) for name in shapes.parts]

    def collate(batch: list[list[Tensor]]) -> list[Tensor]:
        return [torch.stack(parts) for parts in zip(*batch, strict=True)]

    tensors = shuffled.map(bare) if how == "bare" else shuffled.decode().map(usual)
    return (batch[0] for batch in tensors.batched(BATCH, collation_fn=collate))


def speed(reader: Iterator[Tensor]) -> Speed:
    """Read to the end."""
    started, cpu_started = time.perf_counter(), time.process_time()
    samples = sum(map(len, reader))
    return Speed(samples / (time.perf_counter() - started), samples / (time.process_time() - cpu_started))


def throughput(folder: Path, rounds: int, shapes: Shapes) -> dict[str, list[tuple[Speed, Speed]]]:
    """Return for each case, and each round, our speed and WebDataset's."""
    found: dict[str, list[tuple[Speed, Speed]]] = defaultdict(list)
    warm(folder)
    later = LatentData(folder / "shards", EVERY_CLIP)
    for _ in ours(later, 0):
        pass
    for epoch in range(rounds):
        for reading, how in CASES:
            for prepare in (warm, cool):
                data = later if reading == "later" else LatentData(folder / "shards", EVERY_CLIP)
                prepare(folder)
                readers = [ours(data, epoch), theirs(folder / "tar", epoch, shapes, how)]
                turn = epoch % 2
                speeds = [speed(reader) for reader in (readers[turn], readers[1 - turn])]
                found[f"{reading} against {how}, {prepare.__name__}"].append((speeds[turn], speeds[1 - turn]))
    return found


def resume(folder: Path, draws: int) -> list[float]:
    """Return the seconds from a random position of the first thousand epochs to the first batch from there."""
    data = LatentData(folder / "shards", EVERY_CLIP)
    warm(folder / "shards")
    found = []
    for number in range(draws):
        position = random.Random(number).randrange(1000 * len(data.samples))
        started = time.perf_counter()
        order = Order(len(data.samples), seed=number)
        data.batch([order[place] for place in range(position, position + BATCH)])
        found.append(time.perf_counter() - started)
    return found


def resume_theirs(folder: Path, draws: int, shapes: Shapes, samples: int) -> list[float]:
    """Return the same for WebDataset, within one epoch."""
    found = []
    for number in range(draws):
        skipped = random.Random(number).randrange(samples - BATCH)
        started = time.perf_counter()
        next(theirs(folder / "tar", 0, shapes, "usual", skipped))
        found.append(time.perf_counter() - started)
    return found


def stall(steps: int) -> tuple[float, float]:
    """Return the seconds that steps of the embedded T2V recipe on one rank wait for batches, and take in all.

    Forward, backward and AdamW of plain torch: a step is shorter than DeepSpeed's, and the share of waiting larger.
    """
    params = load_params(ROOT / "params.yaml")
    model, recipe = StivTransformer(params.model, is_video=True), params.train["t2v"]
    rows, columns = params.latents.height // _VAE_STRIDE, params.latents.width // _VAE_STRIDE
    latents = (recipe.frames, params.model.latent_channels, rows, columns)
    with tempfile.TemporaryDirectory(prefix="stiv-loader-") as folder:
        make(Path(folder), 400, Shapes(latents, (params.text.tokens, params.model.text_width)))
        data = LatentData(Path(folder) / "shards", recipe)
        order = Order(len(data.samples), params.training.seed)
        optimizer = torch.optim.AdamW(model.parameters())
        groups = params.training.ranks // data_plan.together(recipe, params.training)
        schedule = micro_batches(range(steps), recipe.batch, params.training.accumulation, 0, groups)
        started = time.perf_counter()
        with ReadAhead(lambda places: data.batch([order[p] for p in places]), schedule, DEPTH) as batches:
            for stored in batches:
                batch = stored.to(torch.device("cpu"))
                times = torch.rand(len(batch.samples))
                model(batch.latents_BFCHW, times, batch.text, batch.micro_BM).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            return batches.stall_seconds, time.perf_counter() - started


def spread(values: list[float], form: str = ".1f") -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    figures: dict[str, object] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stiv-loader-") as name:
        folder = Path(name)
        make(folder, options.samples, LARGE)
        for case, pairs in throughput(folder, options.rounds, LARGE).items():
            wall = [own.wall / other.wall for own, other in pairs]
            cpu = [own.cpu / other.cpu for own, other in pairs]
            print(
                f"{case:26} ours {spread([own.wall for own, _ in pairs], '.0f')} samples/s, WebDataset "
                f"{spread([other.wall for _, other in pairs], '.0f')}, ratio {spread(wall)}, in CPU time {spread(cpu)}"
            )
            figures[f"loader_over_webdataset, {case}"] = wall
            figures[f"loader_over_webdataset in CPU time, {case}"] = cpu
            figures[f"samples per second, {case}"] = [(own.wall, other.wall) for own, other in pairs]
        own, other = resume(folder, 200), resume_theirs(folder, 5, LARGE, options.samples)
        print(f"{'resume':26} ours {spread([1000 * s for s in own], '.2f')} ms, ", end="")
        print(f"WebDataset {spread([1000 * s for s in other], '.0f')} ms")
        figures |= {"resume_seconds": own, "resume_webdataset_seconds": other}
    waits = [stall(30) for _ in range(options.rounds)]
    shares = [waited / whole for waited, whole in waits]
    print(f"{'stall':26} {spread([100 * share for share in shares], '.2f')} % of the embedded T2V step")
    figures["loader_stall_share"] = shares
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
