"""Settings of the stage categories. Values live in params.yaml, types here."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from stiv_model.settings import Fraction, Settings, TextSettings
from tasks.chat.settings import PromptedSettings

OTHER = "other"
"""What a caption is that suits no category. It is always there, and not in the list."""


class Category(Settings):
    """A category of captions."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
    """Its name in the column category."""
    description: Annotated[str, Field(pattern=r"\S")]
    """What its captions are about, in words as captions have them: the encoder compares these, and a model reads
    them."""


class NearestSettings(Settings):
    """Every caption is of the category whose description is the most similar to it, by a text encoder."""

    kind: Literal["nearest"]
    """By cosine between the encoder's pooled vectors."""
    encoder: TextSettings
    """A text encoder whose pooled vectors tell of what a sentence is about, such as MiniLM; it need not be that of the
    section text. A caption longer than its tokens is cut, a description is refused."""
    min_similarity: Annotated[float, Field(ge=-1, le=1)]
    """A caption whose nearest description is less similar than this is other."""
    min_margin: NonNegativeFloat
    """A caption whose nearest description is more similar than the second nearest by less than this is other."""


class AskedSettings(PromptedSettings):
    """A model reads the caption and the list, and answers with one name, as one JSON object. {categories} in its prompt
    becomes the list, {caption} the caption."""

    kind: Literal["model"]
    """One question for each caption."""


class CategorySettings(Settings):
    """What captions are about, who says so, and how often each category is drawn."""

    by: Annotated[NearestSettings | AskedSettings, Field(discriminator="kind")] | None
    """Who decides: kind nearest, a text encoder; kind model, a model behind an endpoint; null: nobody, and no clip has
    a category."""
    listed: Annotated[tuple[Category, ...], Field(min_length=1)]
    """The categories; other, for what suits none of them, is always there beside them."""
    weights: Literal["equal"] | dict[str, PositiveFloat] | None
    """How often a training with `balance: category` draws each category: equal, or a weight for each name, other among
    them. null: no training is balanced, so that another list trains nothing again."""
    earlier_release: str | None
    """Table of categories of the last release, a copy of data/categories/categories.parquet, from which the report
    tells how far this one has drifted; null without one."""
    max_failed_fraction: Fraction
    """The stage fails when the model gives no category of the list for a larger share of the clips."""
    shard_captions: PositiveInt
    """Captions per shard."""

    @model_validator(mode="after")
    def names_differ(self) -> Self:
        """Refuse two categories of one name, and a second one for what suits none."""
        names = [category.name for category in self.listed]
        if twice := sorted(name for name in set(names) if names.count(name) > 1):
            raise ValueError(f"categories.listed has {twice[0]} twice: give each category a name of its own")
        if OTHER in names:
            raise ValueError(
                f"categories.listed has {OTHER}, which is always there for what suits none of the list: take it out, "
                "or give it a name that says what it is about"
            )
        return self

    @model_validator(mode="after")
    def weights_are_of_the_list(self) -> Self:
        """Refuse weights of categories that are not there, categories without one, and weights that nobody needs."""
        if self.weights is not None and self.by is None:
            raise ValueError("categories.weights is set, but categories.by is null: no clip has a category to weigh")
        if isinstance(self.weights, dict):
            if unknown := sorted(self.weights.keys() - self.names):
                raise ValueError(f"categories.weights has {unknown[0]}, which is none of {', '.join(self.names)}")
            if missing := [name for name in self.names if name not in self.weights]:
                raise ValueError(
                    f"categories.weights has no {missing[0]}: give every category of the list, and {OTHER}, a weight"
                )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all categories, that for what suits none last."""
        return (*(category.name for category in self.listed), OTHER)

    def weight(self, category: str | None) -> float | None:
        """Return how often a category is drawn, beside the others; None where no weights are set."""
        if self.weights is None or category is None:
            return None
        return 1.0 if self.weights == "equal" else self.weights[category]
