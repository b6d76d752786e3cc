"""`stiv export`: a checkpoint as a folder that diffusers opens anywhere."""

from pathlib import Path

from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import SamplerSettings, TextSettings, VaeSettings
from tasks.latents.settings import LatentSettings
from tasks.storage import atomic


def export(
    out: Path,
    sampler: SamplerSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    checkpoint: Path = Path("checkpoints/unmask_sft"),
) -> None:
    """Write a checkpoint, with its VAE and text encoder, as a folder that diffusers opens (safetensors, no code).

    Weights are written in float32, whatever params.yaml computes in: who opens the folder chooses device and dtype.

    Args:
        out: Folder for the diffusers pipeline.
        checkpoint: Folder of trained weights, as a training stage wrote it.

    examples:
      stiv export --out pipelines/demo
      stiv export --checkpoint checkpoints/tup --out pipelines/tup

    and on any machine with this package:
      StivPipeline.from_pretrained("pipelines/demo")("a red circle moves left")
    """
    if out.exists():
        raise ValueError(f"--out {out} exists already: name a new folder, or delete it")
    size = (latents.height, latents.width, latents.frames, latents.stride_frames)
    whole = {"precision": "float32"}
    encoders = vae.model_copy(update=whole), text.model_copy(update=whole)
    pipeline = StivPipeline.from_checkpoint(checkpoint, *encoders, *size, sampler)
    product = atomic.open_workdir(out, {"export": str(checkpoint)}) / "product"
    pipeline.save_pretrained(product)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    print(out)
