"""The page stands alone, shows everything it was given, escapes it, and says what is missing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tasks.clips.settings import ClipSettings, NonNegativeRange
from tasks.demo import shapes
from tasks.pages import categories, report
from tasks.storage import tables
from tests.made_card import write_card
from tests.made_stills import write_stills

HOSTILE = "<script>alert('x')</script> & \"quoted\""
MODES = ("t2v", "t2v", "ti2v", "tup")
TRUTHS = sum(mode != "t2v" for mode in MODES)
LEARNING = ("recipe", "step", "n", "colour", "shape", "direction", "one_object", "same_object")
RECIPES = ("t2i", "t2v", "stiv", "sft", "unmask_sft", "tasks", "tup")
ACCOUNTS = {
    "corpus": {"corpus": (4, 4, 0, 0)},
    "videos": {"videos": (5, 4, 0, 1)},
    "shots": {"videos": (4, 4, 0, 0), "shots": (4, 4, 0, 0)},
    "scores": {"shots": (4, 4, 0, 0)},
    "clips": {"shots": (4, 3, 1, 0)},
    "captions": {"clips": (3, 3, 0, 0)},
    "categories": {"captions": (3, 3, 0, 0)},
    "latents": {"clips": (3, 3, 0, 0)},
}
CATEGORIES = {
    "shapes": {"clips": 2, "share": 2 / 3, "low": 0.1, "high": 0.99},
    "other": {"clips": 1, "share": 1 / 3, "low": 0.01, "high": 0.9},
    "no_clip": {"clips": 0, "share": 0.0, "low": 0.0, "high": 0.7},
}
DRIFT = {
    "clips": 8,
    "total_variation": 0.25,
    "by_chance": 0.4,
    "verdict": "cannot tell",
    "why": "a release has fewer than 20 videos",
    "categories": {
        "shapes": {"before": 0.5, "now": 2 / 3, "change": 1 / 6, "low": -0.5, "high": 0.7, "verdict": "cannot tell"},
        "gone": {"before": 0.5, "now": 0.0, "change": -0.5, "low": -0.9, "high": 0.1, "verdict": "cannot tell"},
    },
}


_RIGHT = {"right": 3, "share": 0.75, "low": 0.3, "high": 0.95}
LONG = {
    "videos": 4, "windows": 2, "window_frames": 4, "direction": _RIGHT | {"of": 8, "chance": 0.25},
    "seams": {"median": 1.125, "least": 0.9, "most": 1.5}, "true_seams": 1.0,
    "made_psnr": 21.5, "repeated_psnr": 19.0, "given_psnr": 30.0, "flicker": 0.96,
    "drift": {
        "1": {"colour": _RIGHT | {"right": 4, "share": 1.0}, "shape": _RIGHT},
        "2": {"colour": _RIGHT, "shape": _RIGHT | {"right": 2, "share": 0.5}},
    },
}  # fmt: skip
LONG_VIDEOS = 1
_LIMITED, _FREE = {"min": 1.0, "max": 9.5}, {"min": None, "max": None}
_NAMES = [name for name, field in ClipSettings.model_fields.items() if field.annotation is NonNegativeRange]
CLIPS = ClipSettings(
    **dict.fromkeys(_NAMES, _FREE) | {"aesthetic": _LIMITED},
    nsfw=None,
    orientations=["square"],
    duplicate_bits=None,
    duplicate_similarity=None,
    best=None,
    earlier_releases=[],
    gate_min_clips=1,
    gate_min_kept_fraction=0.1,
    gate_min_hours=0.0,
    gate_max_rejected={},
    gate_max_drift=None,
)


def make_inputs(root: Path) -> report.Inputs:
    """Write everything the page is made of, at tiny size."""
    folders = [root / name for name in ("reports", "shots", "clips", "captions", "samples")]
    made = report.Inputs(*folders, stages=tuple(ACCOUNTS), recipes=RECIPES, compared=root / "compared")
    for folder in (*folders, made.compared, made.reports / "losses", made.reports / "data_docs"):
        folder.mkdir()
    write_reports(made.reports)
    write_learning(made.reports)
    write_tables(made)
    write_judged_captions(made.reports)
    write_comparison(made.compared)
    write_samples(made.samples)
    write_card(made.samples, made.reports)
    (made.reports / "long.json").write_text(json.dumps(LONG))
    return made


def write_reports(reports: Path) -> None:
    for stage, units in ACCOUNTS.items():
        accounts = [tables.Account(unit, *counts, reasons={}) for unit, counts in units.items()]
        tables.write_report(reports / f"{stage}.json", *accounts)
    told = json.loads((reports / "categories.json").read_text()) | {"categories": CATEGORIES, "videos": 3}
    (reports / "categories.json").write_text(json.dumps(told))
    steps = [("scored", 4, 4.0, 0, 0.0), ("motion", 3, 3.0, 1, 1.0)]
    funnel = [dict(zip(("step", "clips", "seconds", "lost", "lost_seconds"), step, strict=True)) for step in steps]
    selection = json.loads((reports / "clips.json").read_text())
    selection |= {"funnel": funnel, "gate": {"success": True, "evaluated": 7, "failed": []}}
    (reports / "clips.json").write_text(json.dumps(selection))
    (reports / "data_docs" / "index.html").write_text("<p>docs</p>")
    header = "step\tloss\tgradient_norm\tlearning_rate\tsamples_per_second\tseconds\n"
    for recipe in RECIPES:
        lines = [f"{step}\t{2 / step}\t1.0\t0.001\t50\t{step / 2}\n" for step in (1, 2, 3)]
        (reports / "losses" / f"{recipe}.tsv").write_text(header + "".join(lines))


def write_learning(reports: Path) -> None:
    rows = [LEARNING, ("t2i", 2, 4, 3, 1, "", 4, ""), ("t2v", 2, 4, 4, 2, 1, 4, 3)]
    (reports / "learning.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


def write_tables(made: report.Inputs) -> None:
    still = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
    scores = {"motion": 0.5, "aesthetic": 4.0, "text_area": 0.1, "clarity": 9.0, "temporal_consistency": 0.9}
    facts = scores | {"height": 64, "width": 64, "seconds": 1.0, "uri": "a/b.mp4"}
    states = [("ok", None)] * 3 + [("rejected", "motion_below_min")]
    rows = [{"clip": f"a{i}", "status": s, "reason": r} | facts for i, (s, r) in enumerate(states)]
    tables.write_rows(made.selected / "clips.parquet", rows, tables.CLIPS)
    write_stills(made.shots, {row["clip"]: [still, still] for row in rows})
    texts = [("sidecar", HOSTILE), ("sidecar", "a red circle"), ("describe", "a bright picture")]
    captions = [{"clip": f"a{i}", "status": "ok", "captioner": c, "text": t} for i, (c, t) in enumerate(texts)]
    tables.write_rows(made.captions / "captions.parquet", captions, tables.CAPTIONS)


def rate(hits: int, of: int, low: float, high: float) -> dict:
    return {"hits": hits, "of": of, "rate": hits / of, "low": low, "high": high}


def write_judged_captions(reports: Path) -> None:
    """Write what stages captions and dsg say of captioners."""
    cleaned = json.loads((reports / "captions.json").read_text()) | {"rules": {"quotes": 2, "markdown": 0}}
    (reports / "captions.json").write_text(json.dumps(cleaned))
    unfit = "judge not fit here: it affirmed 7 of 28 objects that are not there"
    told = {
        "describe": {"verdict": "no verdict", "why": unfit, "captions": 7},
        "sidecar": {"verdict": "passed", "why": "few", "captions": 100, "rate_i": rate(3, 100, 0.01, 0.08)},
    }
    (reports / "dsg.json").write_text(json.dumps({"captioners": told}))


def example(clip: str, kind: str | None) -> dict:
    """Return what two captioners say of a clip, the second with something invented if it is of a kind."""
    first = {"pieces": [{"text": f"{HOSTILE} moves left", "kind": None}], "invented": []}
    pieces = [{"text": "a red circle moves ", "kind": None}, {"text": "right", "kind": kind}]
    second = {"pieces": pieces, "invented": ["Does the circle move right?"] if kind else []}
    return {"clip": clip, "said": [first, second]}


def write_comparison(folder: Path) -> None:
    """Write what stage comparison makes of a clip for which the judge is fit, and of one for which it is not."""
    names, none = ["video", "frames"], rate(0, 93, 0.0, 0.039)
    kinds = {name: {"object": none, "relation": none} for name in names}
    kinds["frames"]["relation"] = rate(61, 93, 0.548, 0.753)
    differences = {"object": {"verdict": "cannot tell"}, "relation": {"verdict": "better"}}
    unfit = "judge not fit here: it affirmed 6 of 36 objects that are not there"
    fit = {"figures": {name: {"kinds": own} for name, own in kinds.items()}, "differences": differences}
    told = {
        "captioners": names,
        "ways": {"video": "video_llm", "frames": "frames_llm"},
        "judge": "shapes",
        "clips": {"drawn": 100, "failed": {"video": {}, "frames": {"malformed": ["x", "y"]}}},
        "verdict": {"kinds": differences},
        "figures": {name: {"invented": {"kinds": own}} for name, own in kinds.items()},
        "groups": [
            {"group": "shapes", "clips": 93, "judge": "fit", "why": None, "examples": [example("a1", "relation")]}
            | fit,
            {
                "group": "real",
                "clips": 7,
                "judge": "judge not fit here",
                "why": unfit,
                "examples": [example("a2", None)],
            },
        ],
    }
    (folder / "compare.json").write_text(json.dumps(told))


def write_samples(folder: Path) -> None:
    rows = []
    for number, mode in enumerate(MODES):
        scene = shapes.scene(1, number, held_out=True)
        video, name = shapes.render(scene, 64, 4), f"{mode}-{number:03}"
        np.save(folder / f"{name}.npy", video)
        write_video(folder / f"{name}.mp4", video)
        truth = {"colour": scene.colour, "shape": scene.shape, "direction": scene.direction}
        row = {
            "id": name,
            "mode": mode,
            "held_out": number != 1,
            "prompt": f"{shapes.caption(scene)} {number}",
            **truth,
            "status": "ok",
        }
        row |= {"file": f"{name}.npy", "video": f"{name}.mp4", "image": None, "truth": None}
        row |= {"given_frames": [0, 2]} if mode == "tup" else {}
        if mode != "t2v":
            row["truth"] = f"{name}-truth.mp4"
            write_video(folder / row["truth"], video)
        if mode == "ti2v":
            row["image"] = f"{name}.png"
            cv2.imwrite(str(folder / row["image"]), video[0][..., ::-1])
        rows.append(row)
    content = {"checkpoint": "checkpoints/unmask_sft", "sampler": {"steps": 4}, "samples": rows}
    named = {name: rows[0][name] for name in ("file", "video")} | {"image": None, "truth": None}
    content["long"] = [rows[0] | named | {"id": "long-000", "mode": "long", "given_frames": [0], "window": 4}]
    content["given"] = {"guidance_scale": 1.0, "steps": 3}
    (folder / "samples.json").write_text(json.dumps(content))


def write_video(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


class Page(HTMLParser):
    """What a page loads, links to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        names = ("src", "href", "xlink:href", "poster", "srcset", "data", "action")
        self.references += [value for name, value in attrs if name in names]

    def handle_data(self, data):
        self.words += data


@pytest.fixture
def inputs(tmp_path) -> report.Inputs:
    return make_inputs(tmp_path)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    """The page of a run in which all went well, without recorded times. Drawing takes a second: made once."""
    root = tmp_path_factory.mktemp("well")
    return report.build(make_inputs(root), root / "times.json", CLIPS)


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> Page:
    """The page of a run with recorded times, an account that does not balance, and a sample that was not made."""
    root = tmp_path_factory.mktemp("troubled")
    made = make_inputs(root)
    tables.write_report(made.reports / "captions.json", tables.Account("clips", 9, 3, 0, 0, {}))
    told = json.loads((made.reports / "categories.json").read_text())
    (made.reports / "categories.json").write_text(json.dumps(told | {"drift": DRIFT}))
    write_judged_captions(made.reports)
    content = json.loads((made.samples / "samples.json").read_text())
    content["samples"][0]["status"] = "failed"
    (made.samples / "samples.json").write_text(json.dumps(content))
    write_card(made.samples, made.reports)
    stages = {"videos": {"seconds": 12.3, "skipped": False}, "shots": {"seconds": 0.4, "skipped": True}}
    (root / "times.json").write_text(json.dumps({"stages": stages}))
    report.write_page.fn(made, root / "deep" / "report.html", root / "times.json", CLIPS)
    assert [path.name for path in (root / "deep").iterdir()] == ["report.html"]
    return Page((root / "deep" / "report.html").read_text())


def test_nothing_is_loaded_from_elsewhere(text, page):
    kinds = ("data:image/", "data:video/mp4;base64,", "#")
    elsewhere = {one for one in page.references if not one.startswith(kinds)}
    assert elsewhere == {"data_docs/index.html", "captions/compare.html", "evaluation/card.html"}
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert "@import" not in text and "url(http" not in text
    assert any(value and value.startswith("default-src 'none'") for _, value in page.attributes)


def test_no_two_elements_share_an_id(page):
    ids = [value for name, value in page.attributes if name == "id"]
    assert ids and len(ids) == len(set(ids))


def test_every_reference_within_the_page_leads_somewhere(text, page):
    ids = {value for name, value in page.attributes if name == "id"}
    assert {one[1:] for one in page.references if one.startswith("#")} | set(re.findall(r"url\(#([^)]+)", text)) <= ids


def test_every_colour_of_a_figure_follows_the_page(text):
    assert not re.findall(r"(?:fill|stroke): #\w+", text[text.index("<svg") :])


def test_every_sample_is_shown_with_its_prompt(page):
    for number, mode in enumerate(MODES):
        caption = shapes.caption(shapes.scene(1, number, held_out=True))
        assert f"{mode}-{number:03}" in page.words and f"{caption} {number}" in page.words
    assert page.tags.count("video") == len(MODES) + TRUTHS + LONG_VIDEOS


def test_truth_and_given_frame_stand_beside_what_was_generated(page):
    shown = [value for name, value in page.attributes if name in ("aria-label", "alt")]
    assert sum(value.startswith("True video for:") for value in shown) == TRUTHS
    assert sum(value.startswith("Given first frame for:") for value in shown) == MODES.count("ti2v")


def test_held_out_and_seen_samples_stand_apart_and_come_first(page):
    assert "Text to video, held out" in page.words and "Text to video, seen" in page.words
    assert (
        page.words.index("Generated samples") < page.words.index("The judge's figures") < page.words.index("The funnel")
    )


def test_every_figure_of_the_judge_has_its_curve_over_training(page):
    curves = [value for name, value in page.attributes if name == "aria-label" and "over training" in (value or "")]
    assert len(curves) == 5, "of a single frame neither direction nor sameness, but the others have them"
    assert sum("2 points" in value for value in curves) == 3 and sum("1 points" in value for value in curves) == 2


def test_categories_have_their_shares_and_the_drift_of_each_where_a_release_came_before(page, troubled):
    assert "What the captions are about" in page.words and "67\u00a0%" in page.words and "no clip" in page.words
    assert "Since the last release" not in page.words
    assert "cannot tell, -50.0 to +70.0 points" in troubled.words and "not compared" in troubled.words
    assert "25\u00a0%" in troubled.words and "fewer than 20 videos" in troubled.words


def test_where_nobody_decides_there_is_no_section_of_categories():
    assert categories.panel({"captions": {"given": 3}}) is None


def test_long_videos_have_a_row_of_their_own_and_their_drift(page):
    assert "2 windows of 4 frames, from a first frame" in page.words
    assert "At the first window 4 and 3 of 4, at the last 3 and 2" in page.words
    assert (
        "at guidance scale 1.0 in 3 steps. Latent frame 0 was given; then come key frames, 3 frames apart" in page.words
    )
    assert "1.12 times that inside windows" in page.words and "0.90 to 1.50" in page.words


def test_without_long_videos_nothing_is_said_of_drift(inputs, tmp_path):
    content = json.loads((inputs.samples / "samples.json").read_text())
    (inputs.samples / "samples.json").write_text(json.dumps(content | {"long": []}))
    (inputs.reports / "long.json").write_text(json.dumps({"videos": 0}))
    assert "windows meet" not in report.build(inputs, tmp_path / "times.json", CLIPS)


def test_no_validation_at_all_is_said(inputs, tmp_path):
    (inputs.reports / "learning.tsv").write_text("\t".join(LEARNING) + "\n")
    assert "no validation videos" in Page(report.build(inputs, tmp_path / "times.json", CLIPS)).words


def test_a_hostile_caption_is_text(text, page):
    assert HOSTILE in page.words and "<script" not in text


def test_every_account_is_shown_and_balances(page):
    assert page.words.count("✓ given = ok + rejected + failed") == 9
    assert "does not balance" not in page.words


def test_an_account_that_lost_something_is_marked(troubled):
    assert troubled.words.count("✗ does not balance") == 1


def test_thresholds_are_marked_in_the_histograms(page):
    assert "min 1" in page.words and "max 9.5" in page.words


def test_two_builds_are_equal(text, inputs, tmp_path):
    assert report.build(inputs, tmp_path / "times.json", CLIPS) == text


@pytest.mark.parametrize(
    ("missing", "stage"),
    [
        ("reports/losses/sft.tsv", "sft"),
        ("reports/card.json", "evaluate"),
        ("reports/learning.tsv", "evaluate"),
        ("reports/long.json", "evaluate"),
        ("reports/latents.json", "latents"),
        ("reports/data_docs/index.html", "clips"),
        ("shots/stills/parts.json", "shots"),
        ("clips/clips.parquet", "clips"),
        ("captions/captions.parquet", "captions"),
        ("reports/dsg.json", "dsg"),
        ("compared/compare.json", "comparison"),
        ("samples/samples.json", "samples"),
        ("samples/t2v-001.mp4", "samples"),
    ],
)
def test_a_missing_input_is_named_with_its_stage(inputs, tmp_path, missing, stage):
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing}, .*dvc repro {stage}$"):
        report.build(inputs, tmp_path / "times.json", CLIPS)


def test_a_recipe_without_a_single_step_is_named(inputs, tmp_path):
    (inputs.reports / "losses" / "tup.tsv").write_text("step\tloss\tseconds\n")
    with pytest.raises(ValueError, match=r"losses/tup\.tsv .*dvc repro -f tup$"):
        report.build(inputs, tmp_path / "times.json", CLIPS)


def test_a_table_of_other_columns_is_refused(inputs, tmp_path):
    tables.write_rows(inputs.captions / "captions.parquet", [], tables.STILLS)
    with pytest.raises(ValueError, match="dvc repro -f captions"):
        report.build(inputs, tmp_path / "times.json", CLIPS)


def test_times_are_shown_when_recorded_and_else_said_not_to_be(page, troubled):
    assert "Not recorded" in page.words
    assert "12.3" in troubled.words and "up to date" in troubled.words and "Not recorded" not in troubled.words


def test_a_sample_that_was_not_made_is_said_so(troubled):
    assert (
        "not judged: not_generated" in troubled.words
        and troubled.tags.count("video") == len(MODES) - 1 + TRUTHS + LONG_VIDEOS
    )


def test_videos_beyond_the_size_of_the_page_are_not_embedded(inputs, monkeypatch):
    monkeypatch.setattr(report, "MAX_VIDEO_BYTES", (inputs.samples / "t2v-000.mp4").stat().st_size)
    shown = [row["video_uri"] is not None for row in report.shown_samples(inputs.samples, {})]
    assert shown == [True, False, False, False, False]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5.0 s"), (600, "10.0 min"), (36000, "10.0 h")])
def test_lengths_of_time_read_well(seconds, text):
    assert report.duration(seconds).replace("\u00a0", " ") == text
