"""Make the features that FVD of the demo is measured against: tasks/evaluation/reference/shapes.safetensors.

    OMP_NUM_THREADS=1 python -m benchmarks.fvd_reference [--clips 256] [--out FILE] [--params params.yaml]

256 clips of the corpus `shapes`, as params.yaml has it, of the combinations of words that training never sees, from a
seed that nothing else uses. From arrays: no clip is ever compressed. A second of CPU for each clip. One thread: the
last bits of sums depend on how many there are.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from flows.params import PARAMS, Params, load_params
from stiv_model.metrics import extractors
from tasks.demo import shapes
from tasks.evaluation import protocol, reference
from tasks.evaluation.features import features_of
from tasks.generation.samples import source_video

SEED = 17
"""Of the scenes. The corpus and the samples are of seed 0."""


def clip(number: int, params: Params) -> np.ndarray:
    """Return a clip of the reference, uint8 RGB (T, H, W, 3)."""
    scene = shapes.scene(SEED, number, held_out=True, look=params.corpus.look)
    return source_video(scene, params.latents, params.corpus)


def protocol_of(params: Params) -> protocol.Protocol:
    """Return what the features are features of."""
    size = params.latents
    shape = (size.height, size.width, size.frames, size.stride_frames)
    return protocol.Protocol(
        extractor=extractors.published().name,
        extractor_sha256=extractors.published().sha256,
        resize=extractors.RESIZE,
        frames=size.frames,
        stride=1,
        clips_per_video=1,
        height=size.height,
        width=size.width,
        fps=params.corpus.shapes_fps / size.stride_frames,
        pixels="arrays",
        codec=None,
        crf=None,
        corpus=params.corpus.look_sha256(*shape),
    )


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--out", type=Path, default=reference.SHAPES)
    parser.add_argument("--params", type=Path, default=PARAMS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    params, extractor = load_params(asked.params), extractors.published()
    rows = []
    for number in range(asked.clips):
        rows.append(features_of(clip(number, params), extractor))
        if (number + 1) % 32 == 0:
            print(f"{number + 1} of {asked.clips}", flush=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    reference.write(asked.out, reference.Reference(np.stack(rows), protocol_of(params)))
    print(f"{asked.out}: {asked.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
