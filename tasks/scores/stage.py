"""Stage scores: what is measured of a shot from its stills, without decoding the video again.

Each score lives in a file of its own here and has a row in tasks/storage/scores.py; docs/scores.md has the table.
Nothing is dropped here: the stage clips compares scores with thresholds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import pyarrow as pa

from tasks.scores.aesthetic import Estimate
from tasks.scores.colours import main_colours, orientation
from tasks.scores.nsfw import OpenNsfw
from tasks.scores.settings import EstimatorSettings, ScoreSettings
from tasks.scores.text_area import RapidText, Strokes
from tasks.scores.video_hash import video_hash
from tasks.storage import atomic, matching, parts, queries, reuse, shards, stills, tables
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


def score_shard(shard: shards.Shard, shots: Path, settings: ScoreSettings) -> None:
    """Write the scores of one shard of shots, rows of schema SHOTS.

    Args:
        shots: folder with the stills.
    """
    rows = [{name: row[name] for name in tables.SHOTS.names} for row in shard.read()]
    pictures = stills.read(shots, [row["clip"] for row in rows])
    score = scorer(settings).score
    shard.write([score(row, pictures[row["clip"]]) for row in rows], tables.SCORES)


class Scores(Stage):
    """Stage scores: one row of schema SCORES per usable shot, in the order of the shots.

    The scores of shots with the same row and the same stills as in an earlier run are taken from there.

    Args:
        shots: folder with the table of shots and their stills.
        settings: which models.
    """

    name, verb, unit = "scores", "score", "shots"
    schema = tables.SHOTS

    def __init__(self, shots: Path, settings: ScoreSettings) -> None:
        self.shots, self.table, self.settings = shots, shots / tables.SHOT_TABLE, settings

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        return tables.usable(self.table, tables.SHOTS, tables.SHOTS.names)

    def decides(self) -> dict[str, Any]:
        made_by = scorer(self.settings).names()
        return {"scores": self.settings.model_dump(exclude={"shard_shots"}), "made_by": made_by}

    def inputs(self) -> dict[str, Any]:
        listed = self.shots / stills.FOLDER / parts.HASHES
        made_from = {"shots": atomic.sha256_file(self.table), "stills": atomic.sha256_file(listed)}
        return made_from | {"shard_shots": self.settings.shard_shots}

    def shard_size(self) -> float:
        return self.settings.shard_shots

    def reuse(self, given: Path, reusable: Path, reused: Path) -> bool:
        table = reusable / tables.SCORE_TABLE
        if not table.exists():
            return False
        measured = [name for name in tables.SHOTS.names if name not in _OF_SOURCE]
        changes = stills.Changes(reusable, self.shots)

        def rows() -> Iterator[pa.RecordBatch]:
            pairs = matching.matched(shards.read_given(given), queries.read([table]), "video", "clip", measured)
            for now, made in pairs:
                are_same = pa.array(changes.are_same(now["clip"]))
                yield from shards.placed_rows(now.filter(are_same), made.filter(are_same), tables.SCORES, _OF_SOURCE)

        return queries.write(reused, rows(), shards.placed(tables.SCORES)) > 0

    def save_reusable(self, given: Path, out: Path, reusable: Path) -> None:
        files = [out / tables.SCORE_TABLE, self.shots / stills.FOLDER]
        reuse.save_reusable(files, reusable, stills.hashes(self.shots))

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(partial(score_shard, shots=self.shots, settings=self.settings))

    def join(self, work: shards.Work, product: Path) -> Joined:
        table = product / tables.SCORE_TABLE
        queries.write(table, shards.joined(work, tables.SCORES), tables.SCORES)
        account = queries.settle("shots", work.keys("clip"), queries.outcomes(table, "clip"), "clip")
        return Joined((account,), {"made_by": scorer(self.settings).names()})
