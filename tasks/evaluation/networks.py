"""Metrics whose network is named in params.yaml, by a file or a folder: without one there is no such figure."""

from functools import partial
from typing import NamedTuple

import numpy as np

from stiv_model.metrics import motion
from tasks.evaluation import moving, text_agreement
from tasks.evaluation.metrics import Evaluated, Features, Metric, SetMetric
from tasks.evaluation.settings import EvaluationSettings

RAFT, CLIP = "dynamics_raft_small", "text_p_clip"
NAMED_BY = {RAFT: "evaluation.raft_small", CLIP: "evaluation.clip"}
"""The key of params.yaml that names the network of a metric."""


class Networked(NamedTuple):
    """What the networks that are named measure."""

    metrics: tuple[Metric, ...] = ()
    features: tuple[Features, ...] = ()
    set_metrics: tuple[SetMetric, ...] = ()


def load(settings: EvaluationSettings) -> Networked:
    """Load the networks that are named.

    Raises:
        FileNotFoundError, ValueError: one is not there, or not what it should be.
    """
    metrics = () if settings.raft_small is None else (_raft(settings),)
    features, sets = ((), ()) if settings.clip is None else _clip(settings)
    return Networked(metrics, features, sets)


def _raft(settings: EvaluationSettings) -> Metric:
    from stiv_model.metrics.flow import RaftSmall  # torch: seconds

    named = settings.raft_small
    assert named is not None, "it is asked for where it is named"
    network = RaftSmall(named.weights, named.sha256, named.device)
    return Metric(
        *(RAFT, "share", None, partial(_is_dynamic, network.vectors), moving.has_rate),
        protocol={"flow": "RAFT-small", "weights_sha256": named.sha256} | moving.RULE,
        meaning="Videos that are dynamic by VBench's rule, with RAFT-small for its network: no figure of VBench.",
    )


def _is_dynamic(estimate: motion.Estimator, entry: Evaluated) -> bool:
    assert entry.fps is not None, "it applies to such entries only"
    return motion.is_dynamic(entry.video, entry.fps, estimate)


def _clip(settings: EvaluationSettings) -> tuple[tuple[Features, ...], tuple[SetMetric, ...]]:
    from tasks.evaluation.clip_text import ClipText  # torch and transformers: seconds
    from tasks.scores.clip_encoder import ClipEncoder

    named = settings.clip
    assert named is not None, "it is asked for where it is named"
    pictures, texts = ClipEncoder(NAMED_BY[CLIP], named), ClipText(NAMED_BY[CLIP], named)

    def of_video(video: np.ndarray) -> np.ndarray:
        return pictures.features([frame[..., ::-1] for frame in video]).cpu().numpy()

    features = text_agreement.by_clip(of_video, texts.features)
    return (features,), (text_agreement.set_metric(CLIP, features.name, f"CLIP model {pictures.digest}"),)
