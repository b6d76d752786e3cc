"""Results of VBench as files: read, and refused where a number of theirs could not be meant.

VBench writes `{dimension: [mean, [{"video_path": .., "video_results": ..}, ..]]}`; `{dimension: mean}`, as one writes
published figures down, is read too. Means are fractions.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stiv_model.settings_errors import nearest
from tasks.evaluation.vbench.conventions import Convention, limits


def read(files: Iterable[Path], convention: Convention) -> dict[str, float]:
    """Return the mean of every dimension in result files, a fraction each.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no such JSON, names a dimension twice or one that the convention does not know, or a mean
            is no number from 0 to 1 or of no video; or two files have the same dimension.
    """
    found: dict[str, float] = {}
    origin: dict[str, Path] = {}
    for file in files:
        for dimension, value in parse(file).items():
            if dimension in found:
                raise ValueError(f"{dimension} is in {origin[dimension]} and in {file}: one of them must go")
            _check_known(dimension, convention, file)
            found[dimension], origin[dimension] = mean_of(dimension, value, file), file
    return found


def parse(file: Path) -> dict[str, Any]:
    """Return what a result file holds, by dimension, as it is there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON object, it is empty, or it names a key twice.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, and of what is named twice
        raise ValueError(f"{file} is not a result of VBench: {error}") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{file} is not a result of VBench: no JSON object with a dimension in it")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    for number, (key, _) in enumerate(pairs):
        if any(key == other for other, _ in pairs[:number]):
            raise ValueError(f"it has {key} twice: which of the two is meant, only you can say")
    return found


def _check_known(dimension: str, convention: Convention, file: Path) -> None:
    known = [*convention.counted, *convention.not_counted]
    if dimension in known:
        return
    if dimension in limits():
        raise ValueError(f"{file} has {dimension}, which is no dimension of convention {convention.name}: name another")
    raise ValueError(f"{file} has {dimension}, which is no dimension of VBench{nearest(dimension, known)}")


def mean_of(dimension: str, value: Any, file: Path) -> float:
    """Return the mean of a dimension, as it stands in a result.

    Raises:
        ValueError: it is no number from 0 to 1, or of no video.
    """
    place, mean = f"{dimension} of {file}", value
    if isinstance(value, list):
        if not value:
            raise ValueError(f"{place} is an empty list: it was not measured; run it again")
        if len(value) > 1 and value[1] == []:
            raise ValueError(f"{place} was measured on no video: check names and folder, and run it again")
        mean = value[0]
    if isinstance(mean, bool) or not isinstance(mean, int | float):
        raise ValueError(f"{place} is {json.dumps(mean)}, which is no number")
    if math.isnan(mean):
        raise ValueError(
            f"{place} is nan, as VBench says where it found no video: check names and folder, run it again"
        )
    if 1 < mean <= 100:
        raise ValueError(f"{place} is {mean}: VBench's results are fractions; divide percent by 100")
    if not 0 <= mean <= 1:
        raise ValueError(f"{place} is {mean}, and must be from 0 to 1")
    return float(mean)
