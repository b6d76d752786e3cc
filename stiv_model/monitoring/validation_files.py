"""What validation leaves on the disk, by name, for who reads it later. Imports nothing that takes time.

`validation/step-N/` has `prompt-M.mp4` for each prompt, or `prompt-M.png` where the recipe makes single frames.
"""

FOLDER = "validation"
"""In the folder that a training shows."""
PROMPTS = "prompts.json"
"""Beside the videos of a step: the list of the prompts, in the order of their videos' numbers."""
METRICS = "metrics.json"
"""There too, where metrics are named: every figure of every video, by metric and by video."""
STEPS = "step-????????"
"""Pattern of the names of the folders of steps."""


def step_folder(step: int) -> str:
    """Return the name of the folder of a step, counted from 1."""
    return f"step-{step:08d}"
