import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from stiv_model.encoders.pixels import to_pixels
from stiv_model.encoders.vae import Vae, encode, load
from stiv_model.encoders.vae_files import sha256_of, sizes_of
from stiv_model.settings import Precision, VaeSettings
from tasks.demo import shapes

EMBEDDED = "stiv_model/embedded/vae"
LATENTS = torch.zeros(2, 8, 8, 8)
BFLOAT16 = 0.03  # of the latents' deviation, root mean square
FLOOR_DB = 29.0  # 31.8 when it was made (stiv_model/embedded/vae/README.md)


def settings(
    source: str | Path,
    batch_frames: int = 32,
    revision: str | None = None,
    sha256: str | None = None,
    precision: Precision = "float32",
) -> VaeSettings:
    return VaeSettings(
        source=str(source), revision=revision, sha256=sha256, precision=precision, batch_frames=batch_frames
    )


@pytest.fixture(scope="module")
def vae() -> Vae:
    return load(settings(EMBEDDED))


@pytest.fixture(scope="module", name="frames_TCHW")
def held_out_frames() -> torch.Tensor:
    """One frame of each of 24 held-out scenes, in [-1, 1]."""
    scenes = [shapes.scene(99, number, held_out=True) for number in range(24)]
    pictures = [torch.from_numpy(shapes.render(scene, pixels=64, frames=4)[2]) for scene in scenes]
    return torch.stack(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def tiny_model(**changes) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=3,
        norm_num_groups=4,
        **({"scaling_factor": 0.5, "shift_factor": 0.25} | changes),
    )


def tiny_autoencoder_tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        latent_channels=3,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        scaling_factor=0.5,
    )


def tiny_deep_compression() -> AutoencoderDC:
    torch.manual_seed(0)
    return AutoencoderDC(
        latent_channels=8,
        attention_head_dim=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.5,
    )


def test_eight_by_eight_pixels_become_one_latent_and_come_back(vae, frames_TCHW):
    latents_TCHW = vae.encode(frames_TCHW)
    assert latents_TCHW.shape == (24, vae.latent_channels, 64 // vae.downsampling, 64 // vae.downsampling)
    decoded_TCHW = vae.decode(latents_TCHW)
    assert decoded_TCHW.shape == frames_TCHW.shape
    assert decoded_TCHW.abs().max() <= 1


def test_frames_come_back_as_they_were(vae, frames_TCHW):
    error = ((vae.decode(vae.encode(frames_TCHW)) - frames_TCHW) / 2).square().mean(dim=(1, 2, 3))
    assert (-10 * error.log10()).mean() > FLOOR_DB


def test_latents_of_shapes_have_mean_0_and_variance_1(vae, frames_TCHW):
    latents_TCHW = vae.encode(frames_TCHW)
    assert abs(latents_TCHW.mean()) < 0.3
    assert 0.6 < latents_TCHW.std() < 1.5


def test_each_frame_is_coded_by_itself(vae, frames_TCHW):
    together = vae.encode(frames_TCHW[:6])
    one_by_one = torch.cat([vae.encode(frame_CHW[None]) for frame_CHW in frames_TCHW[:6]])
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-5)


def test_weights_are_frozen(vae, frames_TCHW):
    assert not any(weight.requires_grad for weight in vae.model.parameters())
    assert not vae.encode(frames_TCHW[:1]).requires_grad


def test_the_repository_s_folder_is_found_from_another_working_directory(vae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(settings(EMBEDDED)).sha256 == vae.sha256


def test_any_autoencoder_folder_loads_and_its_latents_are_the_scaled_mean(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "tiny")
    vae = load(settings(tmp_path / "tiny", batch_frames=2))
    assert (vae.latent_channels, vae.downsampling) == (3, 2)
    frames_TCHW = torch.rand(5, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        mean_TCHW = model.eval().encode(frames_TCHW).latent_dist.mean
    torch.testing.assert_close(vae.encode(frames_TCHW), (mean_TCHW - 0.25) * 0.5)


@pytest.mark.parametrize(
    ("model", "channels", "downsampling"),
    [(tiny_autoencoder_tiny(), 3, 4), (tiny_deep_compression(), 8, 8)],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else str(value),
)
def test_autoencoders_without_a_posterior_load_too(tmp_path, model, channels, downsampling):
    model.save_pretrained(tmp_path / "tiny")
    vae = load(settings(tmp_path / "tiny", batch_frames=2))
    assert (vae.latent_channels, vae.downsampling) == (channels, downsampling)
    frames_TCHW = torch.rand(3, 3, 32, 32) * 2 - 1
    latents_TCHW = vae.encode(frames_TCHW)
    with torch.no_grad():
        raw_TCHW = model.eval().encode(frames_TCHW, return_dict=False)[0]
    torch.testing.assert_close(latents_TCHW, raw_TCHW * 0.5)
    assert vae.decode(latents_TCHW).shape == frames_TCHW.shape


def test_latents_with_a_mean_and_a_deviation_per_channel_are_normalised_by_them(tmp_path):
    mean, deviation = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([2.0, 0.5, 4.0])
    changes = {"latents_mean": mean.tolist(), "latents_std": deviation.tolist(), "shift_factor": None}
    model = tiny_model(**changes)
    model.save_pretrained(tmp_path / "tiny")
    vae = load(settings(tmp_path / "tiny"))
    frames_TCHW = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        raw_TCHW = model.eval().encode(frames_TCHW).latent_dist.mean
        back_TCHW = model.decode(raw_TCHW).sample.clamp(-1, 1)
    expected_TCHW = (raw_TCHW - mean[:, None, None]) / deviation[:, None, None] * 0.5
    torch.testing.assert_close(vae.encode(frames_TCHW), expected_TCHW)
    torch.testing.assert_close(vae.decode(expected_TCHW), back_TCHW, rtol=0, atol=1e-5)


def test_a_mean_without_a_deviation_is_refused(tmp_path):
    tiny_model(latents_mean=[0.0, 0.0, 0.0]).save_pretrained(tmp_path / "tiny")
    vae = load(settings(tmp_path / "tiny"))
    with pytest.raises(ValueError, match=r"latents_mean .* latents_std None"):
        vae.encode(torch.zeros(1, 3, 16, 16))


def test_the_number_of_frames_coded_at_once_does_not_change_them(tmp_path):
    tiny_model().save_pretrained(tmp_path / "tiny")
    frames_TCHW = torch.rand(5, 3, 16, 16) * 2 - 1
    one, all_ = (load(settings(tmp_path / "tiny", batch_frames=count)).encode(frames_TCHW) for count in (1, 8))
    torch.testing.assert_close(one, all_, rtol=0, atol=1e-6)


def test_the_hash_changes_with_one_byte_of_the_weights_or_the_config(tmp_path):
    tiny_model().save_pretrained(tmp_path / "tiny")
    before = load(settings(tmp_path / "tiny")).sha256
    assert load(settings(shutil.copytree(tmp_path / "tiny", tmp_path / "same"))).sha256 == before

    weights = tmp_path / "tiny" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load(settings(tmp_path / "tiny")).sha256 != before

    config = tmp_path / "same" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0.5', '"scaling_factor": 0.6'))
    assert load(settings(tmp_path / "same")).sha256 != before


def test_a_vae_with_the_stated_hash_loads_and_another_is_refused(vae):
    assert load(settings(EMBEDDED, sha256=vae.sha256)).sha256 == vae.sha256
    with pytest.raises(ValueError, match=rf"vae\.sha256 is {'0' * 64}, .*{EMBEDDED} .*{vae.sha256}"):
        load(settings(EMBEDDED, sha256="0" * 64))


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_hub_name_without_a_commit_is_refused(revision):
    with pytest.raises(ValueError, match=rf"vae\.revision is {revision or 'null'}: .*https://"):
        load(settings("someone/some-vae", revision=revision))


def test_a_hub_name_that_cannot_be_fetched_names_its_commit(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=rf"vae\.source is someone/some-vae.* at commit {'a' * 40}"):
        load(settings("someone/some-vae", revision="a" * 40))


@pytest.mark.parametrize(
    ("change", "message"), [("drop", "1 missing, encoder.conv_in.bias"), ("add", "1 unknown, new")]
)
def test_weights_with_missing_or_unknown_names_are_refused(tmp_path, change, message):
    tiny_model().save_pretrained(tmp_path / "tiny")
    path = tmp_path / "tiny" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    if change == "drop":
        del tensors["encoder.conv_in.bias"]
    else:
        tensors["new"] = torch.zeros(1)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load(settings(tmp_path / "tiny"))


def test_another_model_s_folder_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path / "tiny")
    config = tmp_path / "tiny" / "config.json"
    config.write_text(config.read_text().replace('"AutoencoderKL"', '"UNet2DModel"'))
    with pytest.raises(ValueError, match=r"UNet2DModel.*AutoencoderKL"):
        load(settings(tmp_path / "tiny"))


def test_a_missing_folder_is_named_with_its_setting(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vae\.source is .*nowhere"):
        load(settings(tmp_path / "nowhere"))


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vae\.source is .*no config\.json"):
        load(settings(tmp_path))


def test_a_size_that_does_not_divide_is_refused(vae):
    with pytest.raises(ValueError, match=r"60 x 64 pixels"):
        vae.encode(torch.zeros(1, 3, 60, 64))


@pytest.fixture(scope="module", name="frames_THWC")
def held_out_clip() -> np.ndarray:
    """A held-out scene of 8 frames, uint8."""
    return shapes.render(shapes.scene(99, 0, held_out=True), pixels=64, frames=8)


def test_what_is_stored_of_a_clip_is_its_latents_in_float16_bit_for_bit(vae, frames_THWC):
    stored = vae.submit(frames_THWC).result()
    plain = encode(vae.model, to_pixels(frames_THWC), vae.batch_frames).half()
    assert (stored.dtype, stored.is_contiguous(), stored.device.type) == (torch.float16, True, "cpu")
    assert stored.numpy().tobytes() == plain.contiguous().numpy().tobytes()


def test_bfloat16_is_what_the_vae_computes_in_and_its_latents_are_near(vae, frames_THWC):
    small_THWC = np.ascontiguousarray(frames_THWC[:1, 16:48, 16:48])  # CPUs take long for convolutions in bfloat16
    short = load(settings(EMBEDDED, precision="bfloat16"))
    assert {weight.dtype for weight in short.model.parameters()} == {torch.bfloat16}
    near_TCHW, exact_TCHW = (one.encode(to_pixels(small_THWC)) for one in (short, vae))
    assert near_TCHW.dtype == torch.float32
    assert 0 < (near_TCHW - exact_TCHW).square().mean().sqrt() / exact_TCHW.std() < BFLOAT16


def test_the_hash_is_of_the_files_whatever_computes_and_in_whatever_precision(vae):
    assert sha256_of(settings(EMBEDDED)) == vae.sha256
    assert load(settings(EMBEDDED, precision="bfloat16")).sha256 == vae.sha256
    with pytest.raises(ValueError, match=r"vae\.sha256"):
        sha256_of(settings(EMBEDDED, sha256="0" * 64))


def test_the_vae_and_what_it_is_given_go_to_the_device_that_is_named(frames_THWC, frames_TCHW):
    there = load(settings(EMBEDDED), "meta")  # a device with shapes and no values
    assert {weight.device.type for weight in there.model.parameters()} == {"meta"}
    for use in (lambda: there.submit(frames_THWC), lambda: there.encode(frames_TCHW), lambda: there.decode(LATENTS)):
        with pytest.raises(NotImplementedError, match="out of meta"):  # all is computed there, and cannot be fetched
            use()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_latents_of_the_cpu(vae, frames_TCHW):
    torch.testing.assert_close(
        load(settings(EMBEDDED), "cuda").encode(frames_TCHW), vae.encode(frames_TCHW), rtol=0, atol=1e-5
    )


def test_the_sizes_of_a_vae_are_known_before_it_is_loaded(vae):
    assert sizes_of(settings(EMBEDDED)) == (vae.latent_channels, vae.downsampling)
