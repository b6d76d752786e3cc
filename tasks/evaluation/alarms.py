"""Alarms: rules that tell of a model that is broken in a way that other figures hide; thresholds are in params.yaml."""

from collections.abc import Sequence

from tasks.evaluation.card import Alarm, Dimension
from tasks.evaluation.settings import EvaluationSettings

STILL_VIDEO = "still video"
IGNORES_THE_TEXT = "ignores the text"
_NOBODY_TELLS = (
    "nothing here tells what is due to the text: the judge knows prompts of shapes with one given frame at most, a "
    "CLIP model (evaluation.clip) those without given frames"
)


def still_video(dimensions: Sequence[Dimension], settings: EvaluationSettings) -> list[Alarm]:
    """Say of every group whether more of its videos stand still than of the real clips."""
    above = settings.alarms.still_above_real
    rule = (
        f"fires where the lower end of the share of videos that stand still is more than {above:.0%} above that of the "
        "real clips (evaluation.alarms.still_above_real)"
    )
    found = []
    for one in dimensions:
        if one.name != "still":
            continue
        if one.status != "ok" or one.low is None:
            found.append(_unknown(STILL_VIDEO, rule, one))
            continue
        of_real = float(one.protocol["real_still"])  # type: ignore[arg-type]
        words = (
            f"{one.value:.0%} of {one.n} videos stand still ({one.low:.0%} at least), of the real clips {of_real:.0%}"
        )
        found.append(_alarm(STILL_VIDEO, rule, one, one.low > of_real + above, words))
    return found or [_untold(STILL_VIDEO, rule, "no video has two frames")]


def ignores_the_text(dimensions: Sequence[Dimension], settings: EvaluationSettings) -> list[Alarm]:
    """Say of every group whether its videos agree no better with their prompts than with these in any order."""
    limit = settings.alarms.text_p
    rule = (
        f"fires where p is above {limit:g}: the probability that shuffled prompts agree with the same videos as "
        "well as the true ones (evaluation.alarms.text_p)"
    )
    found = []
    for one in dimensions:
        if not one.name.startswith("text_p"):
            continue
        if one.status != "ok" or one.value is None:
            found.append(_unknown(IGNORES_THE_TEXT, rule, one))
            continue
        words = f"p = {one.value:.2g} over {one.n} videos, by the {one.protocol['by']}"
        found.append(_alarm(IGNORES_THE_TEXT, rule, one, one.value > limit, words))
    return found or [_untold(IGNORES_THE_TEXT, rule, _NOBODY_TELLS)]


def _untold(name: str, rule: str, words: str) -> Alarm:
    return Alarm(name=name, state="not_applicable", rule=rule, found=words)


def _alarm(name: str, rule: str, one: Dimension, fires: bool, words: str) -> Alarm:
    return Alarm(name=name, group=one.group, state="fires" if fires else "quiet", rule=rule, found=words)


def _unknown(name: str, rule: str, one: Dimension) -> Alarm:
    words = one.reason or one.status.replace("_", " ")
    return Alarm(name=name, group=one.group, state="not_applicable", rule=rule, found=words)


ALARMS = (still_video, ignores_the_text)
