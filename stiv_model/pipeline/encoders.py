"""The frozen encoders of a pipeline: those that the transformer was trained with, and no others."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from stiv_model import settings_errors
from stiv_model.encoders import pinned, text, vae
from stiv_model.pipeline import folders, text_source
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.text_source import TextSource
from stiv_model.weights.metadata import Trained

PARTS = ("vae", "text_encoder", "tokenizer")
HASHES = "_encoders"
"""Their hashes in model_index.json, where diffusers leaves alone what begins so; of a text encoder that the folder
names instead of holding it, its `TextSource`."""


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

    They are those that were written with the transformer: their hashes are in model_index.json. A tokenizer that lies
    in the folder is checked, and left to diffusers. A text encoder that is named is read together with its tokenizer,
    since both are one hash.

    Args:
        index: model_index.json.
        names: which, of `vae`, `text_encoder` and `tokenizer`.
        dtype: for both, or by name as diffusers takes it.

    Raises:
        FileNotFoundError: what is named is not there.
        ValueError: a class that is not one of ours, missing weights, or another encoder.
    """
    source = source_of(folder, index)
    stored = names if source is None else names - set(text_source.PARTS)
    parts = {} if source is None or stored == names else _read_named(folder, index, source, names, dtype)
    readers: dict[str, tuple[Any, dict[str, Any]]] = {
        "vae": (vae.read, vae.KINDS),
        "text_encoder": (text.read, {kind.__name__: kind for kind in text.KINDS.values()}),
    }
    for name in sorted(stored):
        if name in readers:
            reader, kinds = readers[name]
            parts[name] = reader(kinds[_kind(folder, index, name, kinds)], folder / name, _wanted(dtype, name))
        written = index.get(HASHES)
        _check_hash(folder / name, written.get(name) if isinstance(written, dict) else None)
    return parts


def source_of(folder: Path, index: dict[str, Any]) -> TextSource | None:
    """Return which text encoder a pipeline folder names; None where it holds one.

    Args:
        index: model_index.json.

    Raises:
        ValueError: what stands there is no `TextSource`.
    """
    written = index.get(HASHES)
    named = written.get("text_encoder") if isinstance(written, dict) else None
    if not isinstance(named, dict):
        return None
    return settings_errors.checked(TextSource, named, f"{folder / folders.INDEX}: {HASHES}.text_encoder")


def _read_named(
    folder: Path,
    index: dict[str, Any],
    source: TextSource,
    names: set[str],
    dtype: torch.dtype | dict[str, torch.dtype] | None,
) -> dict[str, Any]:
    """Return those of text encoder and tokenizer that are among `names`; for the rest and the errors see `read`."""
    place = folder / folders.INDEX
    _kind(folder, index, "text_encoder", {text.KINDS[source.kind].__name__: None})
    defaults = settings_errors.checked(PipelineDefaults, index.get("defaults"), f"{place}: defaults")
    model, tokenizer = text_source.read(source, defaults.text_tokens, place)
    model.to(_wanted(dtype, "text_encoder"))  # type: ignore[arg-type]  # as transformers wraps it
    return {name: part for name, part in (("text_encoder", model), ("tokenizer", tokenizer)) if name in names}


def _kind(folder: Path, index: dict[str, Any], name: str, kinds: Collection[str]) -> str:
    named = index.get(name)
    kind = named[1] if isinstance(named, list) and len(named) == 2 else named
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{folder}/model_index.json names a {kind} as {name}: takes {' or '.join(kinds)}")
    return kind


def _wanted(dtype: torch.dtype | dict[str, torch.dtype] | None, name: str) -> torch.dtype:
    wanted = dtype.get(name, dtype.get("default")) if isinstance(dtype, dict) else dtype
    return wanted or torch.float32


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
