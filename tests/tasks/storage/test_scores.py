from importlib import import_module

from tasks.clips.settings import ClipSettings
from tasks.storage import tables
from tasks.storage.scores import SCORES


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
