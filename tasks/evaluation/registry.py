"""All metrics, features and alarms. Whoever adds one puts the table of his module here."""

from collections.abc import Callable, Sequence

from tasks.evaluation import judged
from tasks.evaluation.card import Alarm, Dimension
from tasks.evaluation.metrics import Features, Metric, SetMetric
from tasks.evaluation.settings import EvaluationSettings

METRICS: tuple[Metric, ...] = (*judged.METRICS,)
FEATURES: tuple[Features, ...] = ()
SET_METRICS: tuple[SetMetric, ...] = ()
ALARMS: tuple[Callable[[Sequence[Dimension], EvaluationSettings], list[Alarm]], ...] = ()
"""Each looks at the dimensions, and says of every group whether it fires."""
