"""`stiv export`: a checkpoint as a folder that diffusers opens anywhere, with a model card."""

from pathlib import Path
from typing import Literal

from stiv_model.encoders.text import sha256_of
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.pipeline.text_source import TextSource
from stiv_model.settings import SamplerSettings, TextSettings, VaeSettings
from tasks.latents.settings import LatentSettings
from tasks.pages import model_card
from tasks.storage import atomic


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
    licence: str = "apache-2.0",
) -> None:
    """Write a checkpoint, with its VAE and text encoder, as a folder that diffusers opens (safetensors, no code).

    Weights are written in float32, whatever params.yaml computes in: who opens the folder chooses device and dtype.
    README.md beside them is a model card: what made them, the hash of each file, and the judge's figures if asked for.

    Args:
        out: Folder for the diffusers pipeline.
        checkpoint: Folder of trained weights, as a training stage wrote it.
        text_encoder: Whether the text encoder is stored in the folder, or named there by `text.source`, a package or a
            commit of the hub, from which whoever opens the folder then gets it: stored (the default) or named.
        figures: Score card of this checkpoint (JSON), as stage evaluate wrote it, whose figures by the judge the model
            card gets.
        curves: Folder with the losses of each recipe, from which the card has how long trainings took.
        licence: Licence of the weights, as model hubs name it: that of what they learned from may ask for another.

    examples:
      stiv export --out pipelines/demo
      stiv export --text-encoder named --figures reports/card.json --out pipelines/shapes
      stiv export --checkpoint checkpoints/tup --out pipelines/tup

    and on any machine with this package:
      StivPipeline.from_pretrained("pipelines/demo")("a red circle moves left")
    """
    if out.exists():
        raise ValueError(f"--out {out} exists already: name a new folder, or delete it")
    modes = {} if figures is None else model_card.read_figures(figures, checkpoint)
    size = (latents.height, latents.width, latents.frames, latents.stride_frames)
    whole = {"precision": "float32"}
    encoders = vae.model_copy(update=whole), text.model_copy(update=whole)
    pipeline = StivPipeline.from_checkpoint(checkpoint, *encoders, *size, sampler)
    if text_encoder == "named":
        sha256 = sha256_of(text.kind, text.tokens, pipeline.text_encoder, pipeline.tokenizer)
        pipeline.text_source = TextSource(source=text.source, revision=text.revision, kind=text.kind, sha256=sha256)
    made = model_card.history(checkpoint, curves)
    product = atomic.open_workdir(out, {"export": str(checkpoint)}) / "product"
    pipeline.save_pretrained(product)
    model_card.write(product, pipeline, made, modes, licence, out.name)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    print(out)
