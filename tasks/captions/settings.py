"""Settings of the stage captions. Values live in params.yaml, types here."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, Tag, model_validator

from stiv_model.settings import Device, Fraction, Precision, Settings
from tasks.chat.settings import EndpointSettings, PromptFile

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


class CaptionerSettings(Settings):
    """What every captioner that looks at stills has, wherever its model runs."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
    """Its name in the column captioner."""
    frames: PositiveInt
    """Stills of a clip that the model sees, evenly spread; all of a clip that has fewer. `shots.stills` has as many
    or more."""


class AskedSettings(CaptionerSettings):
    """A video-language model that is asked with prompts, and writes one dense caption, and a short one."""

    kind: Literal["video_llm", "frames_llm"]
    """video_llm: all frames of a clip in one question; frames_llm: a question for each frame, and one more that merges
    the answers, of which nobody has seen the clip (the paper's rejected baseline)."""
    prompt: PromptFile
    """File with the prompt, in the folder prompts; {frames} in it becomes the number of frames. Every row has its
    hash. Of frames_llm, it is about one frame, and answered with a text in any case."""
    merge_prompt: PromptFile | None = None
    """Of frames_llm, and of it alone: file with the prompt that merges; {captions} in it becomes the captions of the
    frames, numbered, one in a line."""
    answer: Literal["json", "text"]
    """json: an object of two texts, `text` and `short`, is asked for (response_format) and anything else is malformed;
    text: the answer is the caption, and its first sentence the short one."""
    max_tokens: PositiveInt
    """Tokens that an answer may have, thoughts included."""

    @model_validator(mode="after")
    def a_merge_is_asked_for_where_there_is_one(self) -> Self:
        """Refuse a merge without its prompt, and the prompt without a merge."""
        if (self.kind == "frames_llm") != (self.merge_prompt is not None):
            raise ValueError(
                f"merge_prompt is {self.merge_prompt}, but kind is {self.kind}: frames_llm has a merge_prompt, such "
                "as prompts/merge.txt, and video_llm none"
            )
        return self


class EndpointCaptionerSettings(AskedSettings):
    """A video-language model behind servers of Chat Completions."""

    backend: Literal["endpoint"]
    """Where the model runs: behind servers of Chat Completions."""
    endpoint: EndpointSettings
    """The servers, and how they are asked."""
    temperature: NonNegativeFloat
    """0 takes the likeliest word; more draws."""
    seed: NonNegativeInt
    """For servers that draw."""


class TransformersCaptionerSettings(AskedSettings):
    """A video-language model of transformers in the stage's own process; it always says the likeliest word."""

    backend: Literal["transformers"]
    """Where the model runs: in the stage's own process, loaded once."""
    source: str
    """The model: a folder as the hub has it (safetensors, processor, template of chats), the name of a repository on
    the hub, or `package:NAME/FOLDER`. Code that it brings is never run."""
    revision: str | None
    """Commit of the hub repository, 40 digits; null for a folder or a package."""
    shown: Literal["pictures", "video"]
    """How it is shown the frames: as pictures, or as one video with their times, which not every model takes."""
    precision: Precision
    """Precision in which the model computes."""
    device: Device
    """Where it computes."""
    batch: PositiveInt
    """Questions answered at once; texts do not depend on it but by rounding."""

    @model_validator(mode="after")
    def one_frame_is_no_video(self) -> Self:
        """Refuse to show single frames as videos."""
        if self.kind == "frames_llm" and self.shown == "video":
            raise ValueError(
                "shown is video, but kind is frames_llm, which asks about single frames: set it to pictures"
            )
        return self


class EmbeddedSettings(CaptionerSettings):
    """The small captioner of the package, which takes 4 frames at most: it knows videos of `shapes`, and makes up what
    it says of others."""

    kind: Literal["video_llm", "frames_llm"]
    """video_llm: all frames of a clip together; frames_llm: each frame by itself, then one sentence of all."""
    backend: Literal["embedded"]
    """Where the model runs: in the stage itself."""


ModelCaptioner = Annotated[
    EndpointCaptionerSettings | TransformersCaptionerSettings | EmbeddedSettings, Field(discriminator="backend")
]
"""A captioner that looks at stills, told apart by where its model runs."""


def _form(written: object) -> str:
    """Say which of the two forms a captioner has, so that a wrong one is held against its own form alone."""
    return "name" if isinstance(written, str) else "model"


Captioner = Annotated[
    Annotated[Literal["sidecar", "describe"], Tag("name")] | Annotated[ModelCaptioner, Tag("model")],
    Discriminator(_form),
]


class CaptionSettings(Settings):
    """Who writes captions, what is taken out of them, and what they must be like."""

    captioners: Annotated[tuple[Captioner, ...], Field(min_length=1)]
    """sidecar: the text beside the video; describe: words for what was measured; or a model, by its own keys
    (docs/captions.md). The first that has something to say of a clip captions it, and the row names it."""
    compared: tuple[ModelCaptioner, ...]
    """Captioners whose texts nobody trains on, by the same keys: `stiv captions compare` asks them too."""
    fallback: Literal["none", "next"]
    """Who captions a clip that a model failed at: none, it is failed; next, the captioner after it in the list."""
    clean: tuple[Rule, ...]
    """What is taken out of captions: wrong encodings (mojibake), what a model thought before it answered, markdown,
    openings such as "The video shows" (prefix), quotation marks around the whole, sentences about what the caption
    cannot do (limits). Signs that nobody sees and surplus spaces always are."""
    checks: CheckSettings
    """What a caption must be like to be trained on."""
    max_failed_fraction: Fraction
    """The stage fails when a larger share of the clips has no caption."""
    max_cut_fraction: Fraction
    """The gate fails when a larger share of the captions has more than `text.tokens` tokens, and would be cut."""
    shard_clips: PositiveInt
    """Clips captioned together, as one shard of work."""

    @model_validator(mode="after")
    def nobody_is_asked_twice(self) -> Self:
        """Refuse two captioners of one name: a row could not say which of them wrote it."""
        names = [name_of(captioner) for captioner in self.captioners]
        if twice := sorted(name for name in set(names) if names.count(name) > 1):
            raise ValueError(f"captions.captioners has {twice[0]} twice: a row would not say which of them wrote it")
        names += [captioner.name for captioner in self.compared]
        if twice := sorted(name for name in set(names) if names.count(name) > 1):
            raise ValueError(
                f"captions.compared has {twice[0]}, which captions.captioners or captions.compared has too: give it "
                "another name, or a comparison would not say whose the text is"
            )
        return self

    @model_validator(mode="after")
    def everybody_is_asked(self) -> Self:
        """Refuse captioners after one that leaves nothing to them."""
        for captioner, after in pairwise(self.captioners):
            is_model = not isinstance(captioner, str)
            if captioner == "describe" or (is_model and self.fallback == "none"):
                why = "and captions.fallback is none" if is_model else "which has a text for every clip"
                raise ValueError(
                    f"captions.captioners has {name_of(after)} after {name_of(captioner)}, {why}: it would never be "
                    "asked"
                )
        return self

    @property
    def models(self) -> tuple[ModelCaptioner, ...]:
        """The captioners that look at stills."""
        return tuple(one for one in self.captioners if not isinstance(one, str))

    @property
    def endpoints(self) -> tuple[EndpointSettings, ...]:
        """Where models are asked."""
        return tuple(one.endpoint for one in self.captioners if isinstance(one, EndpointCaptionerSettings))


def name_of(captioner: Captioner) -> str:
    """Return the name by which rows know a captioner."""
    return captioner if isinstance(captioner, str) else captioner.name
