"""What diffusers checks of every pipeline of its own; docs/pipeline.md says of each where it is shown, or why not."""

import ast
import inspect
import re

import numpy as np
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny

from stiv_model.pipeline import StivPipeline
from stiv_model.pipeline.components import NAMES
from tests.stiv_model.pipeline.test_pipeline import FRAMES, PIXELS, ROOT, latents, picture, seeded

_ROW = re.compile(
    r"^\| (?P<checks>`test_\w+`(?:, `test_\w+`)*) \| (?P<holds>[\w ]+) \| (?P<where>.+) \|$", re.MULTILINE
)


def test_every_check_has_one_row_and_every_test_that_a_row_names_exists():
    rows = [match.groupdict() for match in _ROW.finditer((ROOT / "docs" / "pipeline.md").read_text())]
    checks = [name for row in rows for name in re.findall(r"`(test_\w+)`", row["checks"])]
    assert len(checks) > 40 and len(set(checks)) == len(checks)
    files = [*(ROOT / "tests/stiv_model/pipeline").glob("test_*.py"), ROOT / "tests/flows/commands/test_export_push.py"]
    sources = [path.read_text() for path in files]
    here = {node.name for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row["where"]))
        assert named <= here, row
        assert named or row["holds"] not in ("yes", "in part"), row


def test_what_was_saved_is_what_opens(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    assert not list(tmp_path.rglob("*.bin"))
    assert torch.equal(latents(StivPipeline.from_pretrained(tmp_path)), latents(pipe))


def test_a_call_takes_what_video_pipelines_take():
    parameters = inspect.signature(StivPipeline.__call__).parameters
    optional = {name for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
    assert {"prompt", "negative_prompt", "height", "width", "num_frames", "guidance_scale", "image"} <= set(parameters)
    assert {"num_inference_steps", "num_videos_per_prompt", "generator", "latents", "output_type"} <= optional
    assert {"return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs"} <= optional


def test_prompts_of_several_lengths_are_one_batch(pipe):
    prompts = ["abcdefgh", "abcd", "ab"]
    together = latents(pipe, prompts, image=[picture(n) for n in range(3)], negative_prompt=["x", "", "yz"])
    alone = latents(pipe, prompts[2], image=picture(2), negative_prompt="yz", generator=seeded(2))
    torch.testing.assert_close(together[2:], alone, rtol=0, atol=1e-4)


def test_a_tuple_has_what_the_output_has(pipe):
    output, (frames,) = (
        pipe("abc", generator=seeded(0), output_type="np", return_dict=is_dict) for is_dict in (True, False)
    )
    assert np.array_equal(output.frames, frames) and output[0] is output.frames


def test_the_components_are_the_parts(pipe):
    assert pipe.components == {name: getattr(pipe, name) for name in NAMES}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_makes_numbers(pipe, dtype):
    frames = pipe.to(dtype)("abc", image=picture(), generator=seeded(0), output_type="np").frames
    assert frames.dtype == np.float32 and np.isfinite(frames).all()


def test_what_was_saved_in_half_precision_is_what_opens(pipe, tmp_path):
    pipe.to(torch.bfloat16).save_pretrained(tmp_path)
    opened = StivPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {each.dtype for each in opened.components.values() if hasattr(each, "dtype")} == {torch.bfloat16}
    assert torch.equal(latents(opened), latents(pipe))


def test_no_part_is_optional():
    assert not StivPipeline._optional_components


def test_all_parts_go_to_a_precision(pipe):
    assert {each.dtype for each in pipe.components.values() if hasattr(each, "dtype")} == {torch.float32}
    pipe.to(dtype=torch.float16)
    assert {each.dtype for each in pipe.components.values() if hasattr(each, "dtype")} == {torch.float16}


def test_guidance_changes_no_shape(pipe):
    assert latents(pipe, guidance_scale=1.0).shape == latents(pipe, guidance_scale=7.5).shape


def test_a_callback_raises_guidance_step_by_step(pipe):
    def callback(given: StivPipeline, step: int, timestep: float, values: dict) -> dict:
        given._guidance_scale += 1.0
        return values

    latents(pipe, guidance_scale=2.0, num_inference_steps=3, callback_on_step_end=callback)
    assert pipe.guidance_scale == 2.0 + pipe.num_timesteps


def test_variants_are_refused(pipe, exported, tmp_path):
    with pytest.raises(ValueError, match="variant is 'fp16': StivPipeline reads and writes plain safetensors"):
        pipe.save_pretrained(tmp_path / "out", variant="fp16")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="variant is 'fp16': StivPipeline reads and writes plain safetensors"):
        StivPipeline.from_pretrained(exported, variant="fp16")


@pytest.mark.parametrize("part", ["vae", "text_encoder", "transformer"])
def test_each_part_opens_in_its_own_precision(exported, part):
    pipe = StivPipeline.from_pretrained(exported, torch_dtype={part: torch.bfloat16, "default": torch.float16})
    for name in ("vae", "text_encoder", "transformer"):
        assert getattr(pipe, name).dtype == (torch.bfloat16 if name == part else torch.float16)


def test_slicing_attention_changes_nothing(pipe):
    whole = latents(pipe)
    pipe.enable_attention_slicing(1)
    assert torch.equal(latents(pipe), whole)


def test_what_the_model_cannot_do_with_its_weights_is_refused(pipe):
    with pytest.raises(ValueError, match=r"precision of its weights: use \.to\(torch\.bfloat16\)"):
        pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with pytest.raises(ValueError, match="offload_type is 'block_level', but this model moves by layers"):
        pipe.transformer.enable_group_offload(torch.device("cpu"), num_blocks_per_group=1)


def test_a_video_is_the_same_in_every_form(pipe):
    made = {kind: pipe("abc", output_type=kind, generator=seeded(0)).frames for kind in ("pil", "np", "pt")}
    np.testing.assert_allclose(made["pt"].permute(0, 1, 3, 4, 2).numpy(), made["np"], atol=1e-6)
    assert np.abs(np.stack([np.asarray(frame) for frame in made["pil"][0]]) - 255 * made["np"][0]).max() < 1


def test_other_kinds_of_vae(pipe):
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )
    other = StivPipeline.from_pipe(pipe, vae=tiny.eval())
    assert other("abc", image=picture(), output_type="np").frames.shape == (1, FRAMES, PIXELS, PIXELS, 3)
    asymmetric = AsymmetricAutoencoderKL(norm_num_groups=4, down_block_out_channels=(8,), up_block_out_channels=(8,))
    with pytest.raises(ValueError, match="vae is a AsymmetricAutoencoderKL: takes AutoencoderKL or AutoencoderTiny or"):
        StivPipeline.from_pipe(pipe, vae=asymmetric)
    pipe.vae = asymmetric
    with pytest.raises(ValueError, match="vae is a AsymmetricAutoencoderKL"):
        pipe("abc")


def test_tiling_the_vae_changes_no_shape(pipe):
    pipe.vae.enable_tiling()
    assert pipe("abc", output_type="np").frames.shape == (1, FRAMES, PIXELS, PIXELS, 3)


@pytest.mark.long
def test_a_compiled_transformer_samples_and_is_saved(pipe, tmp_path):
    plain = latents(pipe)
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    torch.testing.assert_close(latents(pipe), plain, rtol=0, atol=1e-4)
    pipe.save_pretrained(tmp_path)
    assert torch.equal(latents(StivPipeline.from_pretrained(tmp_path)), plain)
