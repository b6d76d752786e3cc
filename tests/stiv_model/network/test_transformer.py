import pytest
import torch

from stiv_model.network.masking import TokenMask, kept_weight, sample_kept


def test_velocity_has_the_shape_of_the_latents(lively, inputs):
    assert lively(is_video=True)(*inputs).shape == inputs[0].shape


def test_padding_tokens_of_the_text_change_nothing(lively, inputs):
    x, time, text, micro = inputs
    noise = torch.where(text.mask_BL[..., None], 0.0, 100.0)
    padded = text._replace(tokens_BLE=text.tokens_BLE + noise)
    model = lively(is_video=True)
    torch.testing.assert_close(model(x, time, padded, micro), model(x, time, text, micro))


@pytest.mark.parametrize("changed", ["time", "tokens", "pooled", "micro"])
def test_every_condition_reaches_the_output(lively, inputs, changed):
    x, time, text, micro = inputs
    model = lively(is_video=True)
    before = model(x, time, text, micro)
    after = {
        "time": lambda: model(x, time / 2, text, micro),
        "tokens": lambda: model(x, time, text._replace(tokens_BLE=text.tokens_BLE.flip(-1)), micro),
        "pooled": lambda: model(x, time, text._replace(pooled_BE=text.pooled_BE.flip(-1)), micro),
        "micro": lambda: model(x, time, text, micro.flip(-1)),
    }[changed]()
    assert not torch.allclose(before, after, atol=1e-4)


def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(lively, inputs):
    x, time, text, micro = inputs
    model = lively(is_video=True)
    alone = model(x[1:2], time[1:2], type(text)(*(part[1:2] for part in text)), micro[1:2])
    torch.testing.assert_close(model(*inputs)[1:2], alone, atol=1e-5, rtol=1e-5)


def test_frames_of_an_image_model_do_not_see_each_other(lively, inputs):
    x, time, text, micro = inputs
    model = lively(is_video=False)
    changed = x.clone()
    changed[:, 2] += 1
    difference = (model(x, time, text, micro) - model(changed, time, text, micro)).abs().amax((0, 2, 3, 4))
    assert (difference > 1e-5).tolist() == [False, False, True, False]


def test_time_is_told_from_space_and_order_matters(lively, inputs):
    x, time, text, micro = inputs
    model = lively(is_video=True)
    reversed_in_time = model(x.flip(1), time, text, micro).flip(1)
    assert not torch.allclose(model(x, time, text, micro), reversed_in_time, atol=1e-4)


def test_keeping_every_place_equals_no_masking(lively, inputs):
    model = lively(is_video=True)
    every = TokenMask(torch.arange(16).expand(3, -1), torch.arange(2).expand(3, -1))
    torch.testing.assert_close(model(*inputs, token_mask=every), model(*inputs), atol=1e-5, rtol=1e-5)


def test_mask_ratio_zero_equals_no_masking_bit_for_bit(lively, inputs):
    model = lively(is_video=True)
    order = torch.stack([torch.randperm(16) for _ in range(3)])
    assert torch.equal(
        model(*inputs, token_mask=TokenMask(sample_kept(order, 0.0), sample_kept(order[:, :2], 0.0))), model(*inputs)
    )


def test_main_blocks_do_not_see_dropped_places(lively, inputs):
    x, time, text, micro = inputs
    model = lively(is_video=True)
    kept = TokenMask(sample_kept(torch.stack([torch.randperm(16) for _ in range(3)]), 0.5), None)
    seen = kept_weight(kept, 1, 16, x.device).view(3, 1, 1, 4, 4).repeat_interleave(2, 3).repeat_interleave(2, 4)
    other = torch.where(seen.bool(), x, torch.randn_like(x))
    torch.testing.assert_close(
        model(x, time, text, micro, token_mask=kept), model(other, time, text, micro, token_mask=kept)
    )


def test_masking_halves_the_tokens_of_the_main_blocks(lively, inputs):
    model, seen = lively(is_video=True), []
    model.main_blocks[0].register_forward_hook(lambda module, given, out: seen.append(out.shape[2]))
    model(*inputs)
    model(*inputs, token_mask=TokenMask(sample_kept(torch.stack([torch.randperm(16) for _ in range(3)]), 0.5), None))
    assert seen == [16, 8]


def test_activation_checkpointing_gives_the_same_gradients(lively, inputs):
    gradients = []
    for checkpointing in (False, True):
        model = lively(is_video=True).train()
        model.activation_checkpointing = checkpointing
        model(*inputs).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((3, 3, 4, 8, 8), "temporal_patch"),
        ((3, 4, 5, 8, 8), "latent_channels"),
        ((3, 4, 4, 7, 8), "spatial_patch"),
    ],
)
def test_latents_that_cannot_be_cut_into_patches_are_refused(lively, inputs, shape, named):
    with pytest.raises(ValueError, match=named):
        lively(is_video=True)(torch.randn(shape), *inputs[1:])
