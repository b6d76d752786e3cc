"""Calls beside each other and within each other, and what a callback sees and changes of its own."""

import copy
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from stiv_model.diffusion.sampler import timestep_schedule
from stiv_model.encoders import text
from stiv_model.pipeline import StivPipeline
from tests.stiv_model.pipeline.test_pipeline import FRAMES, SAMPLER, TRAINED, latents, picture, seeded

SOLVERS = ["euler", "heun", "euler_maruyama", "heun_sde"]
SHAPE = (1, FRAMES, 4, 8, 8)


def at_once(calls: list[Callable[[], torch.Tensor]]) -> list[torch.Tensor]:
    """Return what the calls make, all of which begin in the same moment in a thread each."""
    start = threading.Barrier(len(calls))

    def begin(call: Callable[[], torch.Tensor]) -> torch.Tensor:
        start.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


# Beside each other


@pytest.mark.parametrize("solver", SOLVERS)
def test_calls_in_several_threads_make_what_they_make_alone(pipe, solver):
    prompts, steps = ["abc", "de", "f", "ghijk"], [6, 9, 7, 8]

    def call(number: int) -> torch.Tensor:
        asked = {"solver": solver, "num_inference_steps": steps[number], "generator": seeded(number)}
        return latents(pipe, prompts[number], negative_prompt=prompts[-number], **asked)

    alone = [call(number) for number in range(4)]
    together = at_once([lambda number=number: call(number) for number in range(4)])
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_threads_do_not_set_the_tokenizer_for_each_other(pipe):
    def encode_padded() -> None:
        for _ in range(150):
            text.encode(pipe.text_encoder, pipe.tokenizer, ["abc"], 10, cut=False)

    def count() -> set[int]:
        return {text.lengths(pipe.tokenizer, ["abc"])[0] for _ in range(3000)}

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places in the middle of a call, as they seldom do else
    try:
        with ThreadPoolExecutor(2) as pool:
            padding, counted = pool.submit(encode_padded), pool.submit(count)
            padding.result(60)
            assert counted.result(60) == {5}, "three letters and what the tokenizer adds, never the padding"
    finally:
        sys.setswitchinterval(interval)


def test_two_pipelines_of_the_same_parts_sample_beside_each_other(pipe):
    other = StivPipeline.from_pipe(pipe)
    assert other.scheduler is pipe.scheduler
    alone = [latents(pipe, solver="euler", num_inference_steps=steps) for steps in (6, 9)]
    calls = [(pipe, 6), (other, 9)]
    together = at_once([lambda p=p, n=n: latents(p, solver="euler", num_inference_steps=n) for p, n in calls])
    assert all(torch.equal(one, two) for one, two in zip(alone, together, strict=True))


@pytest.mark.parametrize("solver", ["euler", "heun_sde"])
@pytest.mark.parametrize("shares", ["itself", "the parts"])
def test_a_callback_may_call_the_pipeline_that_calls_it(pipe, solver, shares):
    inner_pipe = pipe if shares == "itself" else StivPipeline.from_pipe(pipe)
    plain = [latents(p, solver=solver, num_inference_steps=n) for p, n in ((pipe, 4), (inner_pipe, 3))]
    inner = []

    def callback(_: StivPipeline, step: int, timestep: float, values: dict) -> None:
        inner.append(latents(inner_pipe, solver=solver, num_inference_steps=3))
        assert pipe.num_timesteps == 4, "the outer call is the callback's own again"

    outer = latents(pipe, solver=solver, num_inference_steps=4, callback_on_step_end=callback)
    assert torch.equal(outer, plain[0])
    assert len(inner) == 4 and all(torch.equal(one, plain[1]) for one in inner)


def test_a_call_leaves_the_scheduler_as_it_was(pipe):
    before = copy.deepcopy(pipe.scheduler.__dict__)
    latents(pipe, solver="euler", num_inference_steps=3)
    after = pipe.scheduler.__dict__
    assert before.keys() == after.keys()
    assert torch.equal(before["sigmas"], after["sigmas"]) and after["_step_index"] is None


def test_from_pipe_leaves_the_precision_of_the_parts_that_it_shares(pipe):
    pipe.to(torch.bfloat16)
    other = StivPipeline.from_pipe(pipe)
    assert pipe.transformer.dtype == torch.bfloat16 and other.transformer is pipe.transformer
    assert other.defaults == pipe.defaults
    vae = copy.deepcopy(pipe.vae)
    assert StivPipeline.from_pipe(pipe, vae=vae).vae is vae


def test_a_pipeline_can_be_copied(pipe):
    assert torch.equal(latents(copy.deepcopy(pipe)), latents(pipe))


# The scheduler


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_shift_that_was_set_acts_on_every_solver_and_is_what_the_callback_is_told(pipe, solver):
    told: dict[str, list[float]] = {"set": [], "made with": []}

    def ask(kind: str) -> torch.Tensor:
        def callback(_: StivPipeline, step: int, timestep: float, values: dict) -> None:
            told[kind].append(timestep)

        return latents(pipe, solver=solver, num_inference_steps=4, callback_on_step_end=callback)

    even = latents(pipe, solver=solver, num_inference_steps=4)
    pipe.scheduler.set_shift(5.0)
    by_set = ask("set")
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    assert torch.equal(by_set, ask("made with"))
    assert (by_set - even).abs().max() > 0.01
    assert told["set"] == told["made with"]
    assert told["set"] == pytest.approx([1000 * (1 - time) for time in timestep_schedule(4, 5.0)[:-1].tolist()])


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "shift_terminal"])
def test_the_times_of_a_scheduler_are_those_of_every_solver(pipe, option):
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(**{option: 0.1 if option == "shift_terminal" else True})
    pipe.scheduler.set_timesteps(sigmas=[1, 0.75, 0.5, 0.25])
    expected = pipe.scheduler.timesteps.tolist()
    assert expected != pytest.approx([1000, 750, 500, 250], abs=1)
    for solver in ("euler", "heun"):
        told = []
        latents(pipe, solver=solver, num_inference_steps=4, callback_on_step_end=lambda p, i, t, _: told.append(t))  # noqa: B023
        assert told == pytest.approx(expected, abs=1e-3)


def test_timesteps_are_told_in_the_units_of_the_scheduler(pipe):
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=500)
    told = []
    latents(pipe, num_inference_steps=2, callback_on_step_end=lambda p, i, t, _: told.append(t))
    assert told == pytest.approx([500, 250])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting True, but the shift of this model does not depend"),
        ({"invert_sigmas": True}, "invert_sigmas True, but the model goes from noise to data"),
        ({"stochastic_sampling": True}, r'stochastic_sampling True.*solver="euler_maruyama" instead'),
        ({"shift_terminal": 1.0}, "sigmas for 2 sampling steps are .*, but they must fall from 1"),
    ],
)
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_scheduler_set_up_as_no_solver_can_follow_is_refused(pipe, options, message, solver):
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(**options)
    with pytest.raises(ValueError, match=message):
        pipe("abc", solver=solver)


@pytest.mark.parametrize("shift", [0, -1.0, float("nan")])
def test_a_shift_that_is_none_is_refused(pipe, shift):
    pipe.scheduler.set_shift(shift)
    with pytest.raises(ValueError, match=r"^shift is "):
        pipe("abc")


# What a callback changes


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_interrupted_call_ends_after_the_sampling_step_it_is_in(pipe, solver):
    seen, kept = [], []

    def callback(given: StivPipeline, step: int, timestep: float, values: dict) -> dict:
        seen.append(step)
        kept.append(values["latents"].clone())
        given._interrupt = step == 1
        return values

    made = latents(pipe, solver=solver, num_inference_steps=6, callback_on_step_end=callback)
    assert seen == [0, 1] and torch.equal(made, kept[-1])
    assert pipe.interrupt
    latents(pipe, num_inference_steps=2)
    assert not pipe.interrupt, "the next call begins anew"


def test_an_interrupted_call_has_its_given_frames(pipe):
    def callback(given: StivPipeline, *_: object) -> None:
        given._interrupt = True

    made = latents(pipe, image=picture(), callback_on_step_end=callback)
    assert torch.equal(made[:, 0], latents(pipe, image=picture())[:, 0])


def test_a_callback_interrupts_its_own_call_only(pipe):
    inner_steps: list[int] = []

    def inner(given: StivPipeline, step: int, timestep: float, values: dict) -> None:
        inner_steps.append(step)
        given._interrupt = True

    def outer(given: StivPipeline, step: int, timestep: float, values: dict) -> None:
        latents(given, num_inference_steps=5, callback_on_step_end=inner)
        assert not given.interrupt

    made = latents(pipe, num_inference_steps=3, callback_on_step_end=outer)
    assert inner_steps == [0, 0, 0]
    assert torch.equal(made, latents(pipe, num_inference_steps=3))


def test_another_thread_interrupts_what_runs(pipe):
    seen, stopped = [], threading.Event()

    def callback(_: StivPipeline, step: int, timestep: float, values: dict) -> None:
        seen.append(step)
        if step == 0:
            thread = threading.Thread(target=lambda: (setattr(pipe, "_interrupt", True), stopped.set()))
            thread.start()
            thread.join()

    latents(pipe, num_inference_steps=5, callback_on_step_end=callback)
    assert stopped.is_set() and seen == [0]


def test_a_callback_reads_its_call(pipe):
    seen = []

    def callback(given: StivPipeline, step: int, timestep: float, values: dict) -> None:
        seen.append((given.guidance_scale, given.num_timesteps, given.current_timestep == timestep, given.interrupt))

    assert (pipe.guidance_scale, pipe.num_timesteps) == (SAMPLER.guidance_scale, SAMPLER.steps), "what a call would be"
    latents(pipe, num_inference_steps=3, guidance_scale=4.0, callback_on_step_end=callback)
    assert seen == [(4.0, 3, True, False)] * 3
    assert (pipe.guidance_scale, pipe.num_timesteps, pipe.current_timestep) == (4.0, 3, None), "the call that was last"


@pytest.mark.parametrize("solver", SOLVERS)
def test_guidance_that_a_callback_changes_acts_from_the_next_sampling_step(pipe, solver):
    kept: dict[float, list[torch.Tensor]] = {2.0: [], 6.0: []}

    def ask(scale: float, then: float) -> torch.Tensor:
        def callback(given: StivPipeline, step: int, timestep: float, values: dict) -> None:
            kept[then].append(values["latents"].clone())
            given._guidance_scale = then

        return latents(pipe, solver=solver, num_inference_steps=3, guidance_scale=scale, callback_on_step_end=callback)

    same, changed = ask(2.0, 2.0), ask(2.0, 6.0)
    assert torch.equal(same, latents(pipe, solver=solver, num_inference_steps=3, guidance_scale=2.0))
    assert torch.equal(kept[2.0][0], kept[6.0][0]), "the first step is made before"
    assert (kept[2.0][1] - kept[6.0][1]).abs().max() > 1e-3
    assert (changed - same).abs().max() > 1e-3


def test_guidance_that_a_callback_ends_is_that_of_an_interval(pipe):
    def callback(given: StivPipeline, step: int, *_: object) -> None:
        if step == 1:
            given._guidance_scale = 1.0

    ended = latents(pipe, solver="euler", num_inference_steps=4, callback_on_step_end=callback)
    interval = SAMPLER.model_dump() | {"guidance_end": 0.3}  # steps start at 0, 0.25, 0.5, 0.75
    pipe.register_to_config(defaults=pipe.config["defaults"] | {"sampler": interval})
    assert torch.equal(ended, latents(pipe, solver="euler", num_inference_steps=4))


@pytest.mark.parametrize(("scale", "message"), [(-1.0, "guidance_scale is -1.0"), ("x", "guidance_scale is 'x'")])
def test_guidance_that_a_callback_sets_to_what_cannot_be_is_refused(pipe, scale, message):
    def callback(given: StivPipeline, *_: object) -> None:
        given._guidance_scale = scale

    with pytest.raises(ValueError, match=message):
        pipe("abc", callback_on_step_end=callback)


def test_guidance_that_a_callback_turns_on_needs_the_null_as_well(make):
    pipe = make(trained=TRAINED.model_copy(update={"text_dropout": 0.0}))

    def callback(given: StivPipeline, *_: object) -> None:
        given._guidance_scale = 3.0

    with pytest.raises(ValueError, match=r"guidance_scale is 3\.0, but the model was trained with text_dropout 0"):
        pipe("abc", guidance_scale=1.0, callback_on_step_end=callback)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x[:, :2], "latents that are 1 x 2 x 4 x 8 x 8, but the call makes 1 x 4 x 4 x 8 x 8"),
        (lambda x: x.long(), r"latents that are a tensor of torch\.int64"),
        (lambda x: x.tolist(), "latents that are a list"),
    ],
)
def test_latents_of_another_form_from_a_callback_are_refused(pipe, returned, message):
    with pytest.raises(ValueError, match=message):
        pipe("abc", callback_on_step_end=lambda q, i, t, given: {"latents": returned(given["latents"])})


@pytest.mark.parametrize(
    ("returned", "message"),
    [(torch.zeros(1), "returned tensor"), ({"prompt_embeds": 1}, "'prompt_embeds': it may change latents only")],
)
def test_what_a_callback_cannot_change_is_named(pipe, returned, message):
    with pytest.raises(ValueError, match=message):
        pipe("abc", callback_on_step_end=lambda *_: returned)


@pytest.mark.parametrize("returned", [None, {}, {"latents": None}])
def test_a_callback_that_returns_nothing_changes_nothing(pipe, returned):
    assert torch.equal(latents(pipe, callback_on_step_end=lambda *_: returned), latents(pipe))


def test_latents_from_a_callback_go_on_in_the_precision_of_the_call(pipe):
    made = latents(pipe, callback_on_step_end=lambda q, i, t, given: {"latents": given["latents"].double()})
    assert made.dtype == torch.float32 and torch.equal(made, latents(pipe))


def test_a_callback_may_take_gradients_and_keep_what_it_is_shown(pipe):
    kept = []

    def callback(given: StivPipeline, step: int, timestep: float, values: dict) -> dict:
        with torch.enable_grad():
            x = values["latents"].detach().requires_grad_()
            x.square().sum().backward()
        kept.append(values["latents"])
        return {"latents": x - 0.1 * x.grad}

    made = latents(pipe, num_inference_steps=2, callback_on_step_end=callback)
    assert not made.requires_grad and (made - latents(pipe, num_inference_steps=2)).abs().max() > 0.01
    kept[0] += 1  # a tensor made in inference mode could not


# What a callback is given


class _Shown(PipelineCallback):
    tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(self, **how):
        super().__init__(**how)
        self.shown = []

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        self.shown.append((step_index, sorted(callback_kwargs)))
        return callback_kwargs


class _Embeds(_Shown):
    tensor_inputs = ["prompt_embeds"]  # noqa: RUF012


@pytest.mark.parametrize("several", [False, True])
def test_callbacks_of_diffusers_classes_are_given_what_they_ask_for(pipe, several):
    own = _Shown(cutoff_step_ratio=None, cutoff_step_index=1)
    latents(pipe, callback_on_step_end=MultiPipelineCallbacks([own]) if several else own)
    assert own.shown == [(0, ["latents"]), (1, ["latents"])]
    with pytest.raises(
        ValueError, match=r"_Embeds\.tensor_inputs is \['prompt_embeds'\]: use a list of those among lat"
    ):
        pipe("abc", callback_on_step_end=_Embeds(cutoff_step_ratio=None, cutoff_step_index=1))


@pytest.mark.parametrize("names", [[], ["latents"], ("latents",), None])
def test_a_callback_is_given_the_tensors_that_were_named(pipe, names):
    seen = []
    latents(
        pipe,
        callback_on_step_end=lambda q, i, t, given: seen.append(list(given)),
        callback_on_step_end_tensor_inputs=names,
    )
    assert seen == [["latents"] if names is None else list(names)] * 2


@pytest.mark.parametrize("names", [["prompt_embeds"], ["latents", "x"], "latents", 5])
def test_tensors_that_there_are_not_are_refused(pipe, names):
    with pytest.raises(
        ValueError, match=r"^callback_on_step_end_tensor_inputs is .*: use a list of those among latents$"
    ):
        pipe("abc", callback_on_step_end=lambda *_: None, callback_on_step_end_tensor_inputs=names)


# Noise that is given


@pytest.mark.parametrize("solver", SOLVERS)
def test_sampling_starts_from_given_latents(pipe, solver):
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(SHAPE[1:], generator=generator)[None]
    expected = latents(pipe, solver=solver, generator=seeded(7))
    before = noise.clone()
    assert torch.equal(latents(pipe, solver=solver, latents=noise, generator=[generator]), expected)
    assert torch.equal(noise, before), "they are left as they were"
    assert torch.equal(latents(pipe, solver=solver, latents=noise.double(), generator=seeded(7)), expected) == (
        solver in ("euler", "heun")  # the SDE draws what it adds from the generator, which here begins anew
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(1, 2, 4, 8, 8), "latents is 1 x 2 x 4 x 8 x 8, but the call makes 1 x 4 x 4 x 8 x 8"),
        (torch.zeros(2, *SHAPE[1:]), "latents is 2 x 4"),
        (torch.zeros(SHAPE, dtype=torch.int64), r"latents is a tensor of torch\.int64"),
        (torch.full(SHAPE, torch.nan), "latents has values that are not finite"),
        (torch.zeros(SHAPE).numpy(), "latents is a ndarray: give a tensor"),
    ],
)
def test_latents_that_are_no_noise_of_the_call_are_refused(pipe, given, message):
    with pytest.raises(ValueError, match=message):
        pipe("abc", latents=given)
