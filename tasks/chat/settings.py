"""Settings of a model that is asked over HTTP. Values live in params.yaml, types here."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stiv_model.settings import Settings

PromptFile = Annotated[str, Field(pattern=r"^prompts/\w[\w-]*(\.\w+)*$")]
"""A file in the folder prompts."""


class EndpointSettings(Settings):
    """A model behind one or several servers of Chat Completions: vLLM, SGLang, lmdeploy, `transformers serve`."""

    urls: Annotated[tuple[Annotated[str, Field(pattern=r"^https?://[^\s?#]+[^\s?#/]$")], ...], Field(min_length=1)]
    """Where the servers are, such as http://localhost:8000/v1; the one with the fewest requests under way is asked."""
    model: Annotated[str, Field(min_length=1)]
    """Name of the model, as the servers know it."""
    answers_as: str | None
    """Name by which the servers' answers call the model, where that is another; null: `model`. An answer of any other
    is malformed."""
    api_key_variable: Annotated[str, Field(pattern="^[A-Z_][A-Z0-9_]*$")] | None
    """Environment variable with the key that the servers ask for; null: none. The key itself is written nowhere."""
    in_flight: PositiveInt
    """Requests under way at each server at a time, of each process of the stage."""
    request_seconds: PositiveFloat
    """Time limit of one request."""
    item_seconds: PositiveFloat
    """Time limit of all attempts at one item together, from the first on, waits included."""
    attempts: PositiveInt
    """Requests for one item at most. Tried again is what may pass: 408, 409, 429, 5xx, a lost connection, a time limit,
    a body that is no answer; never 400, 401, 403, 404 or 422."""
    backoff_seconds: PositiveFloat
    """Wait before the second attempt, doubled before each further one, less up to a half by chance; where the server
    says Retry-After, at least as long."""
    max_retry_fraction: NonNegativeFloat
    """Further attempts of all items together, for each request for the first time (and 50): with those spent, what
    fails is not tried again."""
    max_answer_bytes: PositiveInt
    """Largest body of an answer that is read; a longer one is too_long."""

    @model_validator(mode="after")
    def an_item_has_time_for_a_request(self) -> Self:
        """Refuse a time limit of all attempts that is shorter than that of one."""
        if self.item_seconds < self.request_seconds:
            raise ValueError(
                f"item_seconds is {self.item_seconds}, but request_seconds is {self.request_seconds}: one request may "
                "take all of an item's time, so set it to that or more"
            )
        return self

    @property
    def answering_model(self) -> str:
        """The model's name in the servers' answers."""
        return self.answers_as or self.model


class PromptedSettings(Settings):
    """A model behind servers of Chat Completions that is asked by one prompt."""

    endpoint: EndpointSettings
    """The servers, and how they are asked."""
    prompt: PromptFile
    """File with the prompt, in the folder prompts."""
    temperature: NonNegativeFloat
    """0 takes the likeliest word; more draws."""
    seed: NonNegativeInt
    """For servers that draw."""
    max_tokens: PositiveInt
    """Tokens that an answer may have, thoughts included."""
