"""Stage scores: what is measured of a shot from its stills, without decoding the video again.

Each score lives in a file of its own here and has a row in tasks/storage/scores.py; docs/scores.md has the table.
Nothing is dropped here: the stage clips compares scores with thresholds.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import pyarrow.parquet as pq

from tasks.scores.aesthetic import Estimate
from tasks.scores.colours import main_colours, orientation
from tasks.scores.nsfw import OpenNsfw
from tasks.scores.settings import EstimatorSettings, ScoreSettings
from tasks.scores.text_area import RapidText, Strokes
from tasks.scores.video_hash import video_hash
from tasks.storage import atomic, reuse, shards, tables
from tasks.storage.scores import SCORES
from tasks.storage.stage import Joined, Stage, alone

if TYPE_CHECKING:
    from tasks.scores.clip_scores import ClipScores

_OF_SOURCE = ("uri", "caption", "licence", "source_url")  # columns that no score depends on


class PictureScore(Protocol):
    """A score of pictures that one of several models, or a formula, gives."""

    name: str
    """The model or formula, with the hash of its weights."""

    def score(self, pictures: Sequence[np.ndarray]) -> float:
        """Return the score of a shot's BGR pictures (uint8)."""


class Scorer:
    """Scores shots; its models are loaded once, and may serve several threads.

    Args:
        settings: which models.

    Raises:
        FileNotFoundError, ValueError: a model is not there, as ClipScores, RapidText and OpenNsfw say.
    """

    def __init__(self, settings: ScoreSettings):
        self._estimate = Estimate() if isinstance(settings.aesthetic, EstimatorSettings) else None
        self._of_clip = _of_clip(settings)
        self._text: PictureScore = (
            RapidText(settings.text_pixels) if settings.text_detector == "rapidocr" else Strokes()
        )
        self._nsfw: PictureScore | None = OpenNsfw() if settings.nsfw else None
        self._text_stills = settings.text_stills
        self._of_still: dict[str, Callable[[np.ndarray], float]] = {
            score.name: getattr(import_module(score.made_by), score.name) for score in SCORES if score.of == "still"
        }

    def names(self) -> dict[str, str | None]:
        """Return by which model each score that has several is made, with the hash of its weights; None is no score."""
        names = {
            "aesthetic": self._estimate.name if self._estimate else None,
            "text_area": self._text.name,
            "nsfw": self._nsfw.name if self._nsfw else None,
            "embedding": None,
        }
        return names | (self._of_clip.names() if self._of_clip else {})

    def score(self, shot: dict[str, Any], stills: list[bytes]) -> dict[str, Any]:
        """Return the shot's row of schema SCORES.

        Args:
            shot: row of schema SHOTS.
            stills: its stills, JPEG bytes in order of time.
        """
        decoded = (cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_COLOR) for still in stills)
        pictures = [picture for picture in decoded if picture is not None]
        assert pictures and len(pictures) == len(stills), f"{shot['clip']}: {len(pictures)} of {len(stills)} decode"
        scored = {
            "aesthetic": self._estimate.score(pictures) if self._estimate else None,
            "text_area": self._text.score(spread(pictures, self._text_stills)),
            **{name: float(np.mean([of(picture) for picture in pictures])) for name, of in self._of_still.items()},
            "nsfw": self._nsfw.score(pictures) if self._nsfw else None,
            "orientation": orientation(shot["width"], shot["height"]),
            "colours": main_colours(pictures),
            "video_hash": video_hash(pictures),
            "embedding": None,
            "embedder": None,
        }
        return shot | scored | (self._of_clip.score(pictures) if self._of_clip else {})


def _of_clip(settings: ScoreSettings) -> "ClipScores | None":
    if isinstance(settings.aesthetic, EstimatorSettings) and settings.embedding is None:
        return None
    from tasks.scores.clip_scores import ClipScores  # torch and transformers: seconds that others need not wait

    return ClipScores(settings)


@lru_cache(maxsize=1)
def scorer(settings: ScoreSettings) -> Scorer:
    """Return the scorer of these settings, loaded once per process."""
    return Scorer(settings)


def spread(pictures: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Return `count` of the pictures, or all if they are fewer, at even distances from both ends."""
    count = min(count, len(pictures))
    return [pictures[(2 * place + 1) * len(pictures) // (2 * count)] for place in range(count)]


def read_stills(path: Path, wanted: Sequence[int]) -> list[dict[str, Any]]:
    """Return some rows of the table of stills, by their numbers in rising order, reading only their row groups."""
    with pq.ParquetFile(path) as file:
        starts = np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))])
        of_groups = np.searchsorted(starts, wanted, side="right") - 1
        groups = np.unique(of_groups)
        rows = file.read_row_groups(groups.tolist()).to_pylist()
    before = dict(zip(groups, np.cumsum([0, *(starts[group + 1] - starts[group] for group in groups)]), strict=False))
    return [rows[row - starts[group] + before[group]] for row, group in zip(wanted, of_groups, strict=True)]


def score_shard(shard: shards.Shard, stills: Path, settings: ScoreSettings) -> None:
    """Write the scores of one shard of shots.

    Args:
        shard: of pairs: the number of a shot's row in the table of stills, and its row of schema SHOTS.
        stills: file with the table of stills.
    """
    pictures = read_stills(stills, [number for number, _ in shard.given])
    shots = [shot for _, shot in shard.given]
    assert [row["clip"] for row in pictures] == [shot["clip"] for shot in shots], f"{stills} is of other shots"
    score = scorer(settings).score
    rows = [score(shot, row["stills"]) for shot, row in zip(shots, pictures, strict=True)]
    shard.write(rows, tables.SCORES)


def load_reusable(reusable: Path, work: Path, shots: list[tuple[int, dict[str, Any]]], stills: Path) -> shards.Shard:
    """Make a shard of the shots that an earlier run has scored, with the same row and the same stills.

    Args:
        reusable: folder of the earlier run's scores, and of the stills that they were made of.
        shots: what is given now, with the numbers of their rows in `stills`.
    """
    table = reusable / tables.SCORE_TABLE
    if not table.exists():
        return shards.reused(work, [])
    before, now = (dict(_hashes(path)) for path in (reusable / tables.STILL_TABLE, stills))
    scores = {row["clip"]: row for row in shards.rows(table, tables.SCORES)}
    measured = [name for name in tables.SHOTS.names if name not in _OF_SOURCE]

    def is_same(shot: dict[str, Any]) -> bool:
        found = scores.get(shot["clip"])
        is_alike = found is not None and all(found[name] == shot[name] for name in measured)
        return is_alike and before.get(shot["clip"]) == now[shot["clip"]]

    reused = shards.reused(work, [one for one in shots if is_same(one[1])])
    if reused.given and not reused.is_done:
        reused.write([scores[shot["clip"]] | shot for _, shot in reused.given], tables.SCORES)
    return reused


def _hashes(stills: Path) -> Iterator[tuple[str, bytes]]:
    """Give each shot with a hash of its stills."""
    for row in shards.rows(stills, tables.STILLS):
        digest = hashlib.sha256()
        for still in row["stills"]:
            digest.update(len(still).to_bytes(8, "little") + still)
        yield row["clip"], digest.digest()[:16]


def usable_shots(table: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of the table of shots that are scored, each with the number of its row in the table of stills."""
    return list(enumerate(tables.ok(tables.read_rows(table, tables.SHOTS))))


class Scores(Stage[tuple[int, dict[str, Any]]]):
    """Stage scores: one row of schema SCORES per usable shot, in the order of the shots.

    Args:
        shots: folder with the table of shots and their stills.
        settings: which models.
    """

    name, verb, unit = "scores", "score", "shots"

    def __init__(self, shots: Path, settings: ScoreSettings) -> None:
        self.table, self.stills, self.settings = shots / tables.SHOT_TABLE, shots / tables.STILL_TABLE, settings

    def given(self) -> list[tuple[int, dict[str, Any]]]:
        return usable_shots(self.table)

    def decides(self) -> dict[str, Any]:
        made_by = scorer(self.settings).names()
        return {"scores": self.settings.model_dump(exclude={"shard_shots"}), "made_by": made_by}

    def inputs(self, given: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        made_from = {"shots": atomic.sha256_file(self.table), "stills": atomic.sha256_file(self.stills)}
        return made_from | {"shard_shots": self.settings.shard_shots}

    def shard_size(self) -> float:
        return self.settings.shard_shots

    def load_reusable(self, reusable: Path, work: Path, given: list[tuple[int, dict[str, Any]]]) -> shards.Shard:
        return load_reusable(reusable, work, given, self.stills)

    def save_reusable(self, given: list[tuple[int, dict[str, Any]]], out: Path, reusable: Path) -> None:
        reuse.save_reusable([out / tables.SCORE_TABLE, self.stills], reusable)

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(partial(score_shard, stills=self.stills, settings=self.settings))

    def join(self, parts: list[shards.Shard], product: Path) -> Joined:
        place = {shot["clip"]: number for part in parts for number, shot in part.given}
        table = product / tables.SCORE_TABLE
        shards.join((part.path for part in parts), table, tables.SCORES, lambda row: place[row["clip"]])
        account = tables.reconcile("shots", place, tables.read_rows(table, tables.SCORES), "clip")
        return Joined((account,), {"made_by": scorer(self.settings).names()})
