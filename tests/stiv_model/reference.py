# ruff: noqa: N815 (arrays carry their shape as a suffix, here too)
"""The network once more, in plain loops over float64 numbers: from the paper's equations, without our layers.

Slow on purpose: one sample, token, head and key at a time, as the equations are printed. Weights come from a state_dict
by name. Every token carries its row, column and moment, so that what is dropped cannot move what is kept.

Shapes: F latent frames, C channels, T temporal tokens, S spatial tokens, L text tokens, D width, E width of the
text features, M micro-conditions; `head` and `x` are vectors.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stiv_model.settings import ModelSettings, RotarySettings

Array = np.ndarray
Weights = dict[str, Array]
Turn = Callable[[Array], Array]


class Sample(NamedTuple):
    """One sample and its conditions."""

    x_FCHW: Array
    time: float
    tokens_LE: Array
    is_text_L: Array
    pooled_E: Array
    micro_M: Array
    given_FCHW: Array
    is_clean_F: Array
    """Given frames that cross-attention shows; all False where there are none."""
    places: list[int] | None
    """Kept places, None for all; likewise the moments."""
    moments: list[int] | None


class Shared(NamedTuple):
    """What all blocks of one forward pass share."""

    settings: ModelSettings
    is_video: bool
    singleton_D: Array
    seen: list[Array]
    """What cross-attention sees: one vector per text token that is not padding, then per patch of given frames."""
    modulation: Weights
    """Of the shared AdaLN; empty if each block has its own."""


def under(weights: Weights, prefix: str) -> Weights:
    """Return the weights whose names begin with `prefix` and a dot, without it."""
    return {name.removeprefix(prefix + "."): w for name, w in weights.items() if name.startswith(prefix + ".")}


def linear(weights: Weights, name: str, x: Array) -> Array:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def layer_norm(x: Array, epsilon: float) -> Array:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / math.sqrt(variance + epsilon)


def rms_norm(x: Array, scale: Array, epsilon: float) -> Array:
    return scale * x / math.sqrt(sum(value**2 for value in x) / len(x) + epsilon)


def silu(x: Array) -> Array:
    return np.array([value / (1 + math.exp(-value)) for value in x])


def gelu_tanh(x: Array) -> Array:
    return np.array([0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x])


def sinusoid(number: float, width: int) -> Array:
    """Cosines, then sines, of the number at frequencies 10000^(-i / half)."""
    half = width // 2
    turns = [number * 10_000 ** (-i / half) for i in range(half)]
    return np.array([math.cos(turn) for turn in turns] + [math.sin(turn) for turn in turns])


def turned(x: Array, position: float, base: float) -> Array:
    """Rotary positions in one dimension: the i-th pair of neighbours turns by position * base^(-2i / size)."""
    out = np.empty_like(x)
    for i in range(len(x) // 2):
        angle = position * base ** (-2 * i / len(x))
        a, b = x[2 * i], x[2 * i + 1]
        out[2 * i] = a * math.cos(angle) - b * math.sin(angle)
        out[2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def turned_in_space(x: Array, row: float, column: float, base: float) -> Array:
    """Half of the head turns with the row, half with the column."""
    half = len(x) // 2
    return np.concatenate([turned(x[:half], row, base), turned(x[half:], column, base)])


def attend(query: Array, keys: list[Array], values: list[Array]) -> Array:
    """Scaled dot-product attention of one query of one head."""
    scores = [float(query @ key) / math.sqrt(len(query)) for key in keys]
    weights = [math.exp(score - max(scores)) for score in scores]
    return np.sum([weight / sum(weights) * value for weight, value in zip(weights, values, strict=True)], axis=0)


def qk_normed(weights: Weights, settings: ModelSettings, which: str, head: Array) -> Array:
    if not settings.qk_norm:
        return head
    return rms_norm(head, weights[f"qk_norm.{which}.weight"], settings.norm_epsilon)


def self_attention(
    weights: Weights, settings: ModelSettings, tokens: list[Array], turns: list[Turn], sees: Callable[[int, int], bool]
) -> list[Array]:
    """Attention among some tokens; `turns` rotates a head of each, `sees(i, j)` says whether token i sees token j."""
    q, k, v = [], [], []
    for token, turn in zip(tokens, turns, strict=True):
        query, key, value = np.split(linear(weights, "qkv", token), 3)
        q.append([turn(qk_normed(weights, settings, "query", head)) for head in np.split(query, settings.heads)])
        k.append([turn(qk_normed(weights, settings, "key", head)) for head in np.split(key, settings.heads)])
        v.append(np.split(value, settings.heads))
    out = []
    for i in range(len(tokens)):
        seen = [j for j in range(len(tokens)) if sees(i, j)]
        heads = [attend(q[i][n], [k[j][n] for j in seen], [v[j][n] for j in seen]) for n in range(settings.heads)]
        out.append(linear(weights, "out", np.concatenate(heads)))
    return out


def cross_attention(weights: Weights, settings: ModelSettings, token: Array, seen: list[Array]) -> Array:
    query = np.split(linear(weights, "query", token), settings.heads)
    q = [qk_normed(weights, settings, "query", head) for head in query]
    k, v = [], []
    for other in seen:
        key, value = np.split(linear(weights, "key_value", other), 2)
        k.append([qk_normed(weights, settings, "key", head) for head in np.split(key, settings.heads)])
        v.append(np.split(value, settings.heads))
    heads = [attend(q[n], [key[n] for key in k], [value[n] for value in v]) for n in range(settings.heads)]
    return linear(weights, "out", np.concatenate(heads))


def feed_forward(weights: Weights, x: Array) -> Array:
    return linear(weights, "2", gelu_tanh(linear(weights, "0", x)))


def space_turns(settings: ModelSettings, places: list[tuple[int, int]]) -> list[Turn]:
    """Return what rotates a head of a token at each place (row, column); learned positions rotate nothing."""
    at = settings.positions
    if not isinstance(at, RotarySettings):
        return [lambda head: head for _ in places]
    scale, base = at.spatial_scale, at.base
    return [lambda head, r=row, c=column: turned_in_space(head, scale * r, scale * c, base) for row, column in places]


def time_turns(settings: ModelSettings, moments: list[int]) -> list[Turn]:
    at = settings.positions
    if not isinstance(at, RotarySettings):
        return [lambda head: head for _ in moments]
    scale, base = at.temporal_scale, at.base
    return [lambda head, m=moment: turned(head, scale * m, base) for moment in moments]


def block(weights: Weights, shared: Shared, x_TSD: Array, places: list[tuple[int, int]], moments: list[int]) -> Array:
    """One block on tokens at these places and moments: sandwich, scale, shift, gate (paper, section 2.1)."""
    settings, video, epsilon = shared.settings, shared.is_video, shared.settings.norm_epsilon
    x, count_T, count_S = x_TSD.copy(), *x_TSD.shape[:2]
    is_modulated_in_time = video and settings.temporal_modulation
    adaln = shared.modulation or under(weights, "modulation")
    parts = np.split(linear(adaln, "linear", silu(shared.singleton_D)), 9 if is_modulated_in_time else 6)
    (shift_s, scale_s, gate_s), (shift_f, scale_f, gate_f) = parts[0:3], parts[3:6]

    def after(y: Array) -> Array:
        return layer_norm(y, epsilon) if settings.sandwich_norm else y

    spatial = under(weights, "spatial_attention")
    for t in range(count_T):
        tokens = [(1 + scale_s) * layer_norm(x[t, s], epsilon) + shift_s for s in range(count_S)]
        out = self_attention(spatial, settings, tokens, space_turns(settings, places), lambda i, j: True)
        for s in range(count_S):
            x[t, s] += gate_s * after(out[s])

    if video:
        shift_t, scale_t, gate_t = parts[6:9] if is_modulated_in_time else (0, 0, weights["temporal_gain"])
        temporal = under(weights, "temporal_attention")
        for s in range(count_S):
            tokens = [(1 + scale_t) * layer_norm(x[t, s], epsilon) + shift_t for t in range(count_T)]
            turns = time_turns(settings, moments)
            out = self_attention(temporal, settings, tokens, turns, lambda i, j: j <= i or not settings.causal_time)
            for t in range(count_T):
                x[t, s] += gate_t * after(out[t])

    cross, ffn = under(weights, "cross_attention"), under(weights, "ffn")
    for t, s in np.ndindex(count_T, count_S):
        if settings.cross_attention_norm:
            y = cross_attention(cross, settings, layer_norm(x[t, s], epsilon), shared.seen)
            x[t, s] += layer_norm(y, epsilon)
        else:
            x[t, s] += cross_attention(cross, settings, x[t, s], shared.seen)
        y = feed_forward(ffn, (1 + scale_f) * layer_norm(x[t, s], epsilon) + shift_f)
        x[t, s] += gate_f * after(y)
    return x


def patches(x_FCHW: Array, temporal_patch: int, patch: int) -> Array:
    """Cut latent frames into tokens (T, S, values): frame, channel, row, column within the patch, in this order."""
    frames, channels, height, width = x_FCHW.shape
    tokens = []
    for first in range(0, frames, temporal_patch):
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                values = np.ndindex(temporal_patch, channels, patch, patch)
                tokens.append([x_FCHW[first + a, c, top + i, left + j] for a, c, i, j in values])
    return np.array(tokens).reshape(frames // temporal_patch, -1, len(tokens[0]))


def frames_of(tokens_TSV: Array, like_FCHW: Array, temporal_patch: int, patch: int) -> Array:
    """Put tokens back into latent frames; `patches` undone."""
    out, columns = np.empty_like(like_FCHW), like_FCHW.shape[3] // patch
    for f, c, y, x in np.ndindex(*out.shape):
        value = ((f % temporal_patch * out.shape[1] + c) * patch + y % patch) * patch + x % patch
        out[f, c, y, x] = tokens_TSV[f // temporal_patch, y // patch * columns + x // patch, value]
    return out


def singleton(weights: Weights, settings: ModelSettings, sample: Sample) -> Array:
    """Timestep, micro-conditions and pooled text: each projected, normed, then summed (paper, section 2.1)."""

    def embedded(name: str, x: Array) -> Array:
        own = under(weights, name)
        return linear(own, "2", silu(linear(own, "0", x)))

    parts = [embedded("timestep", sinusoid(1000 * sample.time, 256)), linear(weights, "pooled_text", sample.pooled_E)]
    if settings.micro_conditions:
        parts.append(embedded("micro", np.concatenate([sinusoid(value, 256) for value in sample.micro_M])))
    return sum(layer_norm(part, settings.norm_epsilon) if settings.condition_norm else part for part in parts)


def seen_by_cross_attention(weights: Weights, settings: ModelSettings, sample: Sample) -> list[Array]:
    """Text tokens without the padding, then the patches of given frames with sinusoids of where they are."""
    epsilon, patch = settings.norm_epsilon, settings.spatial_patch
    seen = [
        layer_norm(linear(weights, "text_in", token), epsilon)
        for token, is_text in zip(sample.tokens_LE, sample.is_text_L, strict=True)
        if is_text
    ]
    if settings.image_condition != "replacement":
        columns, third = sample.given_FCHW.shape[3] // patch, settings.width // 6 * 2
        for frame, tokens in enumerate(patches(sample.given_FCHW, 1, patch)):
            for place, token in enumerate(tokens if sample.is_clean_F[frame] else []):
                where = np.zeros(settings.width)
                for axis, number in enumerate((frame, place // columns, place % columns)):
                    where[axis * third : (axis + 1) * third] = sinusoid(number, third)
                seen.append(layer_norm(linear(weights, "given_in", token), epsilon) + where)
    return seen


def shared_by_blocks(weights: Weights, settings: ModelSettings, is_video: bool, sample: Sample) -> Shared:
    seen = seen_by_cross_attention(weights, settings, sample)
    return Shared(settings, is_video, singleton(weights, settings, sample), seen, under(weights, "modulation"))


def transformer(weights: Weights, settings: ModelSettings, is_video: bool, sample: Sample) -> Array:
    """The whole network (F, C, H, W): main blocks on kept tokens, mask tokens, unmasked blocks, last layer."""
    patch, temporal_patch = settings.spatial_patch, settings.temporal_patch if is_video else 1
    columns = sample.x_FCHW.shape[3] // patch
    tokens = patches(sample.x_FCHW, temporal_patch, patch)
    x_TSD = np.array([[linear(weights, "patch_in", token) for token in moment] for moment in tokens])
    every_moment, every_place = list(range(x_TSD.shape[0])), list(range(x_TSD.shape[1]))
    if not isinstance(settings.positions, RotarySettings):
        for t, s in np.ndindex(*x_TSD.shape[:2]):
            x_TSD[t, s] += weights["places"][s // columns, s % columns]
            x_TSD[t, s] += weights["moments"][t] if is_video else 0
    shared = shared_by_blocks(weights, settings, is_video, sample)

    def run(blocks: str, count: int, x: Array, places: list[int], moments: list[int]) -> Array:
        where = [(place // columns, place % columns) for place in places]
        for number in range(count):
            x = block(under(weights, f"{blocks}.{number}"), shared, x, where, moments)
        return x

    places = every_place if sample.places is None else sample.places
    moments = every_moment if sample.moments is None else sample.moments
    kept = run("main_blocks", settings.depth, x_TSD[np.ix_(moments, places)], places, moments)
    x_TSD = np.array([[weights["mask_token"] for _ in every_place] for _ in every_moment])
    for t, moment in enumerate(moments):
        for s, place in enumerate(places):
            x_TSD[moment, place] = kept[t, s]
    x_TSD = run("unmasked_blocks", settings.unmasked_depth, x_TSD, every_place, every_moment)

    shift, scale = np.split(linear(under(weights, "last_modulation"), "1", silu(shared.singleton_D)), 2)
    out = [
        [linear(weights, "patch_out", (1 + scale) * layer_norm(x, settings.norm_epsilon) + shift) for x in moment]
        for moment in x_TSD
    ]
    return frames_of(np.array(out), sample.x_FCHW, temporal_patch, patch)
