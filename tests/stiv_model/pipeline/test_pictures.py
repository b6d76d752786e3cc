"""What a call returns it takes: a long video is made piece by piece, the last frame in and the next piece out."""

import re

import numpy as np
import pytest
import torch

from stiv_model.pipeline.pictures import Asked, given_pictures, pixels_of
from tests.stiv_model.pipeline.test_pipeline import FRAMES, PIXELS, coded, latents, picture, seeded


@pytest.fixture
def made(pipe) -> dict:
    kinds = ("pil", "np", "pt")
    return {kind: pipe(["abc", "de"], output_type=kind, generator=seeded(0, 1)).frames for kind in kinds}


def test_a_frame_that_was_made_is_the_first_of_the_next_piece_in_every_form(pipe, made):
    next_piece = {kind: latents(pipe, image=videos[0][-1]) for kind, videos in made.items()}
    torch.testing.assert_close(next_piece["np"], next_piece["pt"], rtol=0, atol=1e-5)
    torch.testing.assert_close(next_piece["pil"][:, 0], next_piece["pt"][:, 0], rtol=0, atol=0.02)  # its 8 bits
    # read as -1 to 1, it would be washed out
    washed = coded_pixels(pipe, (made["pt"][0, -1] + 1) / 2)
    assert (next_piece["pt"][0, 0] - washed).abs().max() > 0.1


def coded_pixels(pipe, values: torch.Tensor) -> torch.Tensor:
    return pipe.vae.encode(2 * values[None] - 1).latent_dist.mean[0].detach() * pipe.vae.config.scaling_factor


def test_the_last_frames_of_a_batch_go_in_as_one_array_or_tensor(pipe, made):
    expected = latents(pipe, ["abc", "de"], image=[video[-1] for video in made["pt"]])
    assert torch.equal(latents(pipe, ["abc", "de"], image=made["pt"][:, -1]), expected)
    as_array = latents(pipe, ["abc", "de"], image=made["np"][:, -1])
    torch.testing.assert_close(as_array, expected, rtol=0, atol=1e-5)


def test_made_frames_may_be_given_anywhere(pipe, made):
    given = {0: made["np"][0, -2], np.int64(1): made["pt"][0, -1], 3: picture()}
    torch.testing.assert_close(latents(pipe, frames=given)[0, 3], coded(pipe, picture()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_and_double_floats_are_values_from_zero_to_one_too(dtype):
    values = torch.linspace(0, 1, 3 * PIXELS**2).reshape(3, PIXELS, PIXELS)
    found = pixels_of(Asked("image", values.to(dtype)), 1, PIXELS, PIXELS)[0]
    torch.testing.assert_close(found, 2 * values - 1, rtol=0, atol=0.01)
    assert found.dtype == torch.float32


def test_a_picture_that_needs_a_gradient_is_given_without(pipe):
    image = torch.rand(3, PIXELS, PIXELS)
    assert torch.equal(latents(pipe, image=image.clone().requires_grad_()), latents(pipe, image=image))


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_values_from_minus_one_are_taken_as_diffusers_takes_them_with_a_warning(kind):
    image = 2 * torch.rand(3, PIXELS, PIXELS) - 1
    given = image if kind == "pt" else image.permute(1, 2, 0).numpy()
    with pytest.warns(FutureWarning, match=r"image has values from -.* give \(image \+ 1\) / 2"):
        found = pixels_of(Asked("image", given), 1, PIXELS, PIXELS)[0]
    assert torch.equal(found, image)


def test_places_of_given_frames_are_whole_numbers_of_any_kind():
    assert list(given_pictures(None, {np.int32(2): picture(), 1: picture()}, FRAMES, None)) == [1, 2]


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_the_frames_of_a_video_and_the_last_image_are_shorthands_of_frames(pipe, made, kind):
    begun, end = made[kind][0][:2], made[kind][1][-1]
    expected = latents(pipe, frames={0: begun[0], 1: begun[1], FRAMES - 1: end})
    assert torch.equal(latents(pipe, video=begun, last_image=end), expected)
    assert torch.equal(latents(pipe, image=begun[0], last_image=end), latents(pipe, frames={0: begun[0], 3: end}))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"video": [picture()], "image": picture()}, "image is frame 0, and video[0] is given too"),
        ({"video": [picture()] * 5}, "video[4] is given, but the video has frames 0 to 3"),
        ({"video": []}, "video is no sequence of pictures"),
        ({"video": picture()}, "video is no sequence of pictures"),
        ({"frames": {3: picture()}, "last_image": picture()}, "last_image is frame 3, and frames[3] is given too"),
        ({"last_image": picture(size=24)}, "last_image is 24 x 24 x 3"),
    ],
)
def test_shorthands_that_do_not_fit_are_refused_by_their_own_name(pipe, asked, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        pipe("abc", **asked, untrained=True)
