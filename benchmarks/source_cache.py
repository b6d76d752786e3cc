"""How many bytes of a bucket's objects are kept while stages videos, shots and latents open all of them.

    python benchmarks/source_cache.py --objects 300 --bytes 10000000 --limit 500000000 --json source_cache.json

A bucket of moto on this machine gets that many videos: one small film, each time with other bytes behind it, in a box
that no player reads. The three stages run on it in four threads with `engine.source_cache_bytes` at the limit, while
another thread counts what is in the cache; between them run scores, clips without limits, and captions. Printed: the
most bytes at any time of each stage, and what became of its inputs. Takes the bytes of the bucket on the disk of
temporary files.
"""

import argparse
import contextlib
import fcntl
import json
import logging
import os
import random
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import av
import boto3
import numpy as np

from benchmarks.scale_points import without_limits
from flows.params import load_params
from tasks.captions.stage import Captions
from tasks.clips.select import select_clips
from tasks.latents.encode import Latents
from tasks.scores.stage import Scores
from tasks.storage import tables
from tasks.storage.object_cache import ObjectCache
from tasks.storage.shards import Shard
from tasks.storage.stage import Stage, run
from tasks.videos.probe import Videos
from tasks.videos.split import Shots

ROOT = Path(__file__).parents[1]
_THREADS = 4


class Found(NamedTuple):
    """What a stage did with a bucket."""

    most_bytes: int
    """In the cache at any time, of whole files and of those that arrive."""
    account: tables.Account


def small_film(path: Path) -> bytes:
    """Return a film of one second, of a square that moves over a texture."""
    picture = np.random.default_rng(0).integers(60, 120, (96, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 96, 96, "yuv420p"
        for number in range(24):
            frame = picture.copy()
            frame[36:60, 2 * number : 2 * number + 24] = (230, 120, 20)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def fill(bucket: Any, film: bytes, objects: int, size_bytes: int) -> None:
    """Put so many videos of so many bytes into a bucket, each with other bytes."""
    for number in range(objects):
        rest = random.Random(number).randbytes(size_bytes - len(film) - 8)
        box = struct.pack(">I4s", len(rest) + 8, b"free") + rest
        bucket.put_object(Key=f"in/{number:05}.mp4", Body=film + box)


def measure(source: str, folder: Path, limit_bytes: int, shard_files: int) -> dict[str, Found]:
    """Run the stages that open objects of a bucket, and those between them, in `folder` with a limited cache."""
    params = load_params(ROOT / "params.yaml")
    cache = ObjectCache(folder / "media", limit_bytes)
    cache.folder.mkdir(parents=True)
    videos, shots, scores, clips, captions = (
        folder / name for name in ("videos", "shots", "scores", "clips", "captions")
    )
    listed = params.videos.model_copy(update={"shard_files": shard_files})
    found = {"videos": _watched(Videos(source, listed, params.sandbox, cache=cache), videos, cache)}
    cut = params.shots.model_copy(update={"shard_seconds": 10.0 * shard_files})
    found["shots"] = _watched(Shots(source, videos, cut, params.sandbox, cache=cache), shots, cache)
    _run(Scores(shots, params.scores.model_copy(update={"text_detector": "strokes"})), scores)
    select_clips.fn(scores, clips, folder / "clips.json", folder / "docs", without_limits(params.clips))
    _run(Captions(clips, shots, folder / "caption_docs", params.captions, params.text), captions)
    own = params.latents.model_copy(update={"shard_clips": shard_files})
    latents = Latents(source, clips, captions, own, params.vae, params.text, params.sandbox, cache=cache)
    found["latents"] = _watched(latents, folder / "latents", cache)
    return found


def _watched(declared: Stage, out: Path, cache: ObjectCache) -> Found:
    with watched(cache) as most:
        account, *_ = _run(declared, out)
    return Found(most[0], account)


def _run(declared: Stage, out: Path) -> tuple[tables.Account, ...]:
    def at_once(_: Stage, work_on: Callable[[Shard], None], parts: list[Shard]) -> None:
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(work_on, [part for part in parts if not part.is_done]))

    return run(declared, out, out.with_suffix(".json"), "code", at_once, out.with_name("earlier"))


@contextlib.contextmanager
def watched(cache: ObjectCache) -> Iterator[list[int]]:
    """Count what is in a cache as long as the context is open; give the most so far, in a list."""
    most, stop = [0], threading.Event()

    def watch() -> None:
        with (cache.folder / ".lock").open("a") as lock:
            while not stop.is_set():
                fcntl.flock(lock, fcntl.LOCK_EX)  # no name comes or goes while files are counted
                most[0] = max(most[0], sum(path.stat().st_size for path in cache.folder.iterdir()))
                fcntl.flock(lock, fcntl.LOCK_UN)
                time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def main() -> None:
    from moto.server import ThreadedMotoServer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=10_000_000, help="of each")
    parser.add_argument("--limit", type=int, default=500_000_000)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    os.environ |= {name: "test" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    os.environ |= {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
    }
    with tempfile.TemporaryDirectory(prefix="stiv-source-cache-") as folder:
        bucket = boto3.resource("s3").create_bucket(Bucket="raw")
        fill(bucket, small_film(Path(folder) / "film.mp4"), options.objects, options.bytes)
        found = measure("s3://raw/in", Path(folder), options.limit, shard_files=16)
    server.stop()
    print(f"{options.objects * options.bytes / 1e9:.1f} GB, limit {options.limit / 1e6:.0f} MB")
    for name, (most_bytes, account) in found.items():
        print(f"{name}: at most {most_bytes / 1e6:.0f} MB kept, {account.ok} of {account.given} ok")
    if options.json:
        figures = {name: each._asdict() | {"account": each.account._asdict()} for name, each in found.items()}
        bucket_figures = {"bytes": options.objects * options.bytes, "limit_bytes": options.limit}
        options.json.write_text(json.dumps(bucket_figures | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
