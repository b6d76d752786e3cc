"""What the judge of shapes sees in a video, as metrics."""

from tasks.demo.shapes import CHANCE, Verdict, judge
from tasks.evaluation.judge import ATTRIBUTES, PROPERTIES, psnr
from tasks.evaluation.metrics import Evaluated, Metric


def _is_asked(entry: Evaluated) -> bool:
    return entry.colour is not None


def _verdict(entry: Evaluated) -> Verdict:
    return entry.seen_by(judge)


def _right(name: str) -> Metric:
    def measure(entry: Evaluated) -> bool:
        return bool(getattr(_verdict(entry), name) == getattr(entry, name))

    meaning = f"The judge, which reads pixels only, sees the {name} that the prompt asks for."
    return Metric(name, "share", "higher", measure, _is_asked, chance=CHANCE[name], meaning=meaning)


def _seen(name: str) -> Metric:
    def measure(entry: Evaluated) -> str | None:
        return getattr(_verdict(entry), name)

    return Metric(f"seen_{name}", "word", None, measure, _is_asked)


_MEANINGS = {
    "moved": "The object gets from one place to another.",
    "one_object": "Nearly all vivid colour is in one connected part.",
    "same_object": "The object of each frame overlaps that of the one before, and keeps its form.",
}


def _has(name: str, attribute: str) -> Metric:
    def measure(entry: Evaluated) -> bool:
        return bool(getattr(_verdict(entry), attribute))

    return Metric(name, "share", "higher", measure, _is_asked, meaning=_MEANINGS[name])


def _level(name: str) -> Metric:
    def measure(entry: Evaluated) -> float:
        return round(float(getattr(_verdict(entry), name)), 4)

    return Metric(name, "fraction", "higher", measure, _is_asked, is_dimension=False)


def _is_unseen(entry: Evaluated) -> bool:
    return _verdict(entry).colour is None


def _has_image(entry: Evaluated) -> bool:
    return entry.image is not None


def _first_frame_psnr(entry: Evaluated) -> float:
    assert entry.image is not None, "it applies to such entries only"
    return psnr(entry.image, entry.video[0])


_ATTRIBUTE_OF = {"moved": "moved", "one_object": "is_one_object", "same_object": "is_same_object"}

METRICS = (
    *(_right(name) for name in ATTRIBUTES),
    *(_has(name, _ATTRIBUTE_OF[name]) for name in PROPERTIES),
    Metric(
        "unseen",
        "share",
        "lower",
        _is_unseen,
        _is_asked,
        meaning="The judge sees no object at all; every attribute counts as wrong then.",
    ),
    *(_seen(name) for name in ATTRIBUTES),
    Metric(
        "first_frame_psnr",
        "dB",
        "higher",
        _first_frame_psnr,
        _has_image,
        meaning="How close the first frame is to the image that was given.",
    ),
    _level("concentration"),
    _level("continuity"),
)
