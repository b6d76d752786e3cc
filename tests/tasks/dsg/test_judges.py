"""The embedded judge answers questions about stills of shapes, and is shown up by decoys elsewhere."""

from itertools import islice

import av
import cv2
import numpy as np
import pytest

from tasks.demo import corpus, shapes
from tasks.dsg.answers import parse
from tasks.dsg.captions import Caption, Other, decoys_of, judge_caption
from tasks.dsg.judges import ShapesJudge
from tasks.dsg.questions import Asked, repair
from tasks.dsg.rules import decoys, questions
from tasks.dsg.verdicts import examine

STILLS = 4


def jpeg(frame):
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()


def stills_of(scene):
    video = shapes.render(scene, 64, 20)
    return [jpeg(video[at]) for at in (2, 7, 12, 17)]


def verdicts_of(asked, stills):
    look = ShapesJudge().look(stills)
    graph = repair(asked)
    found = examine(graph, len(stills), lambda question, frame: parse(look(question, frame)))
    return [found.verdicts[question.id] for question in graph.questions]


def test_it_affirms_what_is_there_and_denies_decoys():
    scenes = [shapes.scene(5, number, held_out=False) for number in range(12)]
    for scene, other in zip(scenes, scenes[5:] + scenes[:5], strict=True):
        stills, text = stills_of(scene), shapes.caption(scene)
        assert verdicts_of(questions(text), stills) == ["present"] * 3
        own, *false = verdicts_of(decoys(text, [shapes.caption(other)]), stills)
        assert own == "present" and set(false) == {"invented"}


def test_one_still_shows_no_direction():
    scene = shapes.scene(5, 0, held_out=False)
    assert verdicts_of(questions(shapes.caption(scene)), stills_of(scene)[:1]) == ["present", "present", "invented"]


def test_on_real_videos_it_affirms_what_is_not_there():
    asked = [Asked(at, "object", f"Is there a {shape}?", key=shape) for at, shape in enumerate(shapes.SHAPES)]
    found = []
    for name in ("bikes", "carphone_pristine"):
        with av.open(str(corpus.packaged_file(name))) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in islice(video.decode(video=0), 0, 96, 8)]
        small = [cv2.resize(frame, (160, 120), interpolation=cv2.INTER_AREA) for frame in frames]
        found += [verdicts_of(asked, [jpeg(frame) for frame in small[at : at + STILLS]]) for at in (0, 4, 8)]
    false_yes = np.mean([verdict == "present" for own in found for verdict in own])
    assert false_yes > 0.15  # of shapes it has none: no figure is to be had from it here


def test_what_it_does_not_know_it_does_not_say():
    (verdict,) = verdicts_of([Asked(1, "action", "Does it rain?")], stills_of(shapes.scene(5, 0, held_out=False)))
    assert verdict == "undecided"


@pytest.mark.parametrize("stills", [[], [b""], [b"no picture"], [jpeg(np.zeros((8, 8, 3), np.uint8))[:40]]])
def test_stills_that_are_no_pictures_are_refused(stills):
    with pytest.raises(ValueError, match=f"{len(stills)} stills"):
        ShapesJudge().look(stills)


def test_stills_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 8\), \(8, 9\)"):
        ShapesJudge().look([jpeg(np.zeros((8, width, 3), np.uint8)) for width in (8, 9)])


def test_a_decoy_that_only_some_stills_affirm_is_a_false_yes_also_where_the_caption_is_denied():
    scenes = [shapes.scene(5, number, held_out=False) for number in range(12)]
    one, another = scenes[0], next(scene for scene in scenes if scene.shape != scenes[0].shape)
    (absent, *_) = set(shapes.SHAPES) - {one.shape, another.shape}
    stills = stills_of(one)
    others = [Other("", shapes.caption(scene)) for scene in (one, another)]
    wrong = shapes.caption(one._replace(shape=absent))
    whole = judge_caption(Caption("", wrong, stills, others), ShapesJudge())
    assert decoys_of(whole)["object"] == (1, 1), "what is there instead is in every still, and no decoy"
    mixed = judge_caption(Caption("", wrong, stills[:2] + stills_of(another)[:2], others), ShapesJudge())
    assert decoys_of(mixed)["object"] == (0, 2)
