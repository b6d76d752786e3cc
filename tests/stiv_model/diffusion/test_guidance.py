import torch

from stiv_model.diffusion import guidance


def three_velocities() -> torch.Tensor:
    return torch.randn(3, 2, 4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_guidance_of_scale_one_is_the_conditional():
    conditional, without_text, unconditional = three_velocities()
    same(guidance.text(conditional, without_text, 1.0), conditional)
    same(guidance.joint(conditional, unconditional, 1.0), conditional)
    same(guidance.separate(conditional, without_text, unconditional, 1.0, 1.0), conditional)


def test_guidance_of_scale_zero_is_the_null_branch():
    conditional, without_text, unconditional = three_velocities()
    same(guidance.text(conditional, without_text, 0.0), without_text)
    same(guidance.joint(conditional, unconditional, 0.0), unconditional)
    same(guidance.separate(conditional, without_text, unconditional, 0.0, 0.0), unconditional)


def test_guidance_goes_beyond_the_conditional_by_scale_minus_one():
    conditional, _, unconditional = three_velocities()
    beyond = guidance.joint(conditional, unconditional, 7.5) - conditional
    same(beyond, 6.5 * (conditional - unconditional))


def test_joint_guidance_without_an_image_is_text_guidance():
    conditional, without_text, _ = three_velocities()
    same(guidance.joint(conditional, without_text, 7.5), guidance.text(conditional, without_text, 7.5))


def test_separate_guidance_at_equal_scales_is_joint_guidance():
    conditional, without_text, unconditional = three_velocities()
    separate = guidance.separate(conditional, without_text, unconditional, 7.5, 7.5)
    same(separate, guidance.joint(conditional, unconditional, 7.5))


def test_separate_guidance_of_image_scale_one_is_text_guidance():
    conditional, without_text, unconditional = three_velocities()
    separate = guidance.separate(conditional, without_text, unconditional, 7.5, 1.0)
    same(separate, guidance.text(conditional, without_text, 7.5))


def test_each_scale_of_separate_guidance_acts_on_its_own_condition():
    conditional, without_text, unconditional = three_velocities()
    guided, stronger_text, stronger_image = (
        guidance.separate(conditional, without_text, unconditional, scale, image_scale)
        for scale, image_scale in ((3.0, 2.0), (4.0, 2.0), (3.0, 3.0))
    )
    same(stronger_text - guided, conditional - without_text)
    same(stronger_image - guided, without_text - unconditional)


def test_renormalised_guidance_has_the_length_of_the_conditional_and_its_own_direction():
    guided, conditional, _ = three_velocities()
    changed = guidance.renormalise(guided, conditional)
    same(changed.flatten(1).norm(dim=1), conditional.flatten(1).norm(dim=1))
    cosine = torch.nn.functional.cosine_similarity(changed.flatten(1), guided.flatten(1))
    same(cosine, torch.ones_like(cosine))


def test_renormalised_guidance_of_scale_one_is_the_conditional():
    conditional, _, unconditional = three_velocities()
    same(guidance.renormalise(guidance.joint(conditional, unconditional, 1.0), conditional), conditional)
