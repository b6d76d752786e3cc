"""Stage scores: what can be said of a shot from its stills, without decoding the video again.

Simple estimators without weights; each says its range and what it is made of. Nothing is dropped here: the
stage clips compares scores with thresholds.
"""

import logging
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from prefect import task

from tasks import manifest, resume, shards

log = logging.getLogger(__name__)

_SQUARE = 0.05  # share by which the sides of a square may differ
_MIN_COLOUR_SHARE = 0.04  # of the picture, to be named
_MAX_COLOURS = 3
# Upper bounds of hue in OpenCV's half degrees; red closes the circle
_HUES = (
    (8, "red"),
    (20, "orange"),
    (34, "yellow"),
    (82, "green"),
    (98, "cyan"),
    (130, "blue"),
    (145, "purple"),
)
_HUES_END = ((170, "pink"), (180, "red"))
COLOURS = (
    "black",
    "white",
    "grey",
    "brown",
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
)


def aesthetic(picture: np.ndarray) -> float:
    """Return 0 to 10: a plain estimate of how good a BGR picture looks, without learnt weights.

    Mean of four parts, each 0 to 10: colourfulness (Hasler and Süsstrunk 2003; 60 is "quite colourful"),
    contrast (standard deviation of grey; 64 is full), exposure (mean grey; full between 0.25 and 0.75),
    sharpness (standard deviation of the Laplacian; 40 is full). It tells dull, dark and blurred pictures from
    others, and has no taste.
    """
    blue, green, red = (picture[..., channel].astype(np.float64) for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    colourfulness = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    mean = grey.mean(dtype=np.float64) / 255
    parts = (
        colourfulness / 60,
        grey.std(dtype=np.float64) / 64,
        4 * min(mean, 1 - mean),
        cv2.Laplacian(grey, cv2.CV_32F).std(dtype=np.float64) / 40,
    )
    return 10 * float(np.mean(np.clip(parts, 0, 1)))


def text_area(picture: np.ndarray) -> float:
    """Return 0 to 1: the share of a BGR picture that looks like lines of text.

    Strong changes of brightness that lie close together are joined into bands by a morphological closing; a
    band counts when it is wider than high, low, dense, and holds many strokes. Fences may pass as text.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    strokes = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    _, strong = cv2.threshold(strokes, 80, 255, cv2.THRESH_BINARY)
    joined = cv2.morphologyEx(strong, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=4)
    vertical_edges = np.abs(np.diff(grey.astype(np.int16), axis=1)) > 60
    area = 0
    for label in range(1, count):
        left, top, box_width, box_height, pixels = boxes[label]
        if (
            box_height < 5
            or box_height > height / 4
            or box_width < 2.5 * box_height
            or pixels < 0.5 * box_width * box_height
        ):
            continue
        inside = vertical_edges[top : top + box_height, left : min(left + box_width, width - 1)]
        crossings = inside.sum(axis=1).mean()
        if (
            crossings >= 1.0 * box_width / box_height
        ):  # about two edges per letter, a letter is about half its height wide
            area += int(box_width * box_height)
    return min(1.0, area / (height * width))


def orientation(width: int, height: int) -> str:
    """Return landscape, portrait, or square when the sides differ by 5 % at most."""
    if abs(width - height) <= _SQUARE * max(width, height):
        return "square"
    return "landscape" if width > height else "portrait"


def colour_shares(picture: np.ndarray) -> dict[str, float]:
    """Return which share of a BGR picture has each colour of COLOURS; they add up to 1."""
    hue, saturation, value = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV))
    names = np.full(hue.shape, COLOURS.index("grey"), np.uint8)
    start = 0
    for end, name in (*_HUES, *_HUES_END):
        names[(hue >= start) & (hue < end)] = COLOURS.index(name)
        start = end
    names[(hue >= 4) & (hue < 20) & (value < 170)] = COLOURS.index("brown")
    pale = saturation < 50
    names[pale] = COLOURS.index("grey")
    names[pale & (value > 200)] = COLOURS.index("white")
    names[value < 45] = COLOURS.index("black")
    shares = np.bincount(names.ravel(), minlength=len(COLOURS)) / names.size
    return dict(zip(COLOURS, shares.tolist(), strict=True))


def main_colours(pictures: list[np.ndarray]) -> list[str]:
    """Return the names of up to three colours that fill enough of the pictures, the largest first."""
    every = [colour_shares(picture) for picture in pictures]
    mean = {name: sum(shares[name] for shares in every) / len(every) for name in COLOURS}
    largest = sorted(COLOURS, key=lambda name: -mean[name])
    return [name for name in largest[:_MAX_COLOURS] if mean[name] >= _MIN_COLOUR_SHARE] or largest[:1]


def score_shot(shot: dict, stills: list[bytes]) -> dict:
    """Return the shot's row of manifest.SCORES; scores of pictures are means over its stills."""
    decoded = (cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_COLOR) for still in stills)
    pictures = [picture for picture in decoded if picture is not None]
    assert pictures and len(pictures) == len(stills), f"{shot['shot']}: {len(pictures)} of {len(stills)} stills decode"
    return shot | {
        "aesthetic": float(np.mean([aesthetic(picture) for picture in pictures])),
        "text_area": float(np.mean([text_area(picture) for picture in pictures])),
        "orientation": orientation(shot["width"], shot["height"]),
        "colours": main_colours(pictures),
    }


def read_stills(path: Path, first: int, count: int) -> list[dict]:
    """Return `count` rows of the table of stills from row `first` on, reading only their row groups."""
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        groups = [group for group in range(len(sizes)) if starts[group] < first + count and starts[group + 1] > first]
        rows = file.read_row_groups(groups).to_pylist()
    skipped = first - int(starts[groups[0]])
    return rows[skipped : skipped + count]


@task(task_run_name="score {shard.path.stem}", retries=1)
def score_shard(shard: shards.Shard, first: int, stills: Path) -> None:
    """Score one shard of shots, whose stills begin at row `first` of the table."""
    kept = read_stills(stills, first, len(shard.given))
    assert [row["shot"] for row in kept] == [shot["shot"] for shot in shard.given], f"{stills} is of other shots"
    rows = [score_shot(shot, row["stills"]) for shot, row in zip(shard.given, kept, strict=True)]
    shard.write(rows, manifest.SCORES)


def usable_shots(table: Path) -> list[dict]:
    """Return the rows of the table of shots that are scored."""
    return manifest.ok(manifest.read_rows(table, manifest.SHOTS))


def join_scores(work: Path, parts: list[shards.Shard], out: Path, report: Path) -> manifest.Account:
    """Put the shards' rows together in `out`, in the order of the shots."""
    product = work / "product"
    product.mkdir(exist_ok=True)
    shards.join([part.path for part in parts], product / manifest.SCORE_TABLE, manifest.SCORES)
    rows = manifest.read_rows(product / manifest.SCORE_TABLE, manifest.SCORES)
    account = manifest.settle("shots", (shot["shot"] for part in parts for shot in part.given), rows, "shot")
    manifest.write_report(report, account)
    resume.finish(product, out)
    resume.discard_work(out)
    return account
