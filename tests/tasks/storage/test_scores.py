from importlib import import_module
from typing import Any, get_args, get_type_hints

from tasks.clips.settings import ClipSettings
from tasks.sandbox import answer_schemas
from tasks.storage import tables
from tasks.storage.scores import SCORES, judged, measured_in


def test_every_column_with_a_number_that_clips_are_judged_by_is_a_score_with_a_range():
    known = {score.name: score for score in SCORES}
    judged = [name for name in ClipSettings.model_fields if name in tables.SCORES.names]
    assert {name for name in judged if name not in known} == {"width", "height"}  # of the video
    assert all(known[name].least is not None for name in judged if name in known)


def test_a_score_is_of_a_module_that_is_there_and_has_a_possible_range():
    for score in SCORES:
        import_module(score.made_by)
        assert score.least is None or score.most is None or score.least < score.most, score.name
        assert score.meaning.endswith("."), score.name


def test_places_among_the_thresholds_are_of_one_score_each():
    assert [score.judged for score in judged()] == list(range(1, len(judged()) + 1))


def limits(kind: Any) -> dict[str, float]:
    (constraint,) = get_args(get_args(kind)[0])[1:]
    return {part.__class__.__name__: value for part in constraint.metadata for value in vars_of(part)}


def vars_of(part: Any) -> list[float]:
    return [getattr(part, name) for name in ("ge", "le") if hasattr(part, name)]


def test_a_video_process_may_answer_every_score_of_the_decoding_pass_and_nothing_impossible():
    hints = get_type_hints(answer_schemas.Shot, include_extras=True)
    missing = [name for name in measured_in("shots") if name not in hints]
    assert not missing, f"add to Shot in tasks/sandbox/answer_schemas.py: {missing}"
    for score in SCORES:
        if score.stage == "shots":
            allowed = limits(hints[score.name])
            assert score.least is None or allowed["Ge"] >= score.least, score.name
            assert score.most is None or allowed["Le"] <= score.most, score.name
