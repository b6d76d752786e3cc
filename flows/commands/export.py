"""`stiv export`: a checkpoint as a folder that diffusers opens, with a model card, and uploaded if asked to."""

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import pyarrow as pa

from flows.running import stage_names
from stiv_model.encoders.text import sha256_of
from stiv_model.pipeline import card, publishing
from stiv_model.pipeline.components import read_checkpoint
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.pipeline.text_source import TextSource
from stiv_model.settings import SamplerSettings, TextSettings, VaeSettings
from stiv_model.weights import certificate, files, metadata
from tasks.latents.settings import LatentSettings
from tasks.lineage import lineage
from tasks.pages import model_card
from tasks.pages.model_card import Data, Figures, History, Named
from tasks.storage import atomic

UNKNOWN = "unknown"
"""The licence that model hubs know for one that nobody stated."""


def export(
    out: Path,
    sampler: SamplerSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    checkpoint: Path = Path("checkpoints/unmask_sft"),
    text_encoder: Literal["stored", "named"] = "stored",
    figures: Path | None = None,
    curves: Path = Path("reports/losses"),
    licence: str = UNKNOWN,
    push: str | None = None,
    private: bool = False,
    branch: str = "main",
    message: str | None = None,
) -> None:
    """Write a checkpoint, with its VAE and text encoder, as a folder that diffusers opens (safetensors, no code).

    Weights are written in float32, whatever params.yaml computes in: who opens the folder chooses device and dtype.
    README.md beside them is a model card: two lines of use, what made them, the data and their licences, the hash of
    each file, and the judge's figures where they are of these weights. StivPipeline of this package opens the folder;
    there is no code in it, and nothing asks for trust_remote_code.

    With --push it is uploaded too, in one commit, by the token of HF_TOKEN or of `hf auth login`, to the hub of
    HF_ENDPOINT. A folder that was exported from the same weights before is uploaded as it is.

    Args:
        out: Folder for the diffusers pipeline.
        checkpoint: Folder of trained weights, as a training stage wrote it.
        text_encoder: Whether the text encoder is stored in the folder, or named there by `text.source`, a package or a
            commit of the hub, from which whoever opens the folder then gets it: stored (the default) or named.
        figures: Score card (JSON), as stage evaluate wrote it, whose figures by the judge the model card gets; one of
            other weights is refused (default: reports/card.json, where that is of these weights).
        curves: Folder with the losses of each recipe, from which the card has how long trainings took.
        licence: Licence of the weights, as model hubs name it: that of what they learned from may ask for one.
        push: Repository of the hub to upload to as well, ORGANISATION/NAME, made where it is not there.
        private: A repository that is made is for its owners only.
        branch: Branch of the repository to upload to, made where it is not there.
        message: Of the commit (default: what is uploaded).

    examples:
      stiv export --out pipelines/demo
      stiv export --text-encoder named --figures reports/card.json --licence apache-2.0 --out pipelines/shapes
      stiv export --checkpoint checkpoints/tup --out pipelines/tup
      stiv export --out pipelines/demo --push ORGANISATION/NAME --private

    and on any machine with this package, by folder or name:
      StivPipeline.from_pretrained("pipelines/demo")("a red circle moves left")
      stiv sample --pipeline ORGANISATION/NAME --prompt "a red circle moves left" --out red.mp4

    Raises:
        OSError: a file cannot be read or written, or the hub does not take it.
        ValueError: a request that cannot be followed.
    """
    read_checkpoint(checkpoint)
    target = _target(push, private, branch, message)
    weights = certificate.sha256(files.check_there(checkpoint / metadata.WEIGHTS))  # of what is loaded below
    if not _is_there(out, checkpoint, weights, is_pushed=target is not None):
        found = _figures(figures, checkpoint, weights)
        size = (latents.height, latents.width, latents.frames, latents.stride_frames)
        whole = {"precision": "float32"}
        encoders = vae.model_copy(update=whole), text.model_copy(update=whole)
        pipeline = StivPipeline.from_checkpoint(checkpoint, *encoders, *size, sampler)
        if text_encoder == "named":
            sha256 = sha256_of(text.kind, text.tokens, pipeline.text_encoder, pipeline.tokenizer)
            pipeline.text_source = TextSource(source=text.source, revision=text.revision, kind=text.kind, sha256=sha256)
        made = model_card.history(checkpoint, weights, curves)
        product = atomic.open_workdir(out, {"export": str(checkpoint)}) / "product"
        pipeline.save_pretrained(product)
        named = Named(out.name, push or "FOLDER", licence)
        model_card.write(product, pipeline, weights, made, _data(made), found, named)
        atomic.finish(product, out)
        atomic.discard_workdir(out)
    print(out)
    if target is not None:
        print(publishing.push(out, target))


def _target(push: str | None, private: bool, branch: str, message: str | None) -> publishing.Target | None:
    """Return where to upload to; asked of the hub before anything is made.

    Raises:
        OSError, ValueError: as `publishing.check`; or an option that is for --push alone.
    """
    if push is None:
        for option, is_given in (("--private", private), ("--branch", branch != "main"), ("--message", bool(message))):
            if is_given:
                raise ValueError(f"{option} is of a repository: name one, --push ORGANISATION/NAME, or leave it out")
        return None
    target = publishing.Target(push, branch, private, message or f"{push.rpartition('/')[2]}, by stiv export")
    publishing.check(target)
    return target


def _is_there(out: Path, checkpoint: Path, weights: str, is_pushed: bool) -> bool:
    """Say whether the checkpoint was exported to `out` before, and is to be uploaded as it is.

    Args:
        weights: sha256 of the checkpoint's.

    Raises:
        ValueError: something else is there, or nothing is to be uploaded.
    """
    if not out.exists():
        return False
    if is_pushed and (made_from := card.exported_from(out)) is not None:
        if made_from != weights:
            raise ValueError(
                f"--out {out} was exported from weights {made_from[:12]}, and those of {checkpoint} are "
                f"{weights[:12]}: name a new folder, or the checkpoint that it is of"
            )
        print(f"{out} was exported from these weights before: it is uploaded as it is", file=sys.stderr)
        return True
    raise ValueError(f"--out {out} exists already: name a new folder, or delete it")


def _figures(asked: Path | None, checkpoint: Path, weights: str) -> Figures:
    """Return the figures that were asked for; of the workspace's own card, where they are of these weights, else why.

    Raises:
        OSError, ValueError: as `model_card.read_figures`, of a card that was asked for.
    """
    if asked is not None:
        return model_card.read_figures(asked, checkpoint, weights)
    own = Path(stage_names.metrics("evaluate")[0])
    if not own.is_file():
        return Figures({}, None, "these weights were not measured where they were exported")
    try:
        return model_card.read_figures(own, checkpoint, weights)
    except ValueError as error:
        print(f"the card has no figures: {error}", file=sys.stderr)
        return Figures({}, None, "the score card that was there is not of these weights, or was changed")


def _data(made: History) -> Data:
    """Return what the trainings' own lists say of their videos."""
    runs: list[pa.Table] = []
    for training in made.trainings:
        try:
            runs.append(lineage.trained_on(training.folder))
        except FileNotFoundError as error:
            print(f"the card does not tell the data of {training.folder}: {error}", file=sys.stderr)
    is_whole = not made.lost and len(runs) == len(made.trainings)
    return Data(lineage.licences(runs), lineage.hosts(runs), is_whole) if runs else Data(Counter(), Counter(), False)
