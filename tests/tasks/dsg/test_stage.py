"""Stage dsg: captions are judged by stills, and those that invent too much go no further."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.demo import shapes
from tasks.dsg import audit
from tasks.dsg.captions import counts_of
from tasks.dsg.judging import gate_of, judge_texts, judged_of, summary
from tasks.dsg.stage import DSG_TABLE, EVIDENCE_TABLE, Dsg, DsgGateError, draw
from tasks.storage import stage, tables
from tests import made_dsg
from tests.made_stills import write_stills

SCENES, STILLS = 24, 4
SETTINGS = made_dsg.SETTINGS.model_copy(update={"captions": None, "max_invented": 0.2, "shard_captions": 5})


def jpeg(frame):
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.fixture(scope="module")
def scenes():
    """Scenes with their stills."""
    found = [shapes.scene(4, number, held_out=False) for number in range(SCENES)]
    return [(scene, [jpeg(frame) for frame in shapes.render(scene, 48, STILLS)]) for scene in found]


@pytest.fixture
def workspace(tmp_path, scenes):
    """Folders of shots and of true captions."""
    write(tmp_path, {clip_of(number): shapes.caption(scene) for number, (scene, _) in enumerate(scenes)})
    write_stills(tmp_path / "shots", {clip_of(number): stills for number, (_, stills) in enumerate(scenes)})
    return tmp_path


def clip_of(number):
    return f"{number:020x}-0-1"


def write(folder, texts, captioner="sidecar"):
    (folder / "captions").mkdir(exist_ok=True)
    rows = [
        dict.fromkeys(tables.CAPTIONS.names) | {"clip": clip, "status": "ok", "captioner": captioner, "text": text}
        for clip, text in texts.items()
    ]
    tables.write_rows(folder / "captions" / tables.CAPTION_TABLE, rows, tables.CAPTIONS)


def texts_of(folder):
    return {row["clip"]: row["text"] for row in read(folder / "captions", tables.CAPTION_TABLE)}


def swapped(text):
    """Return a caption with another shape."""
    shape = shapes.said(text).shape
    return text.replace(shape, shapes.SHAPES[shapes.SHAPES.index(shape) - 1])


def run(folder, run_shards=stage.in_turn, **changes):
    settings = SETTINGS.model_copy(update=changes)
    declared = Dsg(folder / "captions", folder / "shots", settings, folder / "audits")
    out, report = folder / "dsg", folder / "report.json"
    (account,) = stage.run(declared, out, report, "code", run_shards, folder / "earlier")
    return account, json.loads(report.read_text())


def read(folder, name):
    return pq.read_table(folder / name).to_pylist()


def test_true_captions_pass_and_go_on_as_they_are(workspace):
    account, report = run(workspace)
    assert (account.given, account.ok) == (SCENES, SCENES)
    told = report["captioners"]["sidecar"]
    assert told["verdict"] == "passed" and told["rate_i"]["hits"] == 0
    assert told["decoys"]["object"]["denied"] == told["decoys"]["object"]["asked"] == 3 * SCENES
    assert told["kinds"]["relation"]["of"] == SCENES
    before, after = ((workspace / name / tables.CAPTION_TABLE) for name in ("captions", "dsg"))
    assert pq.read_table(before).equals(pq.read_table(after))


def test_every_answer_is_kept_with_what_was_asked(workspace):
    run(workspace)
    evidence = read(workspace / "dsg", EVIDENCE_TABLE)
    first = [row for row in evidence if row["clip"] == clip_of(0)]
    asked = {(row["role"], row["kind"], row["text"], row["verdict"]) for row in first}
    colour, shape, direction = shapes.said(texts_of(workspace)[clip_of(0)])
    assert {text for role, _, text, verdict in asked if (role, verdict) == ("caption", "present")} == {
        f"Is there a {shape}?",
        f"Is the {shape} {colour}?",
        f"Does the {shape} move {direction}?",
    }
    decoys = [row for row in first if row["role"] == "decoy" and row["kind"] == "object"]
    assert len(decoys) == 3 * STILLS and {row["answer"] for row in decoys} == {"no"}
    assert {row["frame"] for row in first if row["kind"] == "relation"} == {None}
    assert all(row["model"] == "shapes.judge" and len(row["prompt_sha256"]) == 64 for row in evidence)


def test_what_people_saw_is_the_judges_specificity_and_one_that_denies_it_is_not_fit(workspace):
    texts = texts_of(workspace)
    shown = {clip: shapes.said(text).shape for clip, text in texts.items()}
    for number in range(6):
        say(workspace, clip_of(number), shown[clip_of(number)])
    told = run(workspace)[1]["captioners"]["sidecar"]
    assert told["audit"] == {"confirmed": {"affirmed": 6, "asked": 6}, "not_there": {"denied": 0, "asked": 0}}
    assert told["verdict"] == "passed"
    write(workspace, {clip: swapped(text) if number < 6 else text for number, (clip, text) in enumerate(texts.items())})
    for number in range(6):  # the captions now name what the judge denies, and people say that it is there
        say(workspace, clip_of(number), shapes.said(swapped(texts[clip_of(number)])).shape)
    told = run(workspace)[1]["captioners"]["sidecar"]
    assert told["verdict"] == "no verdict" and "denied 6 of 6 that people saw" in told["why"]
    assert "rate_i" not in told


def say(folder, clip, shape):
    asked = f"Is there a {shape}?"
    said = audit.Said(clip=clip, question=asked, answer="yes", who="ada", when="2026-01-01T00:00:00+00:00")
    audit.append(folder / "audits", said)


def test_too_many_inventions_stop_the_stage_and_nothing_is_made(workspace):
    texts = texts_of(workspace)
    write(workspace, {clip: swapped(text) if number % 2 else text for number, (clip, text) in enumerate(texts.items())})
    with pytest.raises(DsgGateError, match=r"sidecar: failed: .* of the objects invented"):
        run(workspace)
    assert not (workspace / "dsg").exists()


def test_invented_sentences_are_taken_out_and_the_row_says_so(workspace):
    texts = texts_of(workspace)
    lie = {clip: f"{text}. Behind it lies a {shapes.said(swapped(text)).shape}." for clip, text in texts.items()}
    lie[clip_of(1)] = swapped(texts[clip_of(1)])
    write(workspace, lie)
    account, report = run(workspace, repair="drop")
    assert report["repaired"] == account.ok == SCENES
    assert all(row["repaired"] for row in read(workspace / "dsg", DSG_TABLE))
    after = {row["clip"]: row for row in read(workspace / "dsg", tables.CAPTION_TABLE)}
    assert after[clip_of(0)]["text"] == f"{texts[clip_of(0)]}."
    assert [after[clip_of(1)][name] for name in ("status", "reason", "text")] == ["failed", "all_invented", None]


@pytest.fixture
def unfit(workspace):
    """Captions of clips that show no shapes, with decoys from the others'."""
    random = np.random.default_rng(0)
    blobs = [
        cv2.resize(random.integers(0, 255, (3, 4, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
        for _ in range(12 * STILLS)
    ]
    texts = texts_of(workspace)
    rows = [
        dict.fromkeys(tables.CAPTIONS.names) | {"clip": clip, "status": "ok", "captioner": captioner, "text": text}
        for captioner, own in (
            ("sidecar", texts),
            ("describe", {clip_of(100 + number): "a bright video" for number in range(12)}),
        )
        for clip, text in own.items()
    ]
    tables.write_rows(workspace / "captions" / tables.CAPTION_TABLE, rows, tables.CAPTIONS)
    stills = {clip_of(100 + at): [jpeg(blob) for blob in blobs[STILLS * at : STILLS * (at + 1)]] for at in range(12)}
    known = {row["clip"]: row["stills"] for path in (workspace / "shots").rglob("*.parquet") for row in read(path, "")}
    (workspace / "shots").rename(workspace / "before")
    write_stills(workspace / "shots", known | stills)
    return workspace


def test_where_the_judge_is_not_fit_there_is_no_figure(unfit):
    _, report = run(unfit)
    told = report["captioners"]["describe"]
    assert told["verdict"] == "no verdict" and told["why"].startswith("judge not fit here")
    assert "rate_i" not in told and "corrected_i" not in told
    assert report["captioners"]["sidecar"]["verdict"] == "passed"


def test_no_verdict_stops_the_stage_where_it_shall(unfit):
    with pytest.raises(DsgGateError, match="describe: no verdict: judge not fit here"):
        run(unfit, without_verdict="stop")


def test_it_stops_asking_when_it_is_decided(workspace):
    texts = texts_of(workspace)
    write(workspace, {clip: swapped(text) for clip, text in texts.items()})
    with pytest.raises(DsgGateError, match="decided after"):
        run(workspace, until="decided")
    (left,) = (workspace / "dsg.partial").glob("shard-*.parquet")
    reasons = [row["reason"] for row in read(left, "")]
    assert reasons.count(None) < SCENES and set(reasons[reasons.count(None) :]) == {"decided"}


def test_a_caption_whose_clip_cannot_be_seen_is_failed(workspace, scenes):
    (workspace / "shots").rename(workspace / "before")
    pictures = {clip_of(number): stills for number, (_, stills) in enumerate(scenes)}
    pictures[clip_of(3)], pictures[clip_of(4)] = [b"no picture"], []
    write_stills(workspace / "shots", pictures)
    account, _ = run(workspace)
    assert account.reasons == {"bad_still": 1, "no_stills": 1}
    rows = {row["clip"]: row["reason"] for row in read(workspace / "dsg", DSG_TABLE)}
    assert (rows[clip_of(3)], rows[clip_of(4)]) == ("bad_still", "no_stills")


def test_a_killed_stage_goes_on_to_the_same_bytes(workspace):
    def killed(declared, work_on, parts):
        stage.in_turn(declared, work_on, parts[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workspace, killed)
    assert len(list((workspace / "dsg.partial").glob("shard-*"))) == 2
    run(workspace)
    first = {path.name: path.read_bytes() for path in (workspace / "dsg").iterdir()}
    (workspace / "dsg").rename(workspace / "disturbed")
    run(workspace)
    assert {path.name: path.read_bytes() for path in (workspace / "dsg").iterdir()} == first


def test_texts_that_nobody_trains_on_are_judged_as_the_stage_judges(workspace):
    texts = texts_of(workspace)
    spoilt = {clip: swapped(text) if number % 2 else text for number, (clip, text) in enumerate(texts.items())}
    _, report = run(workspace)
    found = {}
    for name, own in (("sidecar", texts), ("spoilt", spoilt)):
        rows = list(judge_texts(own, name, workspace / "shots", SETTINGS))
        (of_captioner,) = judged_of([rows]).values()
        found[name] = summary(gate_of(of_captioner, SETTINGS), of_captioner), {row["clip"]: row for row in rows}
    assert json.loads(json.dumps(found["sidecar"][0])) == report["captioners"]["sidecar"]
    assert found["spoilt"][0]["verdict"] == "failed" and found["spoilt"][0]["rate_i"]["hits"] == SCENES // 2
    pairs = [[counts_of(found[name][1][clip]).invented for name in found] for clip in texts]
    assert sorted(pairs) == [[0, 0]] * (SCENES // 2) + [[0, 1]] * (SCENES // 2)


def test_what_is_drawn_depends_on_the_captions_and_the_seed_alone():
    def batch(numbers):
        return pa.RecordBatch.from_pylist(
            [
                {"clip": f"c{number}", "captioner": "ab"[number % 2], "of_whole_video": number % 4 == 1, "text": "t"}
                for number in numbers
            ]
        )

    def drawn(batches, seed=0):
        return {name: [one.caption["clip"] for one in own] for name, own in draw(batches, 5, seed).items()}

    whole = drawn([batch(range(100))])
    assert {name: len(own) for name, own in whole.items()} == {"a": 5, "b": 5, "b of whole videos": 5}
    assert drawn([batch(range(99, 49, -1)), batch(range(50))]) == whole != drawn([batch(range(100))], seed=1)
    assert len(draw([batch(range(100))], None, 0)["a"]) == 50
