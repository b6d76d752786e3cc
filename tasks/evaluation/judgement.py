"""The judge's figures as pages and cards of models show them: by mode and combinations, and sample by sample."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.evaluation import sealing, values
from tasks.evaluation.card import Card, Dimension
from tasks.evaluation.judge import ATTRIBUTES, COMBINATIONS, PROPERTIES, wilson

_COUNTED = (*PROPERTIES, *ATTRIBUTES)
BESIDE = ("made_psnr", "repeated_psnr", "blended_psnr", "given_psnr", "flicker")
"""More figures of groups that were given several frames."""
_SEEN = {f"seen_{name}": name for name in ATTRIBUTES}


def read(path: Path) -> dict[str, Any]:
    """Return the judge's figures of a card.

    Returns:
        samples: the account; modes: figures by mode and `held_out` or `seen`; verdicts: a row per sample.
    Raises:
        OSError: card or table cannot be read.
        ValueError: it is no card of the suite shapes, or was changed.
    """
    card = sealing.read(path)
    if card.suite.name != "shapes":
        raise ValueError(f"{path} is a card of suite {card.suite.name}, and the judge's figures are of suite shapes")
    rows = values.read(card, path)
    return {
        "samples": card.account.model_dump(mode="json"),
        "modes": modes(card),
        "verdicts": [verdict(row) for row in rows],
    }


def modes(card: Card) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures by mode and combinations."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group in dict.fromkeys(one.group for one in card.dimensions):
        mode, _, combinations = group.partition(" ")
        if combinations in COMBINATIONS.values() and card.of("colour", group) is not None:
            found.setdefault(mode, {})[combinations] = _figures(card, group)
    return found


def _figures(card: Card, group: str) -> dict[str, Any]:
    of = {name: _require(card, name, group) for name in (*_COUNTED, "unseen")}
    figures: dict[str, Any] = {"n": of["colour"].n, "unseen": _count(of["unseen"])}
    for name in _COUNTED:
        share = wilson(_count(of[name]), of[name].n)
        figures[name] = share._asdict()
        if (chance := of[name].protocol.get("chance")) is not None:
            assert isinstance(chance, float), "as judged.py puts it there"
            figures[name] |= {"chance": chance, "above_chance": share.low > chance}
    if (psnr := card.of("first_frame_psnr", group)) is not None:
        figures["first_frame_psnr"] = psnr.value
    if card.of(BESIDE[0], group) is not None:
        figures |= {name: _require(card, name, group).value for name in BESIDE}
    return figures


def _require(card: Card, name: str, group: str) -> Dimension:
    found = card.of(name, group)
    assert found is not None, f"the judge has {name} of every group that it has colours of"
    return found


def _count(share: Dimension) -> int:
    assert share.value is not None, "a share of videos that were judged"
    return round(share.value * share.n)


def verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the judge says of one sample, from its row of the table."""
    mode, _, combinations = row["group"].partition(" ")
    found = {"id": row["id"], "mode": mode, "held_out": combinations == COMBINATIONS[True]}
    found |= {"status": row["status"], "reason": row["reason"]}
    if row["status"] != "ok":
        return found
    found["seen"] = {name: row.get(column) for column, name in _SEEN.items()}
    found["right"] = {name: row[name] for name in ATTRIBUTES}
    found |= {name: row[name] for name in (*PROPERTIES, "concentration", "continuity")}
    if row.get("first_frame_psnr") is not None:
        found["psnr"] = row["first_frame_psnr"]
    return found


def lines_of(modes: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return mode, combinations and figures of every group that was judged."""
    return [(mode, combinations, figures) for mode, groups in modes.items() for combinations, figures in groups.items()]
