"""What our own code logs is shown."""

import logging


def show_ours() -> None:
    """Let lines of level INFO of our packages through: by default Python drops them before Prefect sees them."""
    for package in ("flows", "tasks", "stiv_model"):
        logging.getLogger(package).setLevel(logging.INFO)
