"""The learning rate of each step, against the shape that `stiv_model.training.learning_rate` states."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.settings import ConstantRate, RateDecay, RecipeSettings
from stiv_model.training import learning_rate
from tests.stiv_model.runs import RECIPE

PEAK = RECIPE.learning_rate


@st.composite
def recipes(draw: st.DrawFn) -> RecipeSettings:
    warmup, constant, falling = draw(st.integers(1, 40)), draw(st.integers(0, 40)), draw(st.integers(1, 60))
    decay = RateDecay(kind=draw(st.sampled_from(["linear", "cosine"])), steps=falling, floor=draw(st.floats(0, 0.99)))
    changes = {"warmup_steps": warmup, "steps": warmup + constant + falling, "decay": decay}
    return RecipeSettings.model_validate(RECIPE.model_dump() | changes)


def rates(recipe: RecipeSettings) -> list[float]:
    return [learning_rate.of_step(step, recipe) for step in range(1, recipe.steps + 1)]


@settings(max_examples=40)
@given(recipes())
def test_the_rate_rises_to_the_peak_stays_and_falls_to_the_floor_in_the_last_step(recipe):
    found, decay = rates(recipe), recipe.decay
    assert isinstance(decay, RateDecay)
    top = slice(recipe.warmup_steps - 1, recipe.steps - decay.steps)
    assert found[: top.start] == sorted(found[: top.start])
    assert found[0] > 0
    assert found[top] == [PEAK] * (recipe.steps - decay.steps - recipe.warmup_steps + 1)
    assert found[top.start :] == sorted(found[top.start :], reverse=True)
    assert found[-1] == pytest.approx(decay.floor * PEAK, rel=1e-9, abs=1e-12 * PEAK)


@settings(max_examples=40)
@given(recipes())
def test_no_step_of_the_decay_falls_further_than_the_steepest_of_its_shape(recipe):
    decay = recipe.decay
    assert isinstance(decay, RateDecay)
    steepest = (1 if decay.kind == "linear" else 1.5708) * (1 - decay.floor) / decay.steps
    falling = rates(recipe)[recipe.steps - decay.steps - 1 :]
    falls = [before - after for before, after in itertools.pairwise(falling)]
    assert len(falls) == decay.steps
    assert max(falls) <= steepest * PEAK * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_half_way_it_is_half_way_to_the_floor_whatever_the_shape(kind):
    decay = RateDecay(kind=kind, steps=8, floor=0.2)
    recipe = RECIPE.model_copy(update={"steps": 12, "decay": decay})
    assert learning_rate.of_step(8, recipe) == pytest.approx(0.6 * PEAK)


def test_the_shapes_differ_before_and_after():
    linear, cosine = (
        rates(RECIPE.model_copy(update={"decay": RateDecay(kind=kind, steps=8, floor=0.0)}))
        for kind in ("linear", "cosine")
    )
    assert linear[4:] == pytest.approx([PEAK * left / 8 for left in range(7, -1, -1)])
    assert all(one < other for one, other in zip(linear[4:7], cosine[4:7], strict=True))
    assert all(one > other for one, other in zip(linear[8:11], cosine[8:11], strict=True))
    assert linear[-1] == cosine[-1] == 0


def test_a_constant_rate_stays_and_does_not_ask_how_many_steps_there_are():
    recipe = RECIPE.model_copy(update={"decay": ConstantRate(kind="constant")})
    assert rates(recipe) == [PEAK * share for share in (0.5, *[1.0] * 11)]
    longer = recipe.model_copy(update={"steps": 400})
    assert rates(longer)[:12] == rates(recipe)
