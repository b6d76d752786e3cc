"""What a captioner is: it says something of a clip, or why it has nothing to say; and the text beside a video."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tasks.chat.answers import Answer


class Said(NamedTuple):
    """What a captioner says of one clip, before it is cleaned and judged."""

    text: str | None
    """The caption; None where there is none, and `reason` says why."""
    short: str | None = None
    """A caption of one sentence; None has it taken from `text`."""
    raw: str | None = None
    """All of what came, where that is more than `text`: a model's whole answer."""
    reason: str | None = None
    """One of `outcomes.REASONS` where there is no caption."""
    rules: tuple[str, ...] = ()
    """Rules of cleaning that were applied to what came before `text` was found in it."""


class Captioner(Protocol):
    """Writes captions for clips, many at a time."""

    name: str
    """Its name in `captions.captioners`, and in the column captioner."""
    columns: Sequence[str]
    """Of schema CLIPS, those that it reads."""
    made_with: Mapping[str, Any]
    """What a row says of its model, by the names of its columns; nothing without one."""

    def caption(self, clips: list[dict[str, Any]]) -> list[Said | None]:
        """Return one caption per clip, None where it has none.

        Args:
            clips: rows of schema CLIPS with the id and `columns`; they may have more.
        """


@runtime_checkable
class Asks(Protocol):
    """A captioner whose model's answers are stored."""

    def answered(self, clips: Sequence[str]) -> dict[str, list[Answer]]:
        """Return what the model has answered about these clips already; of a clip without an answer, nothing.

        Args:
            clips: ids.

        Raises:
            FileNotFoundError, ValueError: there are no stills.
        """


class Sidecar:
    """The text that lies beside the video: it is of the whole video, and becomes the caption of each of its clips."""

    name = "sidecar"
    columns: Sequence[str] = ("caption",)
    made_with: Mapping[str, Any] = MappingProxyType({})

    def caption(self, clips: list[dict[str, Any]]) -> list[Said | None]:
        """Return the text of every clip that has one."""
        return [Said(clip["caption"]) if clip["caption"] else None for clip in clips]
