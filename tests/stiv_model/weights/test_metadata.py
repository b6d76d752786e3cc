import json
from pathlib import Path

import pytest

from stiv_model.settings import Encoders, LearnedSettings, ModelSettings
from stiv_model.weights import metadata
from stiv_model.weights.metadata import CheckpointMetadata, Trained

TRAINED = Trained(
    recipe_name="t2v",
    steps=7,
    frames=4,
    stride_frames=3,
    latent_height=8,
    latent_width=8,
    clean_frames="none",
    text_dropout=0.1,
    image_dropout=0.0,
    ema_decay=0.9,
    encoders=Encoders(vae_sha256="v", text_sha256="t"),
)


def checkpoint(folder: Path, settings: ModelSettings, is_video: bool, trained: Trained | None = TRAINED) -> Path:
    folder.mkdir()
    metadata.write(folder, CheckpointMetadata(model=settings, is_video=is_video, trained=trained))
    return folder


def test_a_card_says_what_was_written(settings, tmp_path):
    trained = TRAINED.model_copy(update={"clean_frames": (0, 3)})
    written = CheckpointMetadata(model=settings, is_video=True, trained=trained)
    metadata.write(tmp_path, written)
    assert metadata.read(tmp_path) == written


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="t2v"):
        metadata.read(tmp_path / "t2v")


def test_a_card_of_before_is_refused_by_file_and_key(tmp_path):
    (tmp_path / "model.json").write_text('{"is_video": true, "trained": null, "model": {"widht": 3}}')
    with pytest.raises(ValueError, match=r"model\.json: model\.width: Field required"):
        metadata.read(tmp_path)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_card_of_a_release_without_a_gain_is_read_as_it_computed(settings, tmp_path, positions):
    if positions == "learned":
        at = LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=2, std=0.02)
        settings = settings.model_copy(update={"positions": at})
    path = checkpoint(tmp_path / "t2v", settings, is_video=True) / "model.json"
    says = json.loads(path.read_text())
    del says["model"]["temporal_gain"], says["model"]["temporal_contrast"]
    says["model"]["positions"].pop("std", None)
    path.write_text(json.dumps(says))
    assert metadata.read(tmp_path / "t2v").model == settings


def test_where_weights_start_may_change_after_any_model(settings, tmp_path):
    at = LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=2, std=0.02)
    before = settings.model_copy(update={"positions": at, "temporal_gain": 0.0})
    changes = {"positions": at.model_copy(update={"std": 0.5}), "temporal_gain": 0.2, "temporal_contrast": 1.0}
    after = before.model_copy(update=changes)
    for is_video in (False, True):
        parent = checkpoint(tmp_path / f"video {is_video}", before, is_video)
        assert metadata.check_parents({"weights": parent}, after, is_video=True)["weights"].model == before


def test_a_parent_of_another_size_is_refused_by_name_and_value(settings, tmp_path):
    parent = checkpoint(tmp_path / "t2v", settings.model_copy(update={"ffn_ratio": 3.0}), is_video=True)
    with pytest.raises(ValueError, match=r"t2v .*\(ffn_ratio 3\.0 there, 2\.0 here\)"):
        metadata.check_parents({"weights": parent}, settings, is_video=True)


def test_rotary_positions_do_not_become_learned_ones(settings, tmp_path):
    parent = checkpoint(tmp_path / "t2v", settings, is_video=True)
    learned = settings.model_copy(
        update={"positions": LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=2, std=0.5)}
    )
    with pytest.raises(ValueError, match=r"positions\.kind rotary there, learned here"):
        metadata.check_parents({"weights": parent}, learned, is_video=True)


@pytest.mark.parametrize(
    ("key", "value"), [("temporal_patch", 4), ("causal_time", True), ("temporal_modulation", True)]
)
def test_what_an_image_model_has_not_may_change_after_it_but_not_after_a_video_model(settings, tmp_path, key, value):
    changed = settings.model_copy(update={key: value})
    image = checkpoint(tmp_path / "t2i", settings, is_video=False)
    metadata.check_parents({"weights": image}, changed, is_video=True)
    video = checkpoint(tmp_path / "t2v", settings, is_video=True)
    with pytest.raises(ValueError, match=key):
        metadata.check_parents({"weights": video}, changed, is_video=True)


def test_image_tokens_may_be_added_to_a_model_but_not_taken_from_it(settings, tmp_path):
    both = settings.model_copy(update={"image_condition": "both"})
    without, with_them = (checkpoint(tmp_path / name, of, True) for name, of in (("t2v", settings), ("both", both)))
    metadata.check_parents({"weights": without}, both, is_video=True)
    with pytest.raises(ValueError, match="image_condition both there, replacement here"):
        metadata.check_parents({"weights": with_them}, settings, is_video=True)


def test_an_image_recipe_does_not_start_from_a_video_model(settings, tmp_path):
    parent = checkpoint(tmp_path / "t2v", settings, is_video=True)
    with pytest.raises(ValueError, match=r"t2v .*frames: 1"):
        metadata.check_parents({"weights": parent}, settings, is_video=False)


def test_temporal_attention_does_not_come_from_an_image_model(settings, tmp_path):
    image = checkpoint(tmp_path / "t2i", settings, is_video=False)
    with pytest.raises(ValueError, match=r"kind image\b.*--temporal-init"):
        metadata.check_parents({"weights": image, "temporal": image}, settings, is_video=True)


def test_temporal_attention_alone_is_no_start(settings, tmp_path):
    with pytest.raises(ValueError, match=r"--temporal-init .*--init\b"):
        metadata.check_parents({"temporal": tmp_path}, settings, is_video=True)


def test_weights_that_no_training_made_are_no_start(settings, tmp_path):
    parent = checkpoint(tmp_path / "t2v", settings, is_video=True, trained=None)
    with pytest.raises(ValueError, match=r"t2v .*model\.json"):
        metadata.check_parents({"weights": parent}, settings, is_video=True)
