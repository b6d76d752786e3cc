"""Fréchet distances with all that belongs to them: floor, protocol, cache, the reference of the demo."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.params import load_params
from stiv_model.metrics import i3d
from stiv_model.metrics.extractors import Extractor
from tasks.evaluation import distances, likeness, reference, values
from tasks.evaluation.features import features_of
from tasks.evaluation.metrics import Evaluated, Rows
from tasks.evaluation.protocol import Protocol
from tasks.pages import distance_figure

RANDOM = np.random.default_rng(0)
REAL, MADE = RANDOM.normal(size=(40, 6)), RANDOM.normal(0.5, 1.2, size=(12, 6))
CLIP = RANDOM.integers(0, 256, (10, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def shapes():
    return reference.read(reference.SHAPES)


# ---------------------------------------------------------------------------------------------- floor


def test_the_floor_is_of_as_many_other_real_clips_against_the_same_ones(needs_eval):
    found = distances.compare(REAL, MADE)
    assert (found.made.n_real, found.made.n_made) == (found.floor.n_real, found.floor.n_made) == (28, 12)
    assert found.made_at_floor is None
    swapped = distances.compare(np.concatenate([REAL[:28], MADE]), REAL[28:])
    assert (swapped.made.distance, swapped.floor.distance) == (found.floor.distance, found.made.distance)
    assert found.floor.distance < found.made.distance


def test_of_as_many_real_clips_as_made_ones_the_floor_is_of_halves(needs_eval):
    found = distances.compare(REAL[:12], MADE)
    assert (found.made.n_real, found.made.n_made) == (12, 12)
    for other in (found.floor, found.made_at_floor):
        assert (other.n_real, other.n_made) == (6, 6)
    assert found.floor == distances.floor_of(REAL[:12])


def test_a_set_against_itself_is_at_no_distance(needs_eval):
    assert abs(distances.compare(REAL, REAL).made.distance) < 0.01


def test_clips_that_are_the_same_one_have_no_figure(needs_eval):
    same = np.repeat(MADE[:1], 5, 0)
    with pytest.raises(ValueError, match="all 5 made clips have the same features"):
        distances.compare(REAL, same)
    with pytest.raises(ValueError, match="1 made clips"):
        distances.compare(REAL, MADE[:1])
    with pytest.raises(ValueError, match="3 real clips"):
        distances.floor_of(REAL[:3])


# ---------------------------------------------------------------------------------------------- protocol


def protocol(**changes) -> Protocol:
    values = {"extractor": "x", "extractor_sha256": "0", "resize": "r", "frames": 10, "stride": 1, "clips_per_video": 1}
    values |= {"height": 64, "width": 64, "fps": 10.0, "pixels": "arrays", "codec": None, "crf": None}
    return Protocol.model_validate(values | changes)


@pytest.mark.parametrize("changed", [{"frames": 16}, {"pixels": "file"}, {"crf": 23.0}, {"fps": 20.0}, {"width": 32}])
def test_clips_of_two_kinds_are_not_compared_and_the_field_is_named(changed):
    (name,) = changed
    with pytest.raises(ValueError, match=f"the reference and mine .*: {name} "):
        protocol().refuse_unlike(protocol(**changed), "the reference", "mine")


def test_a_corpus_is_compared_where_both_say_it():
    protocol(corpus="a").refuse_unlike(protocol(), "a", "b")
    with pytest.raises(ValueError, match="corpus"):
        protocol(corpus="a").refuse_unlike(protocol(corpus="b"), "a", "b")


# ---------------------------------------------------------------------------------------------- cache


def extractor(rows: list[np.ndarray]) -> Extractor:
    """An extractor that gives prepared rows, one after the other."""
    return Extractor("prepared", "ab" * 32, "FVD", "KVD", lambda video: rows.pop(0))


def test_features_are_kept_by_the_pixels_of_a_clip(tmp_path):
    rows = [np.arange(3.0), np.ones(3), np.zeros(3)]
    network = extractor(rows)
    first = features_of(CLIP, network, tmp_path)
    assert features_of(CLIP.copy(), network, tmp_path).tolist() == first.tolist() == [0, 1, 2]
    assert features_of(CLIP[:9], network, tmp_path).tolist() == [1, 1, 1]
    (file, other) = sorted(tmp_path.rglob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
    file.write_bytes(other.read_bytes()[:20])  # of a full disk
    assert features_of(CLIP, network, tmp_path).tolist() == [0, 0, 0]


def test_features_that_are_no_numbers_are_refused_and_not_kept(tmp_path):
    with pytest.raises(ValueError, match="not all finite"):
        features_of(CLIP, extractor([np.array([1, np.nan])]), tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


# ---------------------------------------------------------------------------------------------- the demo's reference


def test_the_reference_is_of_the_demos_corpus_as_params_have_it(shapes):
    params = load_params(Path("params.yaml"))
    size = params.latents
    look = params.corpus.look_sha256(size.height, size.width, size.frames, size.stride_frames)
    assert shapes.features.shape == (256, 400)
    assert (shapes.protocol.corpus, shapes.protocol.extractor_sha256) == (look, i3d.WEIGHTS.sha256)
    assert (shapes.protocol.frames, shapes.protocol.fps) == (size.frames, params.samples.fps)
    assert look != params.corpus.look_sha256(size.height, size.width, size.frames, 1)
    assert reference.SHAPES.stat().st_size < 500_000


def rows(shapes: reference.Reference, n: int, **changes) -> Rows:
    facts = {
        name: getattr(shapes.protocol, name) for name in ("height", "width", "frames", "fps", "pixels", "codec", "crf")
    }
    settings = load_params(Path("params.yaml")).evaluation
    features = shapes.features[:n] + np.random.default_rng(0).normal(0, 0.5, (n, 400))
    return Rows(features, "t2v held_out", facts | {"corpus": None} | changes, settings)


def test_fvd_and_kvd_of_the_card_are_of_the_reference_and_say_what_belongs_to_them(shapes, needs_eval):
    figures = {one.name: one.compute(rows(shapes, 16)) for one in likeness.SET_METRICS}
    fvd = figures["fvd"]
    assert fvd.low < fvd.value < fvd.high
    said = json.loads(json.dumps(fvd.protocol))
    assert (said["n_real"], said["n_made"], said["frames"], said["pixels"]) == (240, 16, 10, "arrays")
    assert (said["floor"]["n_real"], said["floor"]["n_made"]) == (240, 16)
    assert "floor" not in figures["kvd"].protocol
    assert figures["kvd"].protocol["n_reference"] == 240


@pytest.mark.parametrize(
    "changed", [{"frames": 8}, {"pixels": "file", "codec": "h264", "crf": 12.0}, {"corpus": "0" * 64}]
)
def test_other_clips_than_those_of_the_reference_have_no_fvd(shapes, changed):
    (fvd, _) = likeness.SET_METRICS
    with pytest.raises(ValueError, match=next(iter(changed))):
        fvd.compute(rows(shapes, 64, **changed))


@pytest.mark.parametrize(
    "changed",
    [{"extractor": "mine.pt"}, {"extractor_sha256": "0" * 64}, {"resize": "r"}, {"stride": 2}, {"clips_per_video": 4}],
)
def test_a_reference_of_other_features_or_clips_than_the_videos_have_makes_no_fvd(tmp_path, shapes, changed):
    there = reference.Reference(shapes.features, shapes.protocol.model_copy(update=changed))
    reference.write(tmp_path / "other.safetensors", there)
    asked = rows(shapes, 16)
    asked = asked._replace(settings=asked.settings.model_copy(update={"reference": tmp_path / "other.safetensors"}))
    for one in likeness.SET_METRICS:
        with pytest.raises(ValueError, match=f"not of one kind.*: {next(iter(changed))} "):
            one.compute(asked)


def test_a_reference_that_is_none_is_refused(tmp_path, shapes):
    path = tmp_path / "some.safetensors"
    with pytest.raises(FileNotFoundError, match="--save"):
        reference.read(path)
    path.write_bytes(reference.SHAPES.read_bytes()[:1000])
    with pytest.raises(ValueError, match="holds no features"):
        reference.read(path)
    reference.write(path, shapes)
    again = reference.read(path)
    assert again.protocol == shapes.protocol
    assert (again.features == shapes.features).all()


# ---------------------------------------------------------------------------------------------- of each video


def test_metrics_of_a_video_want_its_truth_or_its_first_frame(needs_eval):
    by_name = {one.name: one for one in likeness.METRICS}
    video = np.repeat(np.repeat(CLIP[:2], 2, 1), 2, 2)
    bare = Evaluated("t2v-000", video)
    full = Evaluated("ti2v-000", video, image=video[0], truth=np.roll(video, 1, 1), mode="ti2v", held_out=True)
    assert not any(one.applies(bare) for one in by_name.values())
    assert all(one.applies(full) for one in by_name.values())
    assert by_name["first_frame_lpips"].measure(full) == 0
    assert by_name["lpips"].measure(full) > 0.01
    assert by_name["ssim"].measure(full) < 0.9
    assert by_name["psnr"].measure(full) < 20


def test_fvd_of_shapes_counts_the_first_from_text_of_held_out_words():
    (logits,) = likeness.FEATURES
    kinds = [
        ("t2v-063", "t2v", True),
        ("t2v-064", "t2v", True),
        ("t2v-seen-001", "t2v", False),
        ("ti2v-001", "ti2v", True),
    ]
    counted = [logits.applies(Evaluated(name, CLIP, mode=mode, held_out=held)) for name, mode, held in kinds]
    assert counted == [True, False, False, False]
    assert logits.applies(Evaluated("any.npy", CLIP))
    assert not logits.applies(Evaluated("any.npy", CLIP[:8]))
    assert {one.lack({"frames": 8}) for one in likeness.SET_METRICS} == {"8 frames, I3D needs 9"}
    assert {one.lack({"frames": 9}) for one in likeness.SET_METRICS} == {None}


def test_the_curve_of_an_evaluation_is_of_the_logits_in_its_table(tmp_path, shapes, needs_eval):
    path = tmp_path / values.FILE
    column = pa.array([*shapes.features[:16].tolist(), None], pa.list_(pa.float64()))
    pq.write_table(pa.table({"id": [str(n) for n in range(17)], "i3d_logits": column}), path)
    assert (likeness.logits_in(tmp_path) == shapes.features[:16]).all()
    curves = distances.curves(shapes.features, likeness.logits_in(tmp_path))
    told = distance_figure.write(tmp_path / "fvd_curve.svg", curves, "FVD")
    assert told.keys() == {"made", "real"}
    assert told["made"]["points"][-1]["n"] == 16
    assert json.loads((tmp_path / "fvd_curve.json").read_text()) == told
    pq.write_table(pa.table({"id": ["0"]}), path)
    with pytest.raises(ValueError, match="no i3d_logits"):
        likeness.logits_in(tmp_path)
