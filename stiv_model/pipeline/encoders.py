"""The frozen encoders of a pipeline: those that the transformer was trained with, and no others."""

from pathlib import Path
from typing import Any

import torch

from stiv_model.encoders import pinned, text, vae
from stiv_model.pipeline import folders
from stiv_model.weights.metadata import Trained

PARTS = ("vae", "text_encoder", "tokenizer")
HASHES = "_encoders"
"""Their hashes in model_index.json, where diffusers leaves alone what begins so."""


def check(checkpoint: Path, trained: Trained | None, autoencoder: vae.Vae, encoder: text.TextEncoder) -> None:
    """Refuse other encoders than those that made the latents of a training; where there was none, any will do.

    Raises:
        ValueError: with both hashes.
    """
    if trained is None:
        return
    there = trained.encoders
    for section, kind, wanted, found in (
        ("vae", "VAE", there.vae_sha256, autoencoder.sha256),
        ("text", "text encoder", there.text_sha256, encoder.sha256),
    ):
        if wanted != found:
            raise ValueError(
                f"{checkpoint} was trained on latents of the {kind} {wanted[:12]}, but {section}.source is the {kind} "
                f"{found[:12]}: set {section}.* in params.yaml to the former, or train {checkpoint} again"
            )


def hashes(folder: Path) -> dict[str, str]:
    """Return, by name, the sha256 of each encoder in a pipeline folder: what decides its features."""
    return {name: _hash(folder / name) for name in PARTS if (folder / name).is_dir()}


def _hash(part: Path) -> str:
    return pinned.hash_files(path for path in sorted(part.iterdir()) if path.suffix in folders.SUFFIXES)


def read(
    folder: Path, index: dict[str, Any], names: set[str], dtype: torch.dtype | dict[str, torch.dtype] | None
) -> dict[str, Any]:
    """Return the encoders of a pipeline folder by name, from safetensors and with none of their weights missing.

    They are those that were written with the transformer: their hashes are in model_index.json. The tokenizer is
    checked, and left to diffusers.

    Args:
        index: model_index.json.
        names: which, of `vae`, `text_encoder` and `tokenizer`.
        dtype: for both, or by name as diffusers takes it.

    Raises:
        ValueError: a class that is not one of ours, missing weights, or another encoder.
    """
    readers: dict[str, tuple[Any, dict[str, Any]]] = {
        "vae": (vae.read, vae.KINDS),
        "text_encoder": (text.read, {kind.__name__: kind for kind in text.KINDS.values()}),
    }
    parts: dict[str, Any] = {}
    for name in sorted(names):
        if name in readers:
            reader, kinds = readers[name]
            named = index.get(name)
            kind = named[1] if isinstance(named, list) and len(named) == 2 else named
            if not isinstance(kind, str) or kind not in kinds:
                raise ValueError(f"{folder}/model_index.json names a {kind} as {name}: takes {' or '.join(kinds)}")
            wanted = dtype.get(name, dtype.get("default")) if isinstance(dtype, dict) else dtype
            parts[name] = reader(kinds[kind], folder / name, wanted or torch.float32)
        written = index.get(HASHES)
        _check_hash(folder / name, written.get(name) if isinstance(written, dict) else None)
    return parts


def _check_hash(part: Path, written: str | None) -> None:
    """Refuse a part of a pipeline folder that is not the one written with the transformer.

    Raises:
        ValueError: with both hashes.
    """
    found = _hash(part)
    if found != written:
        raise ValueError(
            f"{part} has sha256 {found[:12]}, but the {part.name} written with this transformer has "
            f"{(written or 'none')[:12]} (model_index.json): export the checkpoint again, or hand the {part.name} that "
            "you mean to from_pretrained"
        )
