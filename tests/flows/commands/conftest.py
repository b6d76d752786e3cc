"""Weights of no training, of the size of tests/params.yaml, as a checkpoint and as a pipeline folder."""

import shutil
from pathlib import Path

import pytest
import torch

from flows.__main__ import main
from flows.params import load_params
from stiv_model.network.transformer import StivTransformer
from stiv_model.weights import files

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a video model none of whose weights is zero."""
    settings = load_params(ROOT / "tests/params.yaml").model
    torch.manual_seed(0)
    model = StivTransformer(settings, is_video=True)
    weights = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in model.state_dict().items()}
    folder = tmp_path_factory.mktemp("trained") / "unmask_sft"
    files.save(folder, weights.items(), settings, is_video=True)
    return folder


@pytest.fixture(scope="session")
def named(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `stiv export --text-encoder named` makes of the checkpoint."""
    here = tmp_path_factory.mktemp("exporting")
    shutil.copy(ROOT / "tests/params.yaml", here / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        asked = ["--text-encoder", "named", "--set", "sampler.steps=2"]
        main(["export", "--checkpoint", str(checkpoint), "--out", "pipelines/small", *asked])
    return here / "pipelines/small"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with params.yaml, in which the command runs."""
    shutil.copy(ROOT / "tests/params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path
