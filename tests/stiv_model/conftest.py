from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from stiv_model.network.conditions import MICRO_CONDITIONS
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import ModelSettings, RecipeSettings, Run, TrainingSettings
from tests.stiv_model import runs
from tests.stiv_model.ranks import Forkserver


@pytest.fixture(scope="session")
def settings() -> ModelSettings:
    return runs.SETTINGS


@pytest.fixture(scope="session")
def recipe() -> RecipeSettings:
    return runs.RECIPE


@pytest.fixture(scope="session")
def training() -> TrainingSettings:
    return runs.TRAINING


@pytest.fixture(scope="session")
def prepare() -> Callable[..., Run]:
    return runs.prepare


@pytest.fixture(scope="session")
def forkserver() -> Iterator[Forkserver]:
    """Where ranks come from that are ready at once."""
    server = Forkserver(runs.TRAINING)
    yield server
    server.close()


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    """A latents folder with 10 clips of 4 frames in two shards."""
    return runs.make_latents(tmp_path / "latents", clips=(6, 4))


@pytest.fixture
def inputs():
    """Noisy latents of 3 samples, 4 frames, 8 x 8, with their conditions."""
    torch.manual_seed(0)
    micro = torch.rand(3, len(MICRO_CONDITIONS)) * 100
    return torch.randn(3, 4, 4, 8, 8), torch.rand(3), runs.random_text(3), micro


@pytest.fixture
def lively(settings: ModelSettings) -> Callable[..., StivTransformer]:
    """Build a model none of whose weights is zero: as initialised, whole branches are silent."""

    def build(is_video: bool, **changes) -> StivTransformer:
        torch.manual_seed(1)
        model = StivTransformer(settings.model_copy(update=changes), is_video)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return build
