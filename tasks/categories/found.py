"""What is found of one caption: its category, and how sure that is."""

from typing import NamedTuple


class Found(NamedTuple):
    """The category of one caption."""

    category: str
    """A name of the list, or other."""
    nearest: str | None = None
    """The most similar, whether it is near enough or not; None where nothing was compared."""
    similarity: float | None = None
    margin: float | None = None
    """By how much the second is less similar; None where there is no second."""
    reason: str | None = None
    """Why nobody could say: `category` is other then."""
