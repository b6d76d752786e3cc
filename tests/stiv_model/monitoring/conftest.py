from pathlib import Path

import pytest

from flows.params import load_params
from stiv_model.settings import TrainingSettings


@pytest.fixture
def training() -> TrainingSettings:
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    return params.training.model_copy(update={"device": "cpu", "precision": "float32"})


@pytest.fixture
def deep(settings):
    """Several blocks of each kind, since only one of each is executed for counting."""
    return settings.model_copy(update={"depth": 3, "unmasked_depth": 2})
