"""What our own code logs is shown."""

import logging


def show_ours() -> None:
    """Let INFO of our packages through: by default Python drops it before Prefect sees it."""
    for package in ("flows", "tasks", "stiv_model"):
        logging.getLogger(package).setLevel(logging.INFO)
