"""Two captioners on the same clips: every clip is accounted for, and where the judge is not fit there is no figure."""

import json
from functools import partial

import pyarrow.parquet as pq
import pytest

from tasks.comparison.stage import FIGURES, PAGE, refuse_folder, two_of
from tasks.dsg.stage import EVIDENCE_TABLE
from tasks.pages import compare_page
from tasks.storage import tables
from tests.made_comparison import Made, clip_of, swapped

SHAPES, REAL, SILENT = 16, 8, clip_of(3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison of a model that swaps every second shape, and says nothing of one clip, with the true texts."""
    top = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        made = Made(top, SHAPES, REAL)
        for number in range(0, SHAPES, 2):
            made.said[clip_of(number)] = swapped(made.texts[clip_of(number)])
        made.said[SILENT] = ""
        with made.server() as server:
            write = partial(compare_page.write, shots=top / "shots")
            made.folder = made.compare(server.url, write)
            made.asked = len(server.requests)
            made.again = made.compare(server.url, write, out="again")
            made.asked_again = len(server.requests) - made.asked
        made.told = json.loads((made.folder / FIGURES).read_text())
        yield made


def test_every_clip_is_accounted_for_and_who_failed_at_one_is_named(made):
    account = json.loads((made.top / "report.json").read_text())["clips"]
    assert (account["given"], account["ok"], account["failed"]) == (SHAPES + REAL, SHAPES + REAL - 1, 1)
    assert account["reasons"] == {"empty": 1}
    clips = made.told["clips"]
    assert (clips["drawn"], clips["compared"]) == (SHAPES + REAL, SHAPES + REAL - 1)
    assert clips["failed"] == {"video": {"empty": [SILENT]}, "sidecar": {}}


def test_what_is_told_is_of_those_clips_only_for_which_the_judge_is_fit(made):
    groups = {one["group"]: one for one in made.told["groups"]}
    assert made.told["pooled"] == ["shapes/"]
    assert made.told["verdict"]["clips"] == groups["shapes/"]["clips"] == SHAPES - 1
    assert groups["real/"]["judge"] == "judge not fit here" and "figures" not in groups["real/"]
    figures = made.told["figures"]["video"]["invented"]
    assert (figures["rate_i"]["hits"], figures["rate_i"]["of"]) == (SHAPES // 2, SHAPES - 1)
    assert made.told["figures"]["sidecar"]["invented"]["rate_i"]["hits"] == 0


def test_few_clips_tell_nothing_and_more_of_them_would(made):
    found = made.told["verdict"]["kinds"]["object"]
    assert found["difference"] == pytest.approx(8 / 15) and found["low"] > 0
    assert made.told["verdict"]["said"] == f"cannot tell, {found['more']} clips more would tell"
    assert found["corrected"]["difference"] == pytest.approx(8 / 15)  # every decoy is denied


def test_a_captioner_that_invents_more_of_enough_clips_is_worse(made):
    for number in range(SHAPES):
        made.said[clip_of(number)] = swapped(made.texts[clip_of(number)])
    (made.top / "answers.sqlite").rename(made.top / "before.sqlite")
    with made.server() as server:
        told = json.loads((made.compare(server.url, lambda *_: None, out="worse") / FIGURES).read_text())
    assert told["verdict"]["said"] == "worse"
    assert told["figures"]["video"]["invented"]["corrected_i"]["rate"] == 1


def test_length_richness_and_cost_are_of_both(made):
    for name, one in made.told["figures"].items():
        assert one["length"]["words"] > 3 and one["length"]["tokens"] > one["length"]["words"]
        assert one["richness"]["captions"] == SHAPES - 1 and 1 < one["richness"]["distinct_objects"] <= 4
        assert (one["cost"]["prompt_tokens"], one["cost"]["answers"]) == ((32, 1) if name == "video" else (None, None))
        assert one["cost"]["seconds"] > 0


def test_what_was_answered_is_not_asked_again_and_comes_to_the_same(made):
    assert made.asked == SHAPES + REAL and made.asked_again == 0
    again = json.loads((made.again / FIGURES).read_text())
    assert again["figures"]["video"]["cost"]["seconds"] is None  # nothing is known of how long it took
    for told in (again, before := json.loads(json.dumps(made.told))):
        for one in told["figures"].values():
            del one["cost"]["seconds"]
    assert again == before


def test_both_texts_and_every_answer_are_kept(made):
    captions = pq.read_table(made.folder / tables.CAPTION_TABLE).to_pylist()
    assert [row["captioner"] for row in captions] == ["video", "sidecar"] * (SHAPES + REAL)
    assert {row["clip"]: row["text"] for row in captions[1::2]} == made.texts
    assert {row["clip"]: row["text"] or "" for row in captions[::2]} == made.said | {
        clip_of(number): swapped(made.texts[clip_of(number)]) for number in range(0, SHAPES, 2)
    } | {SILENT: ""} | {clip_of(number): made.texts[clip_of(number)] for number in range(1, SHAPES, 2) if number != 3}
    evidence = pq.read_table(made.folder / EVIDENCE_TABLE).to_pylist()
    assert {row["captioner"] for row in evidence} == {"video", "sidecar"}


def test_the_worst_come_first_on_the_page_with_what_they_invent_marked(made):
    page = (made.folder / PAGE).read_text()
    first = page.partition("<article")[2].partition("</article>")[0]
    assert '<mark class="object">' in first and first.count("data:image/jpeg") == 4
    assert page.count("<article") == SHAPES + REAL - 1 and page.count('<mark class="object">') == SHAPES // 2 + 1
    assert "judge not fit here" in page and SILENT in page


def test_where_one_captioner_fails_at_every_clip_that_is_what_is_said(made):
    before = dict(made.said)
    made.said |= dict.fromkeys(made.said, "")
    (made.top / "answers.sqlite").unlink()
    with made.server() as server:
        folder = made.compare(server.url, partial(compare_page.write, shots=made.top / "shots"), out="none", count=4)
    made.said |= before
    told = json.loads((folder / FIGURES).read_text())
    assert told["verdict"] == {"said": "no clip has a caption by both", "clips": 0, "kinds": {}}
    assert len(told["clips"]["failed"]["video"]["empty"]) == 4
    assert "There is nothing to compare" in (folder / PAGE).read_text()


def test_where_the_judge_is_fit_for_no_source_nothing_is_told(made):
    settings = {"max_false_yes": 0.0, "decoys": 1, "decoy_fraction": 0.01}  # too few decoys to know it by
    with made.server() as server:
        folder = made.compare(
            server.url, partial(compare_page.write, shots=made.top / "shots"), out="unfit", **settings
        )
    told = json.loads((folder / FIGURES).read_text())
    assert told["verdict"] == {"said": "judge not fit here", "clips": 0, "kinds": {}} and told["pooled"] == []
    assert all(one["invented"] is None and one["length"]["words"] > 3 for one in told["figures"].values())
    assert "fit for none of them" in (folder / PAGE).read_text()


def test_names_that_are_none_and_one_name_twice_are_refused(made):
    settings = made.settings("http://localhost:1/v1")
    assert [one.name for one in two_of(settings, ["video", "video"][:1]).models] == ["video"]
    with pytest.raises(ValueError, match=r"called frames: .* sidecar, video"):
        two_of(settings, ["video", "frames"])
    with pytest.raises(ValueError, match="video is compared with itself"):
        two_of(settings, ["video", "video"])


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    refuse_folder(tmp_path)
    refuse_folder(tmp_path / "new")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="name a folder of its own"):
        refuse_folder(tmp_path)
    (tmp_path / FIGURES).touch()
    refuse_folder(tmp_path)
