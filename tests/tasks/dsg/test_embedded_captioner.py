"""What the captioner of the package invents, and that DSG-Video finds it: all frames together, and one at a time."""

import time
from itertools import islice
from typing import NamedTuple

import av
import cv2
import pytest

from stiv_model.captioner.captioner import load_captioner
from tasks.demo import corpus, shapes
from tasks.demo.train_captioner import ANYWHERE, Accuracy, accuracy_of, still_scenes
from tasks.dsg import rules
from tasks.dsg.captions import Caption, Other, counts_of, judge_caption
from tasks.dsg.judges import ShapesJudge
from tasks.dsg.judging import gate_of, judged_of, summary
from tasks.dsg.scores import Figures, figures
from tests.made_clips import SETTINGS

SEED = 1000  # of no training


class Found(NamedTuple):
    """One way of captioning some scenes."""

    accuracy: Accuracy
    judged: Figures
    invented: float
    """Share of the captions with a shape that the scene does not have, by construction."""
    speed: float
    """Clips per CPU second."""


def caption_and_judge(describe, scenes) -> Found:
    """Caption scenes, and have DSG-Video say what is invented."""
    started = time.process_time()
    texts = [describe(stills) for _, stills in scenes]
    speed = len(scenes) / (time.process_time() - started)
    judge = ShapesJudge()
    rows = [
        judge_caption(Caption("", text, stills, ()), judge) for text, (_, stills) in zip(texts, scenes, strict=True)
    ]
    said = iter(texts)
    accuracy = accuracy_of(lambda _: next(said), scenes)
    wrong = [rules.said(text).shapes != (scene.shape,) for text, (scene, _) in zip(texts, scenes, strict=True)]
    return Found(accuracy, figures([counts_of(row) for row in rows]), sum(wrong) / len(wrong), speed)


def both_ways(count: int) -> tuple[Found, Found]:
    captioner, scenes = load_captioner(), still_scenes(count, SEED, ANYWHERE)
    return caption_and_judge(captioner.describe, scenes), caption_and_judge(captioner.describe_merged, scenes)


def test_single_frames_make_it_invent_directions_and_all_frames_do_not():
    together, merged = both_ways(16)
    assert min(together.accuracy[:3]) >= 0.9
    assert min(merged.accuracy[:2]) >= 0.9 and merged.accuracy.direction <= 0.5
    assert together.judged.kinds["relation"].high < merged.judged.kinds["relation"].low
    for found in (together, merged):
        assert found.judged.rate_i.rate == pytest.approx(found.invented, abs=0.01)
        assert found.judged.objects_per_caption == 1


@pytest.mark.long
def test_of_300_scenes_it_is_as_often_right_as_the_documentation_says():
    together, merged = both_ways(300)
    for name, found in (("all frames", together), ("one frame at a time", merged)):
        print(f"{name}: {found.accuracy}, {found.speed:.0f} clips per CPU second, decoding included")
        for kind, rate in found.judged.kinds.items():
            print(f"  invented, {kind}: {rate.hits} of {rate.of}, {rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}]")
        print(f"  DSG-Video_i {found.judged.rate_i.rate:.2%}, by construction {found.invented:.2%}")
        assert abs(found.judged.rate_i.rate - found.invented) <= 0.01
    assert together.accuracy.colour >= 0.98 and together.accuracy.direction >= 0.97
    assert together.accuracy.shape >= 0.90
    assert merged.accuracy.colour >= 0.98 and merged.accuracy.direction <= 0.35
    by_all, by_one = together.judged.kinds["relation"], merged.judged.kinds["relation"]
    assert by_one.rate >= 10 * by_all.rate and by_all.high < by_one.low


@pytest.fixture(scope="module")
def real():
    """Stills of clips of real videos, by clip."""
    found = {}
    for name in ("bikes", "carphone_pristine"):
        with av.open(str(corpus.packaged_file(name))) as video:
            frames = [frame.to_ndarray(format="bgr24") for frame in islice(video.decode(video=0), 0, 240, 8)]
        small = [cv2.resize(frame, (160, 120), interpolation=cv2.INTER_AREA) for frame in frames]
        stills = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in small]
        found |= {f"{name} {first}": stills[first : first + 4] for first in range(0, len(stills) - 3, 4)}
    return found


@pytest.mark.parametrize("way", ["describe", "describe_merged"])
def test_of_real_clips_there_is_no_figure_and_no_verdict(real, way):
    describe, judge = getattr(load_captioner(), way), ShapesJudge()
    others = [Other("", f"a red {shape} moves left") for shape in shapes.SHAPES]
    own = {"captioner": way, "of_whole_video": False, "status": "ok"}
    texts = {clip: describe(stills) for clip, stills in real.items()}
    assert all(rules.said(text).shapes for text in texts.values()), "it says of everything that it is a shape"
    rows = [
        own | {"clip": clip} | judge_caption(Caption(clip, texts[clip], stills, others), judge)
        for clip, stills in real.items()
    ]
    (of_captioner,) = judged_of([rows]).values()
    told = summary(gate_of(of_captioner, SETTINGS.dsg), of_captioner)
    assert told.keys() == {"verdict", "why", "captions", "decoys"}
    assert (told["verdict"], told["captions"]) == ("no verdict", len(real))
    assert told["why"].startswith("judge not fit here: it affirmed")
