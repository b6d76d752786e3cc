"""What is made of image features, by an encoder that is random but real: whose scores, how often loaded, what alike."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tasks.decoding.measures import jpeg
from tasks.scores.clip_scores import ClipScores
from tasks.scores.settings import ScoreSettings
from tasks.scores.stage import Scorer
from tasks.storage import tables

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["scores"]


def settings(folder: Path, head: Path | None = None, embedding: bool = True) -> ScoreSettings:
    encoder = {"source": str(folder), "revision": None, "device": "cpu"}
    changes: dict = {"embedding": encoder if embedding else None}
    if head:
        changes["aesthetic"] = encoder | {"kind": "clip_head", "head": str(head)}
    return ScoreSettings.model_validate(PARAMS | changes)


@pytest.fixture
def head(tmp_path) -> Path:
    save_file({"head.weight": torch.randn(1, 12), "head.bias": torch.full((1,), 5.0)}, tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


def vector(scores: ClipScores, pictures: list[np.ndarray]) -> np.ndarray:
    found = np.frombuffer(scores.score(pictures)["embedding"], "<i2").astype(np.float64)
    return found / np.linalg.norm(found)


def test_an_encoder_that_both_scores_name_is_loaded_once(clip_folder, head):
    both = ClipScores(settings(clip_folder, head))
    assert len(both.encoders) == 1
    assert both.head is not None
    assert both.head.encoder is both.embedder


def test_each_score_is_what_it_is_alone(clip_folder, head, real_frames):
    both, one, other = (ClipScores(settings(clip_folder, *which)) for which in ((head,), (head, False), (None,)))
    assert both.score(real_frames) == one.score(real_frames) | other.score(real_frames)
    assert both.names() == one.names() | other.names()
    assert set(one.names()) == {"aesthetic"}


def test_a_row_names_what_made_its_embedding(clip_folder, real_frames):
    asked = settings(clip_folder)
    scorer = Scorer(asked)
    shot = dict.fromkeys(tables.SHOTS.names) | {"clip": "s", "width": 640, "height": 272}
    row = scorer.score(shot, [jpeg(frame) for frame in real_frames])
    assert set(row) == set(tables.SCORES.names)
    assert len(row["embedding"]) == 2 * 12
    embedder = ClipScores(asked).embedder
    assert embedder is not None
    assert row["embedder"] == embedder.digest
    assert scorer.names()["embedding"] == embedder.name
    assert scorer.names()["aesthetic"] == "estimator"


def changed(picture: np.ndarray) -> dict[str, np.ndarray]:
    height, width = picture.shape[:2]
    worse = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    assert worse is not None
    return {
        "smaller": cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "compressed": worse,
        "brighter": np.minimum(picture.astype(int) + 12, 255).astype(np.uint8),
        "cropped": picture[height // 20 : -height // 20, width // 20 : -width // 20],
    }


@pytest.mark.parametrize("change", ["smaller", "compressed", "brighter", "cropped"])
def test_a_changed_copy_is_more_alike_than_any_other_shot(clip_folder, real_frames, change):
    """Of the arithmetic around the encoder: one that is trained sees more, a mirrored copy for one."""
    scores = ClipScores(settings(clip_folder))
    shots = np.stack([vector(scores, [frame]) for frame in real_frames])
    copies = np.stack([vector(scores, [changed(frame)[change]]) for frame in real_frames])
    assert (copies @ shots.T).argmax(axis=1).tolist() == list(range(len(real_frames)))
