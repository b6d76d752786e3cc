"""What a recipe will do with its data, worked out before any process is started.

`make` counts at the door, and every rank compares with what its loader found: `check_run`. What a recipe costs:
`stiv_model.monitoring.costs`. Without torch: nobody waits for it at the door.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, ValidationError, model_validator

from stiv_model import settings_errors
from stiv_model.latents import balance, table_columns
from stiv_model.latents import table as latent_table
from stiv_model.latents.choice import Choice, choose
from stiv_model.latents.folder import TABLE
from stiv_model.latents.order import BalancedOrder
from stiv_model.latents.table import Shape, Shard, Table
from stiv_model.settings import Fraction, ModelSettings, RecipeSettings, Run, Settings, TrainingSettings

FILE = "plan.json"
"""Beside run.json."""


class Bucket(Settings):
    """The usable clips of one shape, which have shards of their own."""

    frames: PositiveInt
    """Of latents, as rows and columns."""
    rows: PositiveInt
    columns: PositiveInt
    shards: PositiveInt
    shard_bytes: PositiveInt
    """Size of their files."""
    clips: NonNegativeInt
    samples: NonNegativeInt
    dropped: dict[str, PositiveInt]
    """How many clips are no samples, by reason."""

    @model_validator(mode="after")
    def clips_are_used_or_dropped(self) -> Self:
        """Refuse a bucket that loses clips without a reason."""
        _balance("clips of a bucket", self.clips, self.samples, *self.dropped.values())
        return self


class Category(Settings):
    """What a recipe that is balanced does with a category of captions."""

    samples: PositiveInt
    share: Fraction
    """Of all draws."""


class Plan(Settings):
    """What one recipe will do with one folder of latents."""

    recipe_name: str
    latents: str
    clips: NonNegativeInt
    """Rows of the table."""
    ok: NonNegativeInt
    rejected: NonNegativeInt
    failed: NonNegativeInt
    samples: PositiveInt
    """Clips trained on."""
    dropped: dict[str, PositiveInt]
    """How many are not, by reason."""
    samples_sha256: str
    """Of the samples' names, each with a line break, in the order that `stiv_model.latents.order.Order` numbers."""
    folder_bytes: PositiveInt
    """Size of all files of the folder."""
    buckets: tuple[Bucket, ...]
    steps: PositiveInt
    batch: PositiveInt
    """Samples per step, over all ranks."""
    micro_batch: PositiveInt
    """Samples at once, on one rank."""
    ranks: PositiveInt
    accumulation: PositiveInt
    categories: dict[str, Category] = {}  # noqa: RUF012 (frozen)
    """By which the recipe is balanced; none where it is not, nor in the plan.json of earlier releases."""

    @property
    def epochs(self) -> float:
        """How often the recipe's steps see each sample."""
        return self.steps * self.batch / self.samples

    @property
    def steps_per_epoch(self) -> float:
        """A fraction where an epoch ends inside a batch: the next epoch fills that up, nothing is padded or left."""
        return self.samples / self.batch

    @property
    def never_drawn(self) -> int:
        """Samples that the recipe's steps do not come to; where it is balanced, to within one of each category."""
        draws = self.steps * self.batch
        if self.categories:
            return sum(max(0, one.samples - round(draws * one.share)) for one in self.categories.values())
        return max(0, self.samples - draws)

    @model_validator(mode="after")
    def clips_are_used_or_dropped(self) -> Self:
        """Refuse a plan that loses clips without a reason."""
        _balance("clips", self.clips, self.samples, *self.dropped.values())
        _balance("clips", self.clips, self.ok, self.rejected, self.failed)
        _balance("usable clips", self.ok, *(bucket.clips for bucket in self.buckets))
        _balance("samples", self.samples, *(bucket.samples for bucket in self.buckets))
        return self


def together(recipe: RecipeSettings, training: TrainingSettings) -> int:
    """Return how many ranks take the same samples: those that share a sequence, which an image has not."""
    return training.sequence_ranks if recipe.frames > 1 else 1


def micro_batch(recipe: RecipeSettings, training: TrainingSettings) -> int:
    """Return the samples of one micro-batch on one rank, or on those that share a sequence.

    Raises:
        ValueError: the batch cannot be shared out evenly.
    """
    parts = training.ranks // together(recipe, training) * training.accumulation
    if recipe.batch % parts:
        shared = f" / training.sequence_ranks {training.sequence_ranks}" if together(recipe, training) > 1 else ""
        raise ValueError(
            f"batch {recipe.batch} cannot be shared by training.ranks {training.ranks}{shared} x "
            f"training.accumulation {training.accumulation}: make it a multiple of {parts} in params.yaml"
        )
    return recipe.batch // parts


def check(name: str, recipe: RecipeSettings, model: ModelSettings, training: TrainingSettings) -> None:
    """Refuse a recipe that cannot run on this machine or this model.

    Raises:
        ValueError: one line with the value, the place and the remedy.
    """
    micro_batch(recipe, training)
    for frames in recipe.lengths:
        key = f"train.{name}.{recipe.length_key(frames)}"
        if frames > 1 and frames % model.temporal_patch:
            raise ValueError(
                f"{key} is {frames}, but model.temporal_patch is {model.temporal_patch}: "
                f"use a multiple of {model.temporal_patch} in params.yaml"
            )
        moments, sharing = frames // model.temporal_patch, together(recipe, training)
        if moments % sharing:
            raise ValueError(
                f"{key} {frames} / model.temporal_patch {model.temporal_patch} are {moments} temporal tokens, which "
                f"training.sequence_ranks {sharing} ranks cannot share: use a divisor of {moments}"
            )
    cores = len(os.sched_getaffinity(0))
    if training.device == "cpu" and training.ranks_per_node > cores:
        raise ValueError(
            f"training.ranks is {training.ranks}, but this process may use {cores} core(s): set training.ranks to "
            f"{cores} in params.yaml, or give it more cores"
        )


def make(latents: Path, name: str, model: ModelSettings, recipe: RecipeSettings, training: TrainingSettings) -> Plan:
    """Count what training a recipe on a folder of latents will use, and what it will not and why.

    Raises:
        FileNotFoundError: the folder has no table.
        ValueError: a clip would be lost without a reason, table and shards disagree, the latents do not suit the model,
            or there are too few for one batch.
    """
    share = micro_batch(recipe, training)
    table = latent_table.read(latents)
    shards = latent_table.shards(latents, table)
    latent_table.check_model(latents, shards, model)
    ok = np.flatnonzero(table.is_ok)
    long_enough, used = _choice(table, shards, recipe)
    counts = [table.per_shard(part) for part in (ok, long_enough, used)]
    dropped = _present(table.left_out | _drops(len(ok), len(long_enough), len(used)))
    if len(used) < recipe.batch:
        why = ", ".join(f"{reason} {count}" for reason, count in dropped.items()) or "none dropped"
        raise ValueError(
            f"train.{name}.batch is {recipe.batch}, but {latents} has {len(used)} samples for it, of "
            f"{len(table.clips)} clips ({why}): not one batch; lower the batch in params.yaml, or encode more clips"
        )
    return Plan(
        recipe_name=name,
        latents=str(latents),
        clips=len(table.clips),
        ok=len(ok),
        rejected=_of_status(table.left_out, "rejected"),
        failed=_of_status(table.left_out, "failed"),
        samples=len(used),
        dropped=dropped,
        samples_sha256=table_columns.sha256_of(table.clips, used),
        folder_bytes=sum(file.stat().st_size for file in latents.iterdir()),
        buckets=tuple(_bucket(shape, shards, *counts) for shape in sorted({shard.shape for shard in shards.values()})),
        steps=recipe.steps,
        batch=recipe.batch,
        micro_batch=share,
        ranks=training.ranks,
        accumulation=training.accumulation,
        categories=_categories(latents / TABLE, used, training.seed) if recipe.balance else {},
    )


def _categories(table: Path, used: np.ndarray, seed: int) -> dict[str, Category]:
    """Return the categories of the samples, which have these numbers in the table.

    Raises:
        ValueError: as `balance.read` and `balance.order`.
    """
    found = balance.read(table, used, only_ok=False)
    shares = BalancedOrder(found.groups, found.weights, seed).shares
    return {
        name: Category(samples=count, share=float(share))
        for (name, count), share in zip(found.counts.items(), shares, strict=True)
    }


def check_buckets(planned: Plan) -> None:
    """Refuse what the loader cannot read.

    Raises:
        ValueError: the latents have several shapes.
    """
    if len(planned.buckets) > 1:
        shapes = ", ".join(f"{b.frames} x {b.rows} x {b.columns} ({b.clips} clips)" for b in planned.buckets)
        raise ValueError(
            f"{planned.latents} has latents of several shapes, {shapes}, and training reads one: encode each into a "
            "folder of its own"
        )


def read(work: Path) -> Plan:
    """Return the plan in a folder of work.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it does not hold together.
    """
    file = work / FILE
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: no training without a plan; `stiv train` makes it")
    try:
        return Plan.model_validate_json(file.read_text())
    except ValidationError as error:
        problems = "; ".join(settings_errors.lines(error))
        raise ValueError(f"{file} does not hold together: {problems}; `stiv train` makes it again") from None


def check_run(planned: Plan, run: Run, ranks: int, samples: int, samples_sha256: str) -> None:
    """Refuse to train otherwise than planned.

    Args:
        ranks: how many there are.
        samples: how many the loader found.
        samples_sha256: of their names, in its order.

    Raises:
        ValueError: every difference, as planned and as found.
    """
    found = {
        "recipe_name": run.recipe_name,
        "latents": run.latents,
        "steps": run.recipe.steps,
        "batch": run.recipe.batch,
        "accumulation": run.training.accumulation,
        "ranks": ranks,
        "samples": samples,
        "samples_sha256": samples_sha256,
    }
    planned_values = planned.model_dump(include=set(found))
    wrong = [
        f"{key} {planned_values[key]}, found {value}" for key, value in found.items() if planned_values[key] != value
    ]
    if wrong:
        raise ValueError(
            f"train.{run.recipe_name} is not what {FILE} says: {'; '.join(wrong)}: start with `stiv train`"
        )


def _bucket(
    shape: Shape, shards: Mapping[str, Shard], ok: dict[str, int], long_enough: dict[str, int], used: dict[str, int]
) -> Bucket:
    own = [name for name, shard in shards.items() if shard.shape == shape]
    clips, trainable, samples = (sum(counts.get(name, 0) for name in own) for counts in (ok, long_enough, used))
    return Bucket(
        **shape._asdict(),
        shards=len(own),
        shard_bytes=sum(shards[name].file_bytes for name in own),
        clips=clips,
        samples=samples,
        dropped=_present(_drops(clips, trainable, samples)),
    )


def _drops(ok: int, long_enough: int, used: int) -> dict[str, int]:
    return {"too_few_frames": ok - long_enough, "outside_best_fraction": long_enough - used}


def _choice(table: Table, shards: Mapping[str, Shard], recipe: RecipeSettings) -> Choice:
    of_shard = np.array([shards[name].shape.frames for name in table.shards] + [0], np.int32)
    by_name = table.by_name[table.is_ok[table.by_name]]
    return choose(by_name, table.aesthetic, of_shard[table.shard_numbers], recipe)


def _present(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}


def _of_status(left_out: Mapping[str, int], status: str) -> int:
    return sum(count for reason, count in left_out.items() if reason.startswith(f"{status}: "))


def _balance(what: str, given: int, *parts: int) -> None:
    if given != sum(parts):
        raise ValueError(f"the account of {what} does not balance: {given} given, {' + '.join(map(str, parts))} found")


class Samples(NamedTuple):
    """The samples of a recipe, in the order that `stiv_model.latents.order.Order` numbers."""

    numbers: np.ndarray
    """Of their rows in the table."""
    sha256: str
    """Of their names, as `Plan.samples_sha256` is."""


def samples(latents: Path, recipe: RecipeSettings) -> Samples:
    """Return which clips a recipe takes as samples.

    Raises:
        FileNotFoundError, ValueError: the latents are not there or not whole.
    """
    table = latent_table.read(latents)
    numbers = _choice(table, latent_table.shards(latents, table), recipe).samples
    return Samples(numbers, table_columns.sha256_of(table.clips, numbers))
