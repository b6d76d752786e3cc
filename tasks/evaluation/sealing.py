"""A card is sealed: what was changed after, or is of another schema, is no card."""

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

from stiv_model import settings_errors
from tasks.evaluation.card import SCHEMA, Card, Seal
from tasks.storage import atomic

KEY, KEY_FILE = "STIV_CARD_KEY", "STIV_CARD_KEY_FILE"
"""Variables of the environment with the key, or with the path of a file that holds it."""
_SEAL = "seal"


def canonical(content: dict[str, Any]) -> bytes:
    """Return the bytes that are sealed: everything but the seal, as JSON with sorted keys and no spaces, UTF-8."""
    told = {key: value for key, value in content.items() if key != _SEAL}
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def key() -> bytes | None:
    """Return the key of this environment; None where there is none.

    Raises:
        OSError: the file that is named cannot be read.
        ValueError: it is empty.
    """
    said = os.environ.get(KEY, "").encode()
    file = os.environ.get(KEY_FILE)
    found = said or (Path(file).read_bytes().strip() if file else b"")
    if file and not found:
        raise ValueError(f"{KEY_FILE} names {file}, which is empty: write a key there, or unset it")
    return found or None


def seal(content: dict[str, Any], secret: bytes | None) -> Card:
    """Return a card of what it says, sealed.

    Args:
        content: all of `Card` but the seal, as JSON has it.
        secret: for the HMAC; None leaves it out.
    """
    unsealed = Card.model_validate(content | {_SEAL: {"sha256": ""}})
    told = canonical(unsealed.model_dump(mode="json", by_alias=True))
    by_key = hmac.new(secret, told, hashlib.sha256).hexdigest() if secret else None
    return unsealed.model_copy(update={"seal": Seal(sha256=hashlib.sha256(told).hexdigest(), hmac_sha256=by_key)})


def write(card: Card, path: Path) -> None:
    """Write a card, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(path) as tmp_path:
        tmp_path.write_text(json.dumps(card.model_dump(mode="json", by_alias=True), indent=2) + "\n")


def read(path: Path, secret: bytes | None = None) -> Card:
    """Return a card as it was sealed.

    Args:
        secret: the key; with it the card must have been sealed by the same.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no card, of another schema, or was changed; or was not sealed by this key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: stiv evaluate makes it (dvc repro evaluate)") from None
    except ValueError as error:
        raise ValueError(f"{path} is no score card ({error}): stiv evaluate makes one") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is None:
        raise ValueError(f"{path} is no score card: it has no schema; stiv evaluate makes one")
    if schema != SCHEMA:
        raise ValueError(
            f"{path} is of schema {schema!r}, and this version reads {SCHEMA}: make the card again (stiv evaluate)"
        )
    told = content.get(_SEAL) if isinstance(content.get(_SEAL), dict) else {}
    found = hashlib.sha256(canonical(content)).hexdigest()
    if told.get("sha256") != found:
        raise ValueError(
            f"{path} was changed after it was sealed: its sha256 is {found[:12]}, and the seal says "
            f"{str(told.get('sha256'))[:12]}: take the card as it was made, or make it again"
        )
    if secret is not None:
        by_key = hmac.new(secret, canonical(content), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(str(told.get("hmac_sha256")), by_key):
            raise ValueError(f"{path} was not sealed by the key of {KEY}: unset it to read the card without")
    return settings_errors.checked(Card, content, path)
