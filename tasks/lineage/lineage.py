"""From a clip back to where it came from, and forward to the checkpoints that saw it.

A checkpoint folder carries `samples.parquet`, the clips that it was trained on, so that the question can be answered
when the latents have changed since. Which sample stood at which position is a function of seed and position
(`stiv_model.latents.order.Order`); `ledger.tsv` says which positions were trained on.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stiv_model.latents.order import Order
from stiv_model.latents.training_set import SAMPLES
from stiv_model.settings import RUN_FILE, Run
from stiv_model.training.run_files import LEDGER
from tasks.clips import thresholds
from tasks.clips.settings import ClipSettings
from tasks.storage import tables


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


class Seen(NamedTuple):
    """How often one run trained on one clip."""

    times: int
    first_step: int | None
    """Counted from 1; None if never."""


def find(space: Workspace, name: str) -> list[str]:
    """Return the ids of the shots that a name means: a shot's own id, or all shots of a video, named by its sha256 (or
    the first eight or more characters of it) or by its uri.

    Raises:
        ValueError: nothing of that name is in the tables.
        FileNotFoundError: there are no tables of videos and shots.
    """
    shots = _read(space.table("shots"), ["clip", "video", "uri"])
    is_meant = pc.or_(pc.equal(shots["clip"], name), pc.equal(shots["uri"], name))
    if len(name) >= 8:
        is_meant = pc.or_(is_meant, pc.starts_with(shots["video"], name))
    found = shots.filter(is_meant)["clip"].to_pylist()
    if not found and not _videos(space, name):
        raise ValueError(
            f"{name} is no shot, no video's sha256 and no uri in {space.data}: `stiv browse`, or the tables there, "
            "have their names"
        )
    return found


def _videos(space: Workspace, name: str) -> list[dict[str, Any]]:
    videos = _read(space.table("videos"))
    is_meant = pc.equal(videos["uri"], name)
    if len(name) >= 8:
        is_meant = pc.or_(is_meant, pc.fill_null(pc.starts_with(videos["video"], name), False))
    return videos.filter(is_meant).to_pylist()


def videos_of(space: Workspace, name: str) -> list[dict[str, Any]]:
    """Return the rows of the raw videos that a name means: that of a shot, or one by its sha256 or uri.

    Raises:
        ValueError: nothing of that name is in the tables.
    """
    if direct := _videos(space, name):
        return direct
    shots = find(space, name)
    table = _read(space.table("shots"), ["clip", "video"])
    wanted = table.filter(pc.is_in(table["clip"], pa.array(shots)))["video"].unique()
    videos = _read(space.table("videos"))
    return videos.filter(pc.is_in(videos["video"], wanted)).to_pylist()


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
        clips = pq.read_table(folder / SAMPLES, columns=["clip"])["clip"].to_pylist()
        if clip in clips:
            yield folder, _count(folder, len(clips), clips.index(clip))


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
    times = _all_counts(checkpoint, len(samples))
    counted = samples.append_column("times", pa.array([times[place] for place in range(len(samples))], pa.int64()))
    return counted.filter(pc.greater(counted["times"], 0))


def _positions(folder: Path) -> dict[int, range]:
    """Return the positions of every step that was tried, by its number."""
    with (folder / LEDGER).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        int(row["step"]): range(int(row["first_position"]), int(row["last_position"]) + 1)
        for row in rows
        if row["first_position"]
    }


def _order(folder: Path, samples: int) -> Order:
    return Order(samples, Run.model_validate(json.loads((folder / RUN_FILE).read_text())).training.seed)


def _all_counts(folder: Path, samples: int) -> Counter[int]:
    """Count how often each sample was trained on; whole epochs are counted without walking through them."""
    order, steps = _order(folder, samples), _positions(folder)
    whole = _whole_epochs(steps.values(), samples)
    times = Counter({sample: len(whole) for sample in range(samples)})
    times.update(order[position] for step in steps.values() for position in step if position // samples not in whole)
    return times


def _whole_epochs(steps: Iterable[range], samples: int) -> set[int]:
    found: Counter[int] = Counter()
    for step in steps:
        start = step.start
        while start < step.stop:
            epoch = start // samples
            end = min(step.stop, (epoch + 1) * samples)
            found[epoch] += end - start
            start = end
    return {epoch for epoch, count in found.items() if count == samples}


def _count(folder: Path, samples: int, sample: int) -> Seen:
    order, steps = _order(folder, samples), _positions(folder)
    whole = _whole_epochs(steps.values(), samples)
    times, first = len(whole), None
    for number, step in steps.items():
        for position in step:
            is_partial = position // samples not in whole
            if not is_partial and first:
                continue  # it is counted with the whole epochs
            if order[position] == sample:
                times += is_partial
                first = first or number
    return Seen(times, first)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it (dvc repro, or stiv pipeline)")
    tables.refuse_renamed(path, pq.read_schema(path).names, columns or tables.CLIPS.names, "dvc repro makes it again")
    return pq.read_table(path, columns=columns)
