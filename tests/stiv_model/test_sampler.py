import torch

from stiv_model import guidance
from stiv_model.sampler import Given, sample
from stiv_model.settings import SamplerSettings

SETTINGS = SamplerSettings(steps=6, guidance_scale=2.0, renormalise=False, original_height=8, original_width=8)


def test_guidance_of_scale_one_is_the_conditional_and_zero_the_unconditional():
    conditional, unconditional = torch.randn(2, 3, 4)
    torch.testing.assert_close(guidance.jit(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guidance.jit(conditional, unconditional, 0.0), unconditional)


def test_renormalised_guidance_has_the_length_of_the_conditional():
    guided, conditional = torch.randn(2, 3, 4, 5)
    changed = guidance.renormalise(guided, conditional)
    torch.testing.assert_close(changed.flatten(1).norm(dim=1), conditional.flatten(1).norm(dim=1))
    torch.testing.assert_close(
        torch.nn.functional.cosine_similarity(changed.flatten(1), guided.flatten(1)), torch.ones(3)
    )


def test_given_frames_come_out_bit_for_bit(lively, inputs):
    noise, _, text, micro = inputs
    clean = torch.randn_like(noise)
    is_clean = torch.tensor([[True, False, False, False]] * 3)
    out = sample(lively(is_video=True), noise, text, text, micro, SETTINGS, Given(clean, is_clean))
    assert torch.equal(out[:, 0], clean[:, 0])
    assert not torch.allclose(out[:, 1], clean[:, 1], atol=0.1)


def test_the_given_frame_changes_the_others(lively, inputs):
    noise, _, text, micro = inputs
    is_clean = torch.tensor([[True, False, False, False]] * 3)
    one, other = (
        sample(lively(is_video=True), noise, text, text, micro, SETTINGS, Given(clean, is_clean))
        for clean in torch.randn(2, *noise.shape)
    )
    assert not torch.allclose(one[:, 1:], other[:, 1:], atol=1e-4)


def test_euler_follows_a_constant_velocity_exactly(inputs):
    noise, _, text, micro = inputs
    data = torch.randn_like(noise)

    def straight(x, time, text, micro):
        return (data - noise).repeat(2, 1, 1, 1, 1)

    torch.testing.assert_close(sample(straight, noise, text, text, micro, SETTINGS), data, atol=1e-5, rtol=1e-5)


def test_a_sample_does_not_depend_on_its_batch(lively, inputs):
    noise, _, text, micro = inputs
    model = lively(is_video=True)
    alone = sample(
        model,
        noise[:1],
        type(text)(*(p[:1] for p in text)),
        type(text)(*(p[:1] for p in text)),
        micro[:1],
        SETTINGS,
    )
    together = sample(model, noise, text, text, micro, SETTINGS)
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)
