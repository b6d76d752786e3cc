"""Validation in real runs of two ranks: what it shows, and that the training does not notice."""

import json
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
import torch
from diffusers.models import AutoencoderKL
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stiv_model import settings_errors
from stiv_model.encoders import provenance
from stiv_model.encoders.vae import load as load_vae
from stiv_model.latents.dataset import LatentData
from stiv_model.metrics import motion
from stiv_model.monitoring import prompt_features, validation_metrics
from stiv_model.monitoring.validation import sampling, validation_videos
from stiv_model.monitoring.video_log import VideoLog
from stiv_model.settings import Mode, MonitoringSettings, Run, TextSettings, VaeSettings, ValidationMetric
from stiv_model.training.run_files import SHOWN
from tests.stiv_model.runs import MADE_BY, describe, random_text

PROMPTS = ("a red circle", "a blue square")
VIDEOS = {"prompt 0", "prompt 1", "clip 0", "clip 1"}


@pytest.fixture
def validating(tmp_path, latents, training):
    """The settings of a run that validates every two steps, on latents whose VAE can be found."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, **blocks).save_pretrained(
        tmp_path / "vae"
    )
    vae = VaeSettings(source=str(tmp_path / "vae"), revision=None, sha256=None, precision="float32", batch_frames=4)
    text = TextSettings(
        source="not read here", revision=None, sha256=None, kind="bert", tokens=5, precision="float32", batch=2
    )
    made_by = MADE_BY | {"vae_sha256": load_vae(vae).sha256}
    for shard in latents.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            said = file.metadata()
        save_file(load_file(shard), shard, metadata=said | made_by)
    provenance.write(latents, vae, text, made_by)
    changes = {"validation_steps": 2, "validation_prompts": PROMPTS, "validation_sampling_steps": 2}
    return training.model_copy(update=changes | {"validation_guidance_scale": 2.0})


def write_prompts(work: Path, name: str = prompt_features.FILE) -> None:
    torch.manual_seed(3)
    features = {name: part.contiguous() for name, part in random_text(len(PROMPTS))._asdict().items()}
    save_file(features, work / name, metadata={str(number): one for number, one in enumerate(PROMPTS)})


def curve(work: Path) -> list[list[str]]:
    return [line.split("\t")[:4] for line in (work / "losses.tsv").read_text().splitlines()]


def shown(work: Path) -> EventAccumulator:
    found = EventAccumulator(str(work / SHOWN), size_guidance={"scalars": 0, "images": 0})
    return found.Reload()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.long),
        pytest.param({"precision": "bfloat16", "persistent_parameters": 10_000}, marks=pytest.mark.long),
        pytest.param({"zero_stage": 1, "precision": "bfloat16"}, marks=pytest.mark.long),
        pytest.param({"zero_stage": 2}, marks=pytest.mark.long),
        pytest.param({"sequence_ranks": 2}, marks=pytest.mark.long),
    ],
)
def test_a_run_that_validates_and_is_taken_up_again_learns_what_one_without_learns(
    tmp_path, latents, recipe, training, validating, prepare, forkserver, changes
):
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    recipe = recipe.model_copy(update={"steps": 6})
    settings = training.model_copy(update=changes)
    forkserver.finish(plain, prepare(plain, latents, recipe=recipe, training=settings))

    settings = validating.model_copy(update=changes | {"checkpoint_steps": 3})
    monitoring = MonitoringSettings(trackers=("tensorboard",), validation_metrics=("flicker", "motion", "dynamics_dis"))
    run = prepare(watched, latents, recipe=recipe, training=settings, monitoring=monitoring)
    write_prompts(watched)
    forkserver.finish(watched, run)
    (watched / "weights").rename(tmp_path / "first")  # as if killed after the last step: it goes on from step 3
    forkserver.finish(watched, run)

    assert curve(watched) == curve(plain)
    for weights in (tmp_path / "first", watched / "weights"):
        for name, weight in load_file(plain / "weights/model.safetensors").items():
            assert torch.equal(load_file(weights / "model.safetensors")[name], weight), name

    found = shown(watched)
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6]  # none twice, none missing
    assert {tag.removeprefix("validation/") for tag in found.Tags()["images"]} == VIDEOS
    assert [event.step for event in found.Scalars("validation/motion of clips")] == [2, 4, 6]
    for tag in found.Tags()["images"]:
        assert [event.step for event in found.Images(tag)] == [2, 4, 6]
    folders = sorted((watched / SHOWN / "validation").iterdir())
    assert [folder.name for folder in folders] == ["step-00000002", "step-00000004", "step-00000006"]
    assert Image.open(folders[-1] / "strip.png").size == (4 * 16, 4 * 16)  # 4 videos of 4 frames of 16 x 16 pixels
    with av.open(str(folders[-1] / "clip-1.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4


def test_the_metrics_that_are_named_are_measured_of_each_video(tmp_path, latents, validating):
    made = {name: torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1)) for name in VIDEOS}
    device = torch.device("cpu")
    for names in ((), ("flicker", "motion", "dynamics_dis")):
        videos, figures = VideoLog(latents, tmp_path / "shown", PROMPTS, names, 4, device).show(2, made)
        file = tmp_path / "shown/step-00000002/metrics.json"
        assert set(figures) == {f"validation/{name} of {kind}" for name in names for kind in ("prompts", "clips")}
        assert file.exists() == bool(names)
    of_each = json.loads(file.read_text())["flicker"]
    assert of_each == {name: motion.flicker(video) for name, video in videos.items()}
    assert figures["validation/flicker of clips"] == pytest.approx((of_each["clip 0"] + of_each["clip 1"]) / 2)


def test_every_metric_that_settings_take_is_there_and_a_single_frame_has_none():
    assert set(validation_metrics.METRICS) == set(get_args(ValidationMetric))
    measured = validation_metrics.measure({"prompt 0": np.zeros((1, 8, 8, 3), np.uint8)}, ["flicker"], 8)
    assert (measured, validation_metrics.means(measured)) == ({"flicker": {}}, {})


def test_a_metric_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(
        ValueError, match=r"validation_metrics\.0: Input should be 'flicker', 'motion' or 'dynamics_dis'"
    ):
        settings_errors.checked(MonitoringSettings, {"trackers": [], "validation_metrics": ["flow"]}, "params.yaml")


def test_a_run_that_was_begun_before_metrics_had_names_names_none():
    began = describe().model_dump(mode="json")
    assert began["monitoring"].pop("validation_metrics") == []
    assert Run.model_validate(began) == describe()


def test_prompts_get_nothing_and_clips_the_frames_of_the_recipe(tmp_path, latents, recipe, validating, prepare):
    modes = (Mode(clean_frames="first", stride=1, weight=1.0), Mode(clean_frames=(1, 2), stride=1, weight=1.0))
    run = prepare(tmp_path / "work", latents, recipe.model_copy(update={"clean_frames": modes}), validating)
    write_prompts(tmp_path / "work")
    data = LatentData(latents, run.recipe)
    of_prompts, of_clips = validation_videos(run, tmp_path / "work", data)
    assert of_prompts.condition is None
    assert of_clips.condition.is_clean_BF.int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 0]]
    assert torch.equal(of_clips.condition.latents_BFCHW, data.batch([0, 5]).latents_BFCHW.float())
    assert not torch.equal(of_prompts.noise_VFCHW, of_clips.noise_VFCHW)
    again, _ = validation_videos(run, tmp_path / "work", data)
    assert torch.equal(again.noise_VFCHW, of_prompts.noise_VFCHW)


def test_videos_of_two_lengths_are_made_apart_and_shown_together(tmp_path, latents, recipe, validating, prepare):
    modes = (
        Mode(clean_frames="first", stride=1, weight=1.0),
        Mode(clean_frames="first", stride=3, weight=1.0, frames=2),
    )
    run = prepare(tmp_path / "work", latents, recipe.model_copy(update={"clean_frames": modes}), validating)
    write_prompts(tmp_path / "work")
    data = LatentData(latents, run.recipe)
    found = validation_videos(run, tmp_path / "work", data)
    assert [(one.names, one.noise_VFCHW.shape[1]) for one in found] == [
        (["prompt 0"], 4), (["clip 0"], 4), (["prompt 1"], 2), (["clip 1"], 2),
    ]  # fmt: skip
    assert torch.equal(found[-1].condition.latents_BFCHW, data.batch([5]).latents_BFCHW.float()[:, [0, 3]])
    made = {one.names[0]: one.noise_VFCHW[0] for one in found}
    VideoLog(latents, tmp_path / "shown", PROMPTS, (), 4, torch.device("cpu")).show(2, made)
    strip = np.asarray(Image.open(tmp_path / "shown/step-00000002/strip.png"))
    assert strip.shape[:2] == (4 * 16, 4 * 16) and not strip[2 * 16 :, 2 * 16 :].any() and strip[:, : 2 * 16].any()


def test_validation_guides_only_by_what_the_recipe_drops(recipe, validating):
    for drops, guidance, scale in (((0.1, 0.1), "joint", 2.0), ((0.1, 0.0), "text", 2.0), ((0.0, 0.1), "joint", 1.0)):
        text, image = drops
        changed = recipe.model_copy(update={"text_dropout": text, "image_dropout": image})
        settings = sampling(changed, validating)
        assert (settings.guidance, settings.guidance_scale) == (guidance, scale), drops


def test_features_of_other_prompts_are_made_again(tmp_path):
    path = tmp_path / prompt_features.FILE
    assert not prompt_features.is_made(path, PROMPTS)
    write_prompts(tmp_path)
    assert prompt_features.is_made(path, PROMPTS)
    assert not prompt_features.is_made(path, (*PROMPTS, "a green triangle"))


def test_features_that_are_kept_of_an_earlier_training_need_no_encoder(
    tmp_path, latents, recipe, validating, prepare, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path / "work", latents, recipe, validating)
    with pytest.raises(FileNotFoundError, match="not read here"):
        prompt_features.make(tmp_path / "work")
    _, settings = provenance.read(latents, batch=1)
    kept = prompt_features.kept_at(settings, PROMPTS)
    kept.parent.mkdir(parents=True)
    write_prompts(kept.parent, kept.name)
    prompt_features.make(tmp_path / "work")
    assert (tmp_path / "work" / prompt_features.FILE).read_bytes() == kept.read_bytes()
    others = (settings.model_copy(update={"sha256": "another"}), settings.model_copy(update={"tokens": 6}))
    assert len({kept, *(prompt_features.kept_at(other, PROMPTS) for other in others)}) == 3


def test_encoders_that_did_not_make_the_latents_are_refused(latents, validating):
    found = json.loads((latents / provenance.FILE).read_text())
    found["vae"]["sha256"] = "of another"
    (latents / provenance.FILE).write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"vae_sha256='of another'.*stage latents"):
        provenance.read(latents, batch=1)


def test_a_folder_that_does_not_say_its_precision_is_refused_in_one_line(latents, validating):
    found = json.loads((latents / provenance.FILE).read_text())
    assert (found["vae"].pop("precision"), found["text"]["precision"]) == ("float32", "float32")
    (latents / provenance.FILE).write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"^\S+encoders\.json: precision: Field required$"):
        provenance.read(latents, batch=1)
