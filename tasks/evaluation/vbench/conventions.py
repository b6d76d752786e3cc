"""VBench's constants: what each of its conventions counts, how a dimension is normalised, and what it weighs.

The numbers are in conventions.json beside this file, with their sources. Conventions differ in what they count, so that
the same videos have other totals under each: a figure says by which it was made.
"""

import json
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

ConventionName = Literal["t2v", "i2v_repo", "i2v_2024"]

_DATA = Path(__file__).with_name("conventions.json")


class Limits(NamedTuple):
    """What a dimension is normalised by, and its weight within a group."""

    min: float
    max: float
    weight: float


class Group(NamedTuple):
    """Dimensions that are averaged into one score, and the weight of that in the total."""

    weight: float
    dimensions: tuple[str, ...]


class Convention(NamedTuple):
    """One way to make a total of dimensions."""

    name: str
    source: str
    groups: dict[str, Group]
    not_counted: tuple[str, ...]
    """Dimensions that its suite has and no group counts."""

    @property
    def counted(self) -> list[str]:
        """The dimensions that a total needs."""
        return [dimension for group in self.groups.values() for dimension in group.dimensions]


@cache
def limits() -> dict[str, Limits]:
    """Return the constants of every dimension, which are the same under each convention."""
    return {name: Limits(**row) for name, row in json.loads(_DATA.read_text())["dimensions"].items()}


@cache
def convention(name: ConventionName) -> Convention:
    """Return a convention by its name."""
    row = json.loads(_DATA.read_text())["conventions"][name]
    groups = {key: Group(one["weight"], tuple(one["dimensions"])) for key, one in row["groups"].items()}
    return Convention(name, row["source"], groups, tuple(row["not_counted"]))
