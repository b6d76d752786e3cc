import pytest
import torch

from stiv_model import card, weights
from stiv_model.transformer import StivTransformer


def test_an_inflated_model_shows_a_repeated_frame_as_the_image_model_does(lively, settings, inputs, tmp_path):
    x, time, text, micro = inputs
    image = lively(is_video=False)
    weights.save(tmp_path, image.state_dict(), settings, is_video=False)
    video = StivTransformer(settings, is_video=True)
    weights.initialise(video, tmp_path)
    still = x[:, :1].expand(-1, 4, -1, -1, -1)
    wanted = image(x[:, :1], time, text, micro).expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(video(still, time, text, micro), wanted, atol=1e-5, rtol=1e-5)


def test_temporal_attention_learns_from_the_first_step_after_inflation(lively, settings, inputs, tmp_path):
    weights.save(tmp_path, lively(is_video=False).state_dict(), settings, is_video=False)
    video = StivTransformer(settings, is_video=True)
    weights.initialise(video, tmp_path)
    video(*inputs).square().mean().backward()
    gains = torch.stack([block.temporal_gain.grad for block in video.main_blocks])
    assert (gains != 0).all()
    assert gains.abs().max() < 10  # a zero-initialised projection before the post-norm would give about 1000


def test_saved_weights_load_as_they_were(lively, settings, inputs, tmp_path):
    model = lively(is_video=True)
    weights.save(tmp_path, model.state_dict(), settings, is_video=True)
    assert torch.equal(weights.load(tmp_path)(*inputs), model(*inputs))


def test_a_checkpoint_of_another_size_is_refused_by_name_and_value(lively, settings, tmp_path):
    weights.save(
        tmp_path,
        lively(is_video=True, ffn_ratio=3.0).state_dict(),
        settings.model_copy(update={"ffn_ratio": 3.0}),
        True,
    )
    with pytest.raises(ValueError, match=r"ffn_ratio 3\.0 there, 2\.0 here"):
        card.check_parent(tmp_path, settings, is_video=True)


def test_an_image_recipe_does_not_start_from_a_video_model(lively, settings, tmp_path):
    weights.save(tmp_path, lively(is_video=True).state_dict(), settings, is_video=True)
    with pytest.raises(ValueError, match="video model"):
        card.check_parent(tmp_path, settings, is_video=False)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="t2v"):
        weights.load(tmp_path / "t2v")
