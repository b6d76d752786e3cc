"""Make docs/samples.gif: what the model that comes with the package makes of each held-out combination.

Every prompt has the seed of its place: none is chosen.

    python docs/generate/samples.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from stiv_model.pipeline.folders import SHIPPED
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.demo import shapes

OUT = Path(__file__).parents[1] / "samples.gif"
COLUMNS, SIDE, LABEL, GAP = 6, 144, 18, 8
"""Videos per row; pixels of a picture's side, of the height of its label, and between pictures."""
MILLISECONDS, LAST = 100, 800
"""How long a frame is shown, and the last one."""


def prompt_of(combination: shapes.Combination) -> str:
    return f"a {combination.colour} {combination.shape} moves {combination.direction}"


def sheet(pictures: list[np.ndarray], labels: list[str]) -> Image.Image:
    """Lay pictures, uint8 RGB (H, W, 3), out in rows, each with its label below."""
    rows = -(-len(pictures) // COLUMNS)
    width, height = COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + LABEL + GAP) + GAP
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for place, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        row, column = divmod(place, COLUMNS)
        left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + LABEL + GAP)
        page.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, top))
        draw.text((left + SIDE / 2, top + SIDE + LABEL / 2), label, fill="black", anchor="mm")
    return page


def main() -> None:
    pipeline = StivPipeline.from_pretrained(SHIPPED)
    prompts = [prompt_of(combination) for combination in shapes.HELD_OUT]
    generators = [torch.Generator().manual_seed(place) for place in range(len(prompts))]
    (videos,) = pipeline(prompts, generator=generators, output_type="np", return_dict=False)
    frames = (255 * videos).round().astype(np.uint8).swapaxes(0, 1)
    sheets = [sheet(list(pictures), prompts) for pictures in frames]
    first, *others = [page.quantize(256, dither=Image.Dither.NONE) for page in sheets]
    shown = [MILLISECONDS] * len(others) + [LAST]
    first.save(OUT, save_all=True, append_images=others, duration=shown, loop=0, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
