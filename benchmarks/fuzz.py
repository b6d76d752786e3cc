"""Send broken and hostile videos through the stages videos and shots, and see what gets past the sandbox.

    nice python benchmarks/fuzz.py --count 1000 --seed 0 --json fuzz.json

`count` mutants of eight kinds of video are probed and split, whatever the probe said, in `workers` processes. Then
come the traps: playlists and the like that point at a file which is watched and at a port which listens, videos that
decode to far more than they hold, and hostile file names. Reported are the verdicts by kind, the slowest file, the
largest child, what the traps reached, and what the sandbox itself costs.
"""

import argparse
import hashlib
import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks`, which is not installed

from benchmarks import mutants, traps
from flows.params import Params, load_params
from tasks.decoding import probe
from tasks.decoding.limits import Limits
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings
from tasks.storage import tables
from tasks.storage.object_cache import ObjectCache
from tasks.videos import probe as videos
from tasks.videos import sources
from tasks.videos import split as shots

PIXELS, FRAMES = 16_000, 4500  # of the bombs: 256 MB in 281 kB, 7 GB in 2.4 MB


def through(folder: Path, name: str, params: Params, sandbox: Sandbox) -> dict[str, Any]:
    """Probe and split one file of a folder; return both verdicts and the longer one's wall seconds."""
    status = (folder / name).stat()
    item = sources.Item(name, status.st_size, "", None, None)
    cache = ObjectCache(folder.parent / "cache")
    start = time.monotonic()
    row = videos.probe_videos(str(folder), [item], params.videos, sandbox, cache)[0]
    middle = time.monotonic()
    # what is not used is split all the same: as one part, with no claim of how many frames there are
    given = row if row["status"] == "ok" else row | {"seconds": params.shots.part_seconds, "fps": 0.0, "frames": 0}
    split = shots.split_videos(str(folder), [given], params.shots, sandbox, cache)[0][0] if row["video"] else row
    seconds = max(middle - start, time.monotonic() - middle)
    for verdict in (row, split):
        assert verdict["status"] in tables.STATUSES, f"{name}: {verdict}"
        assert (verdict["reason"] is None) == (verdict["status"] == "ok"), f"{name}: {verdict}"
    return {"probe": _verdict(row), "split": _verdict(split), "seconds": seconds}


def _verdict(row: dict[str, Any]) -> str:
    return " ".join(filter(None, (row["status"], row["reason"])))


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def fuzz(folder: Path, params: Params, sandbox: Sandbox, count: int, seed: int) -> dict[str, Any]:
    """Send `count` mutants through; the folder is made, and must be empty.

    Returns:
        figures: verdicts by pair, slowest_seconds, peak_bytes, restarts, changed_originals.
    """
    raw = folder / "raw"
    raw.mkdir()
    (folder / "whole").mkdir()
    whole = mutants.originals(folder / "whole")
    kinds = {}
    for index in range(count):
        pair = mutants.PAIRS[index % len(mutants.PAIRS)]
        content, done = mutants.mutant(whole[pair], f"{seed} {index}")
        name = f"{index:06d}.{pair[0] if pair[0] in ('mp4', 'mkv', 'webm', 'mov', 'avi') else 'mp4'}"
        (raw / name).write_bytes(content)
        kinds[name] = "/".join(pair), done
    before = hashes(raw)
    start = time.monotonic()
    with ThreadPoolExecutor(sandbox.settings.workers) as threads:
        results = dict(zip(kinds, threads.map(lambda name: through(raw, name, params, sandbox), kinds), strict=True))
    verdicts: dict[str, dict[str, Counter[str]]] = {}
    for name, result in results.items():
        by_pair = verdicts.setdefault(kinds[name][0], {"probe": Counter(), "split": Counter()})
        for stage in ("probe", "split"):
            by_pair[stage][result[stage]] += 1
    slowest = max(results, key=lambda name: results[name]["seconds"])
    return {
        "count": count,
        "seed": seed,
        "seconds": time.monotonic() - start,
        "verdicts": verdicts,
        "crashed": [f"{name} {kinds[name]}" for name, result in results.items() if "crashed" in str(result)],
        "slowest": [slowest, *kinds[slowest]],
        "slowest_seconds": results[slowest]["seconds"],
        "peak_bytes": sandbox.peak_bytes,
        "cpu_seconds": sandbox.cpu_seconds,
        "restarts": sandbox.restarts,
        "changed_originals": len(before.items() ^ hashes(raw).items()),
    }


@contextmanager
def set_traps(folder: Path) -> Iterator[tuple[traps.Watch, traps.Listener]]:
    """Write the traps of texts into `folder`/raw, each pointing at a readable video that is watched.

    Each is there as .mp4, and with the ending by which FFmpeg knows it.
    """
    raw = folder / "raw"
    canary = raw / "canaries" / "canary.ts"
    canary.parent.mkdir(parents=True)
    mutants.write_video(canary, "mpeg2video")
    with traps.Watch(canary) as watch, traps.Listener() as listener:
        for name, text in traps.texts(canary, listener.port).items():
            for ending in ("mp4", name.split("_")[0]):
                (raw / f"{name}.{ending}").write_text(text)
        (raw / "after_header.mp4").write_bytes(traps.playlist_after_header(canary, listener.port))
        yield watch, listener


def spring_traps(folder: Path, params: Params, sandbox: Sandbox) -> dict[str, Any]:
    """Send the traps through: the stages, the sandbox, and no sandbox but the rules of opening alone."""
    limits = Limits(**params.sandbox.model_dump(exclude={"workers"}))
    with set_traps(folder) as (watch, listener):
        names = sorted(path.name for path in (folder / "raw").glob("*.mp4"))
        sandboxed = {name: through(folder / "raw", name, params, sandbox) for name in names}
        for path in (path for path in (folder / "raw").iterdir() if path.is_file()):
            for verdict in (sandbox.call("probe", {"path": str(path)}), probe.probe(str(path), limits)):
                assert verdict["status"] in ("rejected", "failed"), f"{path.name}: {verdict}"
    return {
        "verdicts": {name: result["probe"] for name, result in sandboxed.items()},
        "slowest_seconds": max(result["seconds"] for result in sandboxed.values()),
        "second_files_opened": watch.count,
        "sockets": listener.count,
    }


def explode(folder: Path, params: Params, sandbox: Sandbox) -> dict[str, Any]:
    """Send through what decodes to far more than it holds."""
    folder.mkdir()
    traps.big_picture(folder / "big_picture.mp4", PIXELS)
    traps.many_frames(folder / "many_frames.mp4", FRAMES)
    traps.black_frames(folder / "black_frames.mp4", 500)
    traps.small_claim(folder / "small_claim.mp4", 4096)
    results = {path.name: through(folder, path.name, params, sandbox) for path in sorted(folder.iterdir())}
    return {"results": results, "peak_bytes": sandbox.peak_bytes}


def name_files(folder: Path, params: Params, sandbox: Sandbox) -> dict[str, Any]:
    """Give a readable video every hostile name; return how many were listed, and used, and what else came to be."""
    raw = folder / "raw"
    raw.mkdir()
    content = mutants.write_video(folder / "good.mp4", "libx264", frames=24)
    for name in traps.NAMES:
        (raw / name).write_bytes(content)
    before = sorted(os.fsencode(path) for path in folder.rglob("*"))
    items = sources.listing(str(raw))
    rows = videos.probe_videos(str(raw), items, params.videos, sandbox, ObjectCache(folder / "cache"))
    account = tables.reconcile("videos", (item.uri for item in items), rows, "uri")
    tables.write_rows(folder / "cache", rows, tables.VIDEOS)
    (folder / "cache").unlink()
    after = sorted(os.fsencode(path) for path in folder.rglob("*"))
    return {"names": len(traps.NAMES), "account": account._asdict(), "new_files": len(set(after) ^ set(before))}


def cost(folder: Path, params: Params, calls: int = 200) -> dict[str, float]:
    """Measure the sandbox itself, in CPU of all its processes: to start, to call for nothing, to probe."""
    folder.mkdir()
    path = folder / "a.mp4"
    mutants.write_video(path, "libx264")
    single = params.sandbox.model_copy(update={"workers": 1})
    limits = Limits(**single.model_dump(exclude={"workers"}))
    start = time.process_time()
    for _ in range(calls):
        probe.probe(str(path), limits)
    bare = time.process_time() - start
    starting, started = _in_sandbox(single, [])
    empty, _ = _in_sandbox(single, [str(folder)] * calls)
    probing, _ = _in_sandbox(single, [str(path)] * calls)
    return {
        "start_wall_seconds": started,
        "start_cpu_seconds": starting,
        "empty_call_cpu_ms": 1000 * (empty - starting) / calls,
        "probe_cpu_ms": 1000 * (probing - starting) / calls,
        "bare_probe_cpu_ms": 1000 * bare / calls,
    }


def _in_sandbox(settings: SandboxSettings, paths: list[str]) -> tuple[float, float]:
    """Probe some files; return the CPU seconds of the sandbox's processes, and the wall seconds until it was there."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with Sandbox(settings) as sandbox:
        started = time.monotonic() - start
        for path in paths:
            sandbox.call("probe", {"path": path})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="mutants (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    logging.basicConfig(level=logging.WARNING)
    params = load_params()
    with tempfile.TemporaryDirectory(prefix="stiv-fuzz-") as name:
        folder = Path(name)
        figures = {}
        for part, measure in (
            ("mutants", lambda at, sandbox: fuzz(at, params, sandbox, options.count, options.seed)),
            ("traps", lambda at, sandbox: spring_traps(at, params, sandbox)),
            ("bombs", lambda at, sandbox: explode(at / "raw", params, sandbox)),
            ("names", lambda at, sandbox: name_files(at, params, sandbox)),
        ):
            (folder / part).mkdir()
            with Sandbox(params.sandbox) as sandbox:
                figures[part] = measure(folder / part, sandbox)
            print(json.dumps({part: figures[part]}, indent=2, ensure_ascii=True))
        figures["sandbox"] = cost(folder / "cost", params)
    print(json.dumps({"sandbox": figures["sandbox"]}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
