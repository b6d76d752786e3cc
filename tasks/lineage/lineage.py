"""From a clip back to where it came from, and forward to the checkpoints that saw it.

A checkpoint folder carries `samples.parquet`, the clips that it was trained on, so that the question can be answered
when the latents have changed since. Which sample stood at which position is a function of seed and position
(`stiv_model.latents.order.Order`); `ledger.tsv` says which positions were trained on.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stiv_model.latents.training_set import SAMPLES
from stiv_model.settings import RUN_FILE, Run
from tasks.clips import thresholds
from tasks.clips.settings import ClipSettings
from tasks.lineage import draws
from tasks.lineage.draws import Seen
from tasks.storage import tables

UNSTATED = "not stated"
"""Where a video's row has no licence or no address."""
_ROWS_AT_ONCE = 1 << 16


class Workspace(NamedTuple):
    """Where the stages' outputs are."""

    data: Path
    """Folder of the stages' tables, one folder each."""
    checkpoints: Path
    """Folder of the trained weights, one folder per training."""
    reports: Path
    """Folder of the stages' accounts."""
    stages: tuple[str, ...]
    """Those with a table in `data/STAGE`, in the order of the pipeline."""
    pages: tuple[Path, ...]
    """What they make to be looked at."""

    @classmethod
    def below(cls, root: Path, stages: tuple[str, ...], pages: tuple[str, ...]) -> "Workspace":
        """Return that of a checkout."""
        shown = tuple(root / page for page in pages)
        return cls(root / "data", root / "checkpoints", root / "reports", stages, shown)

    def table(self, stage: str) -> Path:
        return self.data / stage / tables.table_name(stage)

    @property
    def trained(self) -> list[Path]:
        """The checkpoints that say what they were trained on, the oldest first."""
        found = [path.parent for path in self.checkpoints.glob(f"*/{SAMPLES}")]
        return sorted(found, key=lambda folder: (folder / SAMPLES).stat().st_mtime_ns)


def find(space: Workspace, name: str) -> list[str]:
    """Return the ids of the shots that a name means: a shot's own id, or all shots of a video, named by its sha256 (or
    the first eight or more characters of it) or by its uri.

    Raises:
        ValueError: nothing of that name is in the tables.
        FileNotFoundError: there are no tables of videos and shots.
    """
    is_meant = (pc.field("clip") == name) | _is_video(name)
    found = _read(space.table("shots"), ["clip", "video", "uri"], is_meant)["clip"].to_pylist()
    if not found and not _videos(space, name):
        raise ValueError(
            f"{name} is no shot, no video's sha256 and no uri in {space.data}: `stiv browse`, or the tables there, "
            "have their names"
        )
    return found


def _is_video(name: str) -> pc.Expression:
    is_meant = pc.field("uri") == name
    return is_meant | pc.starts_with(pc.field("video"), name) if len(name) >= 8 else is_meant


def _videos(space: Workspace, name: str) -> list[dict[str, Any]]:
    return _read(space.table("videos"), None, _is_video(name)).to_pylist()


def videos_of(space: Workspace, name: str) -> list[dict[str, Any]]:
    """Return the rows of the raw videos that a name means: that of a shot, or one by its sha256 or uri.

    Raises:
        ValueError: nothing of that name is in the tables.
    """
    if direct := _videos(space, name):
        return direct
    shots = find(space, name)
    wanted = _read(space.table("shots"), ["clip", "video"], pc.field("clip").isin(shots))["video"].unique()
    return _read(space.table("videos"), None, pc.field("video").isin(wanted)).to_pylist()


def split_of(space: Workspace, video: str) -> dict[str, Any] | None:
    """Return the row of a raw video, by its sha256, in the table of what could be split; None if it is not in it."""
    path = space.table("shots").with_name(tables.SPLIT_TABLE)
    rows = pq.read_table(path, filters=[("video", "==", video)]).to_pylist() if path.exists() else []
    return rows[0] if rows else None


def history(space: Workspace, shot: str) -> dict[str, Any]:
    """Return what every stage said of one shot: by stage, its row of that table, None where it did not get so far;
    under `gate` the result of the gate; under `checkpoints`, by name, how often each training saw it."""
    found: dict[str, Any] = {}
    for stage in (name for name in space.stages if name != "videos"):
        path = space.table(stage)
        rows = pq.read_table(path, filters=[("clip", "==", shot)]).to_pylist() if path.exists() else []
        found[stage] = rows[0] if rows else None
    video = found["shots"]["video"] if found["shots"] else None
    found = {
        "videos": next((row for row in _videos(space, video) if row["status"] == "ok"), None) if video else None
    } | found
    report = space.reports / tables.report_name("clips")
    found["gate"] = json.loads(report.read_text()).get("gate") if report.exists() else None
    found["checkpoints"] = {folder.name: seen._asdict() for folder, seen in seen_by(space, shot)}
    return found


def agrees(clip: dict[str, Any], settings: ClipSettings) -> bool:
    """Say whether settings give a shot, by itself, the status and reason that its row of schema CLIPS has."""
    scored = dict.fromkeys(tables.CLIPS.names) | clip | {"status": "ok", "reason": None}
    passed = clip["reason"] in (None, thresholds.NEAR_DUPLICATE, thresholds.NOT_BEST)
    found = ("ok", None) if passed else (clip["status"], clip["reason"])
    return thresholds.judge_shot(scored, thresholds.rules(settings)) == found


def seen_by(space: Workspace, clip: str) -> Iterator[tuple[Path, Seen]]:
    """Give the checkpoints that have the clip among their samples, with what they saw of it."""
    for folder in space.trained:
        sample = _sample(folder / SAMPLES, clip)
        if sample is not None:
            yield folder, draws.of(folder).seen(sample)


def _sample(samples: Path, clip: str) -> int | None:
    """Return the number that a clip has as a sample."""
    first = 0
    with pq.ParquetFile(samples) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["clip"]):
            if (at := pc.index(batch["clip"], clip).as_py()) >= 0:
                return first + int(at)
            first += len(batch)
    return None


def ancestry(checkpoint: Path) -> list[Path]:
    """Return a checkpoint's folder and those of the checkpoints that its weights started from, the earliest first.

    Raises:
        FileNotFoundError: one of them is not there (any more), or is no checkpoint of `stiv train`.
    """
    path = checkpoint / RUN_FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {checkpoint} is no checkpoint that stiv train made")
    run = Run.model_validate(json.loads(path.read_text()))
    before = [one for parent, _ in run.parents.values() for one in ancestry(Path(parent))]
    return [*dict.fromkeys(before), checkpoint]


def trained_on(checkpoint: Path) -> pa.Table:
    """Return the clips that one run trained on, with how often in the column `times`; those it never saw are left out.

    Raises:
        FileNotFoundError: the checkpoint has no table of its samples.
    """
    samples = _read(checkpoint / SAMPLES)
    times = pa.array(draws.of(checkpoint).times())
    return samples.append_column("times", times).filter(pc.greater(times, 0))


def licences(runs: Iterable[pa.Table]) -> Counter[str]:
    """Count the videos of some runs, as `trained_on` gives them, by licence: each once, by its last row."""
    return Counter(licence or UNSTATED for licence in _last(runs, "licence").values())


def hosts(runs: Iterable[pa.Table]) -> Counter[str]:
    """Count the videos of some runs by the host that each was got from: each once, by its last row."""
    return Counter(urlsplit(url or "").hostname or UNSTATED for url in _last(runs, "source_url").values())


def _last(runs: Iterable[pa.Table], column: str) -> dict[str, str | None]:
    """Return what the last row of each video has in a column."""
    found: dict[str, str | None] = {}
    for clips in runs:
        last = (column, "last", pc.ScalarAggregateOptions(skip_nulls=False))
        videos = clips.group_by("video", use_threads=False).aggregate([last])
        found |= zip(videos["video"].to_pylist(), videos[f"{column}_last"].to_pylist(), strict=True)
    return found


def has_seen(checkpoint: Path, video: str) -> bool:
    """Say whether one run trained on a clip of a video.

    Raises:
        FileNotFoundError: the checkpoint has no table of its samples.
    """
    videos = _read(checkpoint / SAMPLES, ["video"])["video"]
    of_video = pc.fill_null(pc.equal(videos, video), False).to_numpy()
    return bool(draws.of(checkpoint).times()[of_video].any())


def _read(path: Path, columns: list[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it (dvc repro, or stiv pipeline)")
    tables.refuse_renamed(path, pq.read_schema(path).names, columns or tables.CLIPS.names, "dvc repro makes it again")
    return pq.read_table(path, columns=columns, filters=filters)
