"""Made folders of latents of any number of clips, and what trainings on them leave behind.

The files of latents are holes of the right length: opened and looked at as real ones are, and nothing on the disk.
"""

import json
from pathlib import Path

import duckdb
import torch

from flows.params import load_params
from stiv_model.latents.folder import TABLE
from stiv_model.latents.shard_files import TEXT_PARTS, TEXT_SHA256, text_sha256, write
from stiv_model.latents.training_set import SAMPLES
from stiv_model.settings import NULL_TEXT, RUN_FILE, Encoders, Run
from stiv_model.training.run_files import LEDGER
from tasks.storage import tables

ROOT = Path(__file__).parents[1]
MADE_BY = {"vae_sha256": "random", "text_sha256": "random"}
PART_CLIPS = 2500
"""Of XL-256 with 20 latent frames in 1 GiB."""
CHECKPOINTS, STEPS, BATCH = 6, 400_000, 1003

_CLIP = "substr(md5(i::VARCHAR), 1, 20) || '-' || (i % 700 * 512) || '-' || (i % 700 * 512 + 51200)"
_SHA256 = "md5({0}::VARCHAR) || md5((-{0} - 1)::VARCHAR)"
_GIVEN = {
    "clip": _CLIP,
    "status": "'ok'",
    "aesthetic": "i * 7919 % 1000 / 100.0",
    "width": "1280",
    "height": "720",
    "crop_top": "0",
    "crop_left": "i % 500",
    "stride_frames": "3",
    "frames": "4",
    "sha256": _SHA256.format("i"),
    "text_sha256": _SHA256.format("(i + 1)"),
}


def make_latents(folder: Path, clips: int, part_clips: int = PART_CLIPS) -> None:
    """Make a folder of latents with so many clips, all of them ok."""
    folder.mkdir(parents=True)
    clip = {
        "latents": torch.zeros(1, 4, 8, 8, 8, dtype=torch.half),
        "tokens": torch.zeros(1, 5, 12, dtype=torch.half),
        "mask": torch.ones(1, 5, dtype=torch.bool),
        "pooled": torch.zeros(1, 12, dtype=torch.half),
    }
    null = {name: clip[name] for name in TEXT_PARTS}
    sha256 = text_sha256({name: part.numpy().data for name, part in null.items()})
    write(folder / NULL_TEXT, null, MADE_BY | {TEXT_SHA256: sha256})
    write(folder / "one", clip, MADE_BY)
    one = (folder / "one").read_bytes()
    (folder / "one").unlink()
    for number, first in enumerate(range(0, clips, part_clips)):
        _write_holes(folder / f"part-{number:06d}.safetensors", one, min(part_clips, clips - first))
    place = {
        "shard": f"'part-' || lpad((i // {part_clips})::VARCHAR, 6, '0') || '.safetensors'",
        "row": f"i % {part_clips}",
    }
    given = _GIVEN | place
    types = {field.name: "VARCHAR" if field.type == "string" else str(field.type) for field in tables.LATENTS}
    columns = ", ".join(f"CAST({given.get(name, 'NULL')} AS {kind}) AS {name}" for name, kind in types.items())
    _copy(f"SELECT {columns} FROM range({clips}) AS made(i)", folder / TABLE)


def _write_holes(path: Path, one: bytes, clips: int) -> None:
    """Write a file of latents like one with a single clip, for more clips."""
    length = int.from_bytes(one[:8], "little")
    header = json.loads(one[8 : 8 + length])
    size = header["clips"]["shape"][1]
    header["clips"] |= {"shape": [clips, size], "data_offsets": [0, clips * size]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + clips * size)


def make_checkpoints(folder: Path, samples: int) -> None:
    """Make what six trainings of 400,000 steps on so many samples leave; every thousandth step was passed over."""
    params = load_params(ROOT / "params.yaml")
    nothing = dict.fromkeys(("parent", "parent_sha256", "temporal_parent", "temporal_parent_sha256"))
    run = Run(
        recipe_name="t2v",
        latents="latents",
        latents_sha256="",
        encoders=Encoders(**MADE_BY),
        **nothing,
        model=params.model,
        recipe=params.train["t2v"],
        training=params.training,
    )
    first = folder / "run-0"
    first.mkdir(parents=True)
    (first / RUN_FILE).write_text(run.model_dump_json())
    video = "substr(md5((i // 8)::VARCHAR), 1, 20)"
    source = f"{_CLIP} AS clip, {video} AS video, {video} || '.mp4' AS uri, 'CC0' AS licence, 'none' AS source_url"
    _copy(f"SELECT {source} FROM range({samples}) AS made(i) ORDER BY clip", first / SAMPLES)
    with (first / LEDGER).open("w") as ledger:
        ledger.write("step\tfirst_position\tlast_position\tclips_sha256\n")
        for step in range(1, STEPS + 1):
            seen = "\t\tpassed over" if step % 1000 == 0 else f"{(step - 1) * BATCH}\t{step * BATCH - 1}\t{step:064x}"
            ledger.write(f"{step}\t{seen}\n")
    for number in range(1, CHECKPOINTS):
        (folder / f"run-{number}").mkdir()
        for file in first.iterdir():
            (folder / f"run-{number}" / file.name).hardlink_to(file)


def _copy(query: str, path: Path) -> None:
    with duckdb.connect(config={"memory_limit": "2GB", "threads": 1}) as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)")
