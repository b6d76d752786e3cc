"""The nine comparisons of `benchmarks.recipe`: which arms, of which stages, looked at how, and what the paper says.

Seconds are those of `recipe_settings.Plan`: arithmetic, counted as the paper counts it. Within a comparison all arms
have the same sum of them over all their stages, where nothing else is said.
"""

from collections.abc import Iterable
from functools import cache
from typing import Literal, NamedTuple

from benchmarks.recipe_figures import Look
from benchmarks.recipe_settings import MODEL, ROTARY, Plan, Size, Stage
from stiv_model.settings import ModelSettings

_IMAGES, _VIDEOS, _STIV = 36, 25, 40
"""Seconds of T2I, T2V and STIV in the chain that several comparisons share."""
_LOW_IMAGES, _HIGH_IMAGES = 13, 10
"""Seconds of T2I with rotary positions, of 32 pixels and then of 64."""
_FAST = {"decay": 0.7}
"""Of the last stage of an arm: the learning rate falls to zero over its last 70 %."""
T2V, TI2V, WORDS = ({how: Look(how)} for how in ("t2v", "ti2v", "words"))


class Arm(NamedTuple):
    """One side of a comparison."""

    name: str
    stage: Stage
    """The last of its stages, which is looked at."""
    looks: dict[str, Look]
    """By the names under which results have their figures."""


class Outcome(NamedTuple):
    """The difference of one figure between two arms."""

    figure: str
    """`LOOK.FIGURE`; a count stands for its share of the videos."""
    arm: str
    against: str
    better: Literal["higher", "lower"]
    """What of `arm` would agree with the paper."""


class Comparison(NamedTuple):
    """A claim of the paper, and how it is tested in miniature."""

    letter: str
    title: str
    claim: str
    """Of the paper, in a sentence."""
    arms: tuple[Arm, ...]
    outcomes: tuple[Outcome, ...]
    """The first decides, by the rule of docs/recipe.md; the others stand beside it."""
    table: tuple[str, ...]
    """Figures of every arm that the page shows."""


@cache
def comparisons(size: Size) -> dict[str, Comparison]:
    """Return all comparisons by their letter."""
    plan = Plan(size)
    images = plan.images("t2i", _IMAGES)
    videos = plan.videos("t2v", _VIDEOS, images)
    stiv = plan.videos("stiv", _STIV, videos, clean_frames="first", image_dropout=0.5, **_FAST)
    made = (
        _staged(plan, stiv),
        _parents(plan),
        _image_condition(plan, videos, stiv),
        _dropout(plan, videos, stiv),
        _masking(plan, images),
        _best_scored(plan, images),
        _upsampling(plan, stiv),
        _positions(plan),
        _norms(plan),
    )
    return {one.letter: one for one in made}


def _staged(plan: Plan, stiv: Stage) -> Comparison:
    seconds = _IMAGES + _VIDEOS + _STIV
    scratch = plan.videos("stiv from scratch", seconds, None, clean_frames="first", image_dropout=0.5, **_FAST)
    looks = T2V | TI2V | WORDS
    return Comparison(
        "a",
        "Staged training",
        "T2I, then T2V, then STIV, each from the one before, beats STIV from random weights at equal compute "
        "(sections 2.4 and 3.3; Fig. 6b, Tab. 6)",
        (Arm("staged", stiv, looks), Arm("scratch", scratch, looks)),
        (
            Outcome("t2v.all_right", "staged", "scratch", "higher"),
            Outcome("ti2v.all_right", "staged", "scratch", "higher"),
            Outcome("words.shape_signal", "staged", "scratch", "higher"),
            Outcome("words.loss", "staged", "scratch", "lower"),
        ),
        (
            "t2v.colour",
            "t2v.shape",
            "t2v.direction",
            "t2v.one_object",
            "t2v.same_object",
            "ti2v.direction",
            "ti2v.psnr",
        ),
    )


def _parents(plan: Plan) -> Comparison:
    """High resolution is 64 pixels, low is 32; shares of the compute as in the paper's Tab. 13."""
    total, videos_low = 70.0, 23.0
    t2i_low, t2i_high = _rotary_images(plan)
    t2v_low = plan.videos("t2v of 32 pixels", videos_low, t2i_low, kind="small", model=_rotary())

    def arm(name: str, spent: float, parent: Stage | None, temporal: Stage | None = None) -> Arm:
        stage = plan.videos(
            f"t2v, {name}", total - spent, parent, temporal_parent=temporal, model=_rotary(spatial_scale=0.5), **_FAST
        )
        return Arm(name, stage, T2V | WORDS)

    arms = (
        arm("both", _LOW_IMAGES + videos_low + _HIGH_IMAGES, t2i_high, t2v_low),
        arm("only low-resolution T2V", _LOW_IMAGES + videos_low, t2v_low),
        arm("only high-resolution T2I", _LOW_IMAGES + _HIGH_IMAGES, t2i_high),
        arm("neither", 0.0, None),
    )
    others = [one.name for one in arms[1:]]
    return Comparison(
        "b",
        "High resolution from both parents",
        "T2V of high resolution from T2I of high and T2V of low resolution beats either alone, and both beat none, at "
        "equal compute (section 3.3; Fig. 6b: VBench 78.8 against 78.5, 78.1 and 77.8)",
        arms,
        (
            *(Outcome("t2v.all_right", "both", other, "higher") for other in others),
            *(Outcome("words.loss", "both", other, "lower") for other in others),
        ),
        ("t2v.colour", "t2v.shape", "t2v.direction", "t2v.one_object", "t2v.same_object", "words.loss"),
    )


def _rotary_images(plan: Plan) -> tuple[Stage, Stage]:
    """Return T2I of 32 pixels, and T2I of 64 pixels from it, its positions interpolated."""
    low = plan.images("t2i of 32 pixels", _LOW_IMAGES, kind="small", model=_rotary())
    return low, plan.images("t2i of 64 pixels", _HIGH_IMAGES, parent=low, model=_rotary(spatial_scale=0.5))


def _image_condition(plan: Plan, videos: Stage, stiv: Stage) -> Comparison:
    def arm(name: str, kind: str) -> Arm:
        stage = plan.videos(
            f"stiv, {name}",
            _STIV,
            videos,
            clean_frames="first",
            image_dropout=0.5,
            model=_with(image_condition=kind),
            **_FAST,
        )
        return Arm(name, stage, TI2V)

    return Comparison(
        "c",
        "Frame replacement against cross-attention",
        "The image as a clean frame in its place beats cross-attention to it, and adding the latter gains nothing "
        "(section 2.3; Tab. 3: 77.3 against 73.0, both 77.1)",
        (
            Arm("replacement", stiv, TI2V),
            arm("cross-attention", "cross_attention"),
            arm("both", "both"),
        ),
        (
            Outcome("ti2v.psnr", "replacement", "cross-attention", "higher"),
            Outcome("ti2v.all_right", "replacement", "cross-attention", "higher"),
            Outcome("ti2v.continuity", "replacement", "cross-attention", "higher"),
            Outcome("ti2v.psnr", "replacement", "both", "higher"),
        ),
        ("ti2v.psnr", "ti2v.colour", "ti2v.shape", "ti2v.direction", "ti2v.same_object", "ti2v.way"),
    )


def _dropout(plan: Plan, videos: Stage, stiv: Stage) -> Comparison:
    def trained(name: str, dropout: float) -> Stage:
        return plan.videos(name, _STIV, videos, clean_frames="first", image_dropout=dropout, **_FAST)

    by_text = Look("ti2v", guidance="text")
    few = _named(Look("ti2v", 24, "text", scale) for scale in (1.0, 7.5))
    sweep = _named(
        (
            *(Look("ti2v", 24, "text", scale) for scale in (1.0, 7.5)),
            Look("ti2v", 24, "joint", 7.5),
            *(Look("ti2v", 24, "separate", scale, image) for scale in (2.0, 7.5) for image in (1.1, 1.5, 4.5)),
        )
    )
    return Comparison(
        "d",
        "Image dropout and joint guidance",
        "Without dropping the image STIV forgets T2V and its videos stand still; with 8 % dropped and JIT-CFG neither "
        "happens (sections 2.3.2 and 3.4; Tab. 4: T2V semantic 31.9 against 74.1; Tab. 5: dynamic degree 10.2 against "
        "24.0)",
        (
            Arm("none dropped, text guidance", trained("stiv, none dropped", 0.0), {"ti2v": by_text} | T2V | few),
            Arm("8 % dropped, JIT-CFG", trained("stiv, 8 % dropped", 0.08), TI2V | T2V | _named([by_text]) | sweep),
            Arm("50 % dropped, JIT-CFG", stiv, TI2V | T2V),
        ),
        (
            Outcome("ti2v.way", "8 % dropped, JIT-CFG", "none dropped, text guidance", "higher"),
            Outcome("t2v.all_right", "8 % dropped, JIT-CFG", "none dropped, text guidance", "higher"),
            Outcome("ti2v.direction", "8 % dropped, JIT-CFG", "none dropped, text guidance", "higher"),
            Outcome("ti2v.psnr", "8 % dropped, JIT-CFG", "none dropped, text guidance", "higher"),
        ),
        (
            "ti2v.way",
            "ti2v.moved",
            "ti2v.direction",
            "ti2v.psnr",
            "t2v.colour",
            "t2v.shape",
            "t2v.direction",
            "t2v.way",
        ),
    )


_MASKED_TIME = 0.79
"""Time of a step with half of the tokens masked, over one with all (0.64 of the arithmetic): measured on this model."""


def _masking(plan: Plan, images: Stage) -> Comparison:
    """Equal time, not arithmetic: less of a masked step is matrix products."""
    first, last = 40.0, 18.0
    unmasked = plan.videos("t2v, unmasked", first, images)
    steps = unmasked.recipe.steps / _MASKED_TIME
    masked = plan.videos("t2v, masked", first, images, mask_ratio=0.5)
    masked = masked._replace(recipe=masked.recipe.model_copy(update={"steps": max(3, round(steps))}))
    ends = [plan.videos(f"{one.name}, then unmasked", last, one, decay=0.9, rate=1.5e-3) for one in (masked, unmasked)]
    looks = T2V | WORDS
    return Comparison(
        "e",
        "Masking, then unmasked fine-tuning",
        "Training with half of the tokens masked makes steps cheaper, and a short unmasked end mends what it costs "
        "(section 2.2; Fig. 6a: 78.25 masked, 78.52 unmasked at twice the compute; UnmaskSFT, Tab. 9)",
        (
            Arm("masked, then unmasked", ends[0], looks),
            Arm("unmasked throughout", ends[1], looks),
            Arm("masked, without the end", masked, looks),
        ),
        (
            Outcome("words.loss", "masked, then unmasked", "unmasked throughout", "lower"),
            Outcome("t2v.all_right", "masked, then unmasked", "unmasked throughout", "higher"),
            Outcome("words.shape_signal", "masked, then unmasked", "unmasked throughout", "higher"),
            Outcome("words.loss", "masked, then unmasked", "masked, without the end", "lower"),
        ),
        ("words.loss", "t2v.colour", "t2v.shape", "t2v.direction", "t2v.one_object", "t2v.same_object"),
    )


def _best_scored(plan: Plan, images: Stage) -> Comparison:
    """Nine in ten of the clips are blurred and noisy; the platform's own score says which are not."""
    videos = plan.videos("t2v on spoilt clips", 30, images, kind="spoilt")

    def arm(name: str, part: str) -> Arm:
        stage = plan.videos(f"sft, {name}", 10, videos, kind="spoilt", part=part, rate=1e-3, decay=0.9)
        return Arm(name, stage, T2V | WORDS)

    arms = (arm("best tenth", "best_tenth"), arm("any tenth", "any_tenth"), arm("all", "all"))
    return Comparison(
        "f",
        "SFT on the best-scored tenth",
        "A short end of training on the clips with the best scores makes better videos "
        "(section 4; Tab. 9: VBench 81.2 to 82.8)",
        arms,
        (
            Outcome("t2v.quality", "best tenth", "all", "higher"),
            Outcome("words.loss", "best tenth", "all", "lower"),
            Outcome("t2v.all_right", "best tenth", "all", "higher"),
            Outcome("t2v.quality", "best tenth", "any tenth", "higher"),
        ),
        ("t2v.quality", "words.loss", "t2v.colour", "t2v.shape", "t2v.direction", "t2v.same_object"),
    )


def _upsampling(plan: Plan, stiv: Stage) -> Comparison:
    given = {"rate": 1.5e-3, "decay": 0.8}
    tup = plan.videos("tup", 20, stiv, clean_frames="every_second", image_dropout=0.08, **given)
    more = plan.videos("stiv, further", 20, stiv, clean_frames="first", image_dropout=0.5, **given)
    return Comparison(
        "g",
        "Temporal upsampling",
        "A model that fills in every second frame makes smoother videos (section 5; Tab. 9 and 11: motion smoothness "
        "98.3 to 99.2)",
        (
            Arm("tup", tup, {"tup": Look("tup"), "video": Look("refilled")}),
            Arm("further STIV", more, {"video": Look("t2v")}),
        ),
        (
            Outcome("video.jerk", "tup", "further STIV", "lower"),
            Outcome("video.continuity", "tup", "further STIV", "higher"),
            Outcome("video.all_right", "tup", "further STIV", "higher"),
        ),
        ("video.jerk", "video.continuity", "video.same_object", "tup.psnr", "tup.psnr_of_mean", "tup.psnr_over_mean"),
    )


def _positions(plan: Plan) -> Comparison:
    """In time: 10 frames become 20 of the same clips. In space: pictures of 32 pixels become such of 64."""
    t2i_low, t2i = _rotary_images(plan)
    wider = plan.images("t2i of 64 pixels, extrapolated", _HIGH_IMAGES, parent=t2i_low, model=_rotary())
    short = plan.videos("t2v of 10 frames", 25, t2i, every=1, model=_rotary(spatial_scale=0.5))

    def longer(name: str, scale: float) -> Stage:
        model = _rotary(spatial_scale=0.5, temporal_scale=scale)
        return plan.videos(f"t2v of 20 frames, {name}", 25, short, every=1, frames=20, batch=8, model=model, **_FAST)

    few = {"t2v": Look("t2v", 24)} | WORDS
    pictures = T2V | WORDS
    return Comparison(
        "h",
        "Rotary positions interpolated against extrapolated",
        "When frames or pixels grow, positions that are interpolated beat extrapolated ones "
        "(section 3.3; Fig. 6c: VBench 76.73 against 76.27, but FVD 407.9 against 397.9)",
        (
            Arm("time interpolated", longer("interpolated", 0.5), few),
            Arm("time extrapolated", longer("extrapolated", 1.0), few),
            Arm("space interpolated", t2i, pictures),
            Arm("space extrapolated", wider, pictures),
        ),
        (
            Outcome("words.loss", "time interpolated", "time extrapolated", "lower"),
            Outcome("words.loss", "space interpolated", "space extrapolated", "lower"),
            Outcome("t2v.all_right", "time interpolated", "time extrapolated", "higher"),
            Outcome("t2v.all_right", "space interpolated", "space extrapolated", "higher"),
        ),
        ("words.loss", "t2v.colour", "t2v.shape", "t2v.direction", "t2v.one_object", "t2v.continuity"),
    )


RATES = (5e-3, 2e-2, 8e-2)
"""Peaks of the learning rate at which stability is compared."""


def _norms(plan: Plan) -> Comparison:
    kinds = {
        "both norms": {},
        "no QK-norm": {"qk_norm": False},
        "no sandwich norm": {"sandwich_norm": False},
        "neither": {"qk_norm": False, "sandwich_norm": False},
    }
    arms = tuple(
        Arm(
            f"{name}, {rate:g}",
            plan.images(f"t2i, {name}, {rate:g}", 6, batch=32, rate=rate, decay=0.0, model=_with(**off)),
            WORDS,
        )
        for rate in RATES
        for name, off in kinds.items()
    )
    high, low = RATES[1], RATES[0]
    return Comparison(
        "i",
        "QK-norm and sandwich norm under a high learning rate",
        "Norms of queries and keys, and after each sub-layer, keep training stable at higher learning rates "
        "(section 3.1; Tab. 2)",
        arms,
        (
            Outcome("words.loss", f"both norms, {high:g}", f"neither, {high:g}", "lower"),
            Outcome("words.loss", f"both norms, {high:g}", f"no QK-norm, {high:g}", "lower"),
            Outcome("words.loss", f"both norms, {high:g}", f"no sandwich norm, {high:g}", "lower"),
            Outcome("words.loss", f"both norms, {low:g}", f"neither, {low:g}", "lower"),
            Outcome("words.loss", f"both norms, {RATES[2]:g}", f"neither, {RATES[2]:g}", "lower"),
        ),
        ("words.loss",),
    )


def _named(looks: Iterable[Look]) -> dict[str, Look]:
    return {look.name: look for look in looks}


def _with(**changes: object) -> ModelSettings:
    return MODEL.model_copy(update=changes)


def _rotary(**scales: float) -> ModelSettings:
    return _with(positions=ROTARY.model_copy(update=scales))
