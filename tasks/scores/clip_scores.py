"""What is scored of CLIP's image features: the learnt aesthetic score, and the embedding that near-duplicates share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.scores.aesthetic_clip import ClipHead
from tasks.scores.clip_encoder import ClipEncoder
from tasks.scores.embedding import embedding
from tasks.scores.settings import ClipHeadSettings, ImageEncoderSettings, ScoreSettings


class ClipScores:
    """The scores for which an image encoder is named.

    Args:
        settings: the learnt aesthetic score, the embedding, or both: then of one pass, if both name the same encoder.

    Attributes:
        head: of the aesthetic score, None where that is an estimate.
        embedder: the encoder of the embedding, None where there is none.
        encoders: those of both, each loaded once.

    Raises:
        FileNotFoundError, ValueError: an encoder or the head is not there or not whole, as they say.
    """

    def __init__(self, settings: ScoreSettings):
        loaded: dict[tuple[str, str | None, str], ClipEncoder] = {}

        def encoder(place: str, wanted: ImageEncoderSettings) -> ClipEncoder:
            key = (wanted.source, wanted.revision, wanted.device)
            if key not in loaded:
                loaded[key] = ClipEncoder(place, wanted)
            return loaded[key]

        head = settings.aesthetic if isinstance(settings.aesthetic, ClipHeadSettings) else None
        self.head = ClipHead(head, encoder("scores.aesthetic", head)) if head else None
        self.embedder = encoder("scores.embedding", settings.embedding) if settings.embedding else None
        self.encoders = list(loaded.values())

    def names(self) -> dict[str, str]:
        """Return by what each of these scores is made, down to the weights."""
        found = {"aesthetic": self.head.name} if self.head else {}
        return found | ({"embedding": self.embedder.name} if self.embedder else {})

    def score(self, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return these scores of a shot's BGR pictures (uint8), by column."""
        features = {encoder: encoder.features(pictures) for encoder in self.encoders}
        found: dict[str, Any] = {}
        if self.head:
            found["aesthetic"] = self.head.score(features[self.head.encoder])
        if self.embedder:
            found["embedding"] = embedding(features[self.embedder].cpu().numpy())
            found["embedder"] = self.embedder.digest
        return found
