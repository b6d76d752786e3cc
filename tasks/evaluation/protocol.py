"""What belongs to a Fréchet distance: two figures of different protocols say nothing about each other."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Pixels = Literal["arrays", "file"]


class Protocol(BaseModel):
    """How features of clips came about. Arrays do not say a rate: it is None unless somebody does."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    extractor: str
    extractor_sha256: str
    resize: str
    """From the clips' size to that of the network."""
    frames: int
    stride: int
    """Distance of the frames of a clip in its video; what arrays hold is taken as it is: 1."""
    clips_per_video: int
    """At most, one after the other from a video's first frame on."""
    height: int
    width: int
    fps: float | Literal["any"] | None
    """Of the videos, before `stride`; any: they may differ, as somebody said."""
    pixels: Pixels
    codec: str | None
    """Of files; any: they may differ."""
    crf: float | None
    """libx264's rate factor, where the files say it."""
    corpus: str | None = None
    """Of the corpus `shapes`: the hash of how its clips look. Not compared with what does not say."""

    def refuse_unlike(self, other: "Protocol", ours: str, theirs: str) -> None:
        """Refuse to compare features of this protocol with those of another.

        Args:
            ours, theirs: what the two are called in the message.

        Raises:
            ValueError: with every field that differs.
        """
        mine, others = self.model_dump(), other.model_dump()
        if self.corpus is None or other.corpus is None:
            del mine["corpus"], others["corpus"]
        unlike = [f"{name} {value} and {others[name]}" for name, value in mine.items() if value != others[name]]
        if unlike:
            raise ValueError(
                f"{ours} and {theirs} are not of one kind, and a distance would measure that: {'; '.join(unlike)}"
            )
