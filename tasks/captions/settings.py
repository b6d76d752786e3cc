"""Settings of the stage captions. Values live in params.yaml, types here."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from stiv_model.settings import Fraction, Settings

Language = Annotated[str, Field(pattern="^[a-z]{2,3}$")]

Rule = Literal["mojibake", "thinking", "markdown", "prefix", "quotes", "limits"]
"""Rules of cleaning that may be left out."""


class CheckSettings(Settings):
    """What a caption must be like, after cleaning, to be trained on."""

    min_letters: PositiveInt
    """Letters that a caption has at least; one with fewer is failed as too_short."""
    max_letters: PositiveInt
    """Letters that it has at most; one with more is failed as too_long, and not cut: half a caption would be trained
    on."""
    min_letter_fraction: Fraction
    """Share of letters among all signs but spaces; one with less is failed as not_text."""
    max_repeated: Fraction
    """Share of its phrases of four words that were said before in it; one with more is failed as repetition."""
    languages: Annotated[tuple[Language, ...], Field(min_length=1)]
    """Languages that a caption may be in, by ISO 639-1; looked at in texts of 20 letters and more."""
    other_languages: tuple[Language, ...]
    """Languages that those are told apart from: a text that is likely in one of these is failed as language. Few are
    told apart more surely than all."""
    max_same: PositiveInt
    """Clips that may have the same text by a model; where more have it, all of them are failed as duplicate."""


class CaptionSettings(Settings):
    """Who writes captions, what is taken out of them, and what they must be like."""

    captioners: Annotated[list[Literal["sidecar", "describe"]], Field(min_length=1)]
    """sidecar: the text beside the video; describe: words for what was measured. The first that has a text for a clip
    captions it, and the row names it."""
    clean: tuple[Rule, ...]
    """What is taken out of captions: wrong encodings (mojibake), what a model thought before it answered, markdown,
    openings such as "The video shows" (prefix), quotation marks around the whole, sentences about what the caption
    cannot do (limits). Signs that nobody sees and surplus spaces always are."""
    checks: CheckSettings
    """What a caption must be like to be trained on."""
    max_failed_fraction: Fraction
    """The stage fails when a larger share of the clips has no caption."""
    shard_clips: PositiveInt
    """Clips captioned together, as one shard of work."""

    @model_validator(mode="after")
    def nobody_is_asked_twice(self) -> Self:
        """Refuse two captioners of one name: a row could not say which of them wrote it."""
        if len(set(self.captioners)) < len(self.captioners):
            raise ValueError(f"captions.captioners is {self.captioners}: name each of them once")
        return self
