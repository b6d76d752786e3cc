"""The score card: what was measured of which videos, by whom made, and how; sealed.

Two equal evaluations have the same card, byte for byte: it has no times and no paths in it.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_serializer, field_validator

FILE: Final = "card.json"
SCHEMA: Final = "stiv-card/1"
_ALL = "all"
Status = Literal["ok", "not_installed", "not_applicable", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Dimension(_Part):
    """One figure."""

    name: str
    group: str = ""
    """Of which videos, such as `t2v held_out`; empty: of all."""
    value: float | None
    """None unless ok."""
    unit: str | None
    better: Literal["higher", "lower"] | None
    n: int
    """Videos that it was computed from."""
    low: float | None = None
    high: float | None = None
    """95 % interval: Wilson's of shares, Student's t of means, a bootstrap's of what is computed from a set."""
    status: Status = "ok"
    reason: str | None = None
    protocol: dict[str, JsonValue] = Field(default_factory=dict)
    """Belongs to the figure: extractor, reference, parameters. Figures of two protocols are not compared."""


class Alarm(_Part):
    """A rule that tells of a model that is broken in a way that figures hide."""

    name: str
    group: str = ""
    state: Literal["fires", "quiet", "not_applicable"]
    rule: str
    """In words, with its threshold."""
    found: str
    """What it found, in words."""


class Suite(_Part):
    """What was asked for."""

    name: str
    """shapes, videos, prompts; or vbench."""
    sha256: str
    """Of what all its entries ask for, in order, without the videos."""
    convention: str | None = None
    """How dimensions become a total, such as VBench's t2v, i2v_repo, i2v_2024."""
    prompts_sha256: str | None = None
    prompts_are_rewritten: bool | None = None
    seeds: str | None = None
    """The rule by which each video has its seed, or the hash of all seeds."""


class Model(_Part):
    """What made the videos; all None where nobody knows, as of a folder of videos."""

    weights: dict[str, str] | None = None
    """The sha256 of each file of weights, by what the file is."""
    recipes: dict[str, str] | None = None
    """The last recipe that each was trained by."""
    sampler: dict[str, JsonValue] | None = None
    """Solver, steps, guidance and scales."""
    precision: str | None = None
    machine: "Machine | None" = None
    """On which the videos were made."""


class Videos(_Part):
    """What all videos have in common."""

    height: int | None
    width: int | None
    frames: int | None
    fps: float | None
    pixels: Literal["arrays", "file"] | None
    """Where the measured pixels come from: the arrays that the model made, or a file that was compressed."""
    codec: str | None = None
    crf: float | None = None
    corpus: str | None = None
    """Of the suite shapes: the hash of how clips of its corpus look."""


class Machine(_Part):
    """On what something was computed."""

    device: str
    driver: str | None
    kernels: dict[str, JsonValue] | None
    """What decides torch's last bits: threads, TF32, determinism; None where torch computed nothing."""
    versions: dict[str, str]


class Accounted(_Part):
    """given = ok + rejected + failed."""

    given: int
    ok: int
    rejected: int
    failed: int
    reasons: dict[str, int]


class Unmeasured(_Part):
    """A video that is not in the figures, and why."""

    id: str
    status: Literal["rejected", "failed"]
    reason: str


class Values(_Part):
    """The file of values per video, beside the card."""

    file: str
    sha256: str


class Seal(_Part):
    """Over the canonical JSON of everything else."""

    sha256: str
    hmac_sha256: str | None = None


class Card(_Part):
    """The content of card.json."""

    schema_: str = Field(alias="schema", default=SCHEMA)
    suite: Suite
    model: Model
    videos: Videos
    machine: Machine
    """On which they were measured."""
    account: Accounted
    not_measured: list[Unmeasured]
    dimensions: list[Dimension]
    alarms: list[Alarm]
    values: Values | None
    """None where there are none, as of VBench's results."""
    seal: Seal

    @field_validator("dimensions", mode="before")
    @classmethod
    def from_groups(cls, value: Any) -> Any:
        """Take them as the file has them: group, name, figure. That way DVC shows and compares them."""
        if not isinstance(value, dict):
            return value
        return [
            {"name": name, "group": "" if group == _ALL else group, **figure}
            for group, figures in value.items()
            for name, figure in figures.items()
        ]

    @field_serializer("dimensions")
    def by_groups(self, value: list[Dimension]) -> dict[str, Any]:
        """Return them as the file has them."""
        found: dict[str, Any] = {}
        for one in value:
            found.setdefault(one.group or _ALL, {})[one.name] = one.model_dump(mode="json", exclude={"name", "group"})
        return found

    def of(self, name: str, group: str = "") -> Dimension | None:
        """Return one dimension."""
        return next((one for one in self.dimensions if (one.name, one.group) == (name, group)), None)


def as_content(card: Card) -> dict[str, Any]:
    """Return a card as JSON has it."""
    return card.model_dump(mode="json", by_alias=True)
