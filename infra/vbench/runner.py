"""Measure one dimension by VBench's Python class: a program for VBench's own environment, Python 3.10, nothing of ours.

runner.py                 print which VBench is installed, as JSON
runner.py REQUEST.json    measure what `stiv vbench run` has asked for

Not its command: that passes paths to a shell and ends with 0 whatever happened.
"""

import argparse
import json
import sys
from importlib import metadata
from pathlib import Path


def installed() -> dict:
    """Return which commit of VBench pip has installed; None where it was not installed from git."""
    stated = json.loads(metadata.distribution("vbench").read_text("direct_url.json") or "{}")
    return {"commit": stated.get("vcs_info", {}).get("commit_id"), "python": sys.version.split()[0]}


def static_videos(request: dict) -> str:
    """Return the folder of the videos in which nothing moves, as VBench's filter copies them."""
    from vbench.cli.static_filter import static_filter

    found = Path(request["output"], "filtered")
    options = {"small": False, "mixed_precision": False, "alternate_corr": False, "filter_scope": request["dimension"]}
    places = {"videos_path": request["videos"], "result_path": str(found), "store_name": request["static"]}
    static_filter(argparse.Namespace(model=request["raft"], **options, **places))
    return str(found / "filtered_videos")


def measure(request: dict) -> None:
    import torch
    import vbench

    is_filtered = request["dimension"] == "temporal_flickering"
    videos = static_videos(request) if is_filtered else request["videos"]
    info = Path(vbench.__file__).with_name("VBench_full_info.json")
    vbench.VBench(torch.device(request["device"]), str(info), request["output"]).evaluate(
        videos_path=videos,
        name=request["dimension"],
        dimension_list=[request["dimension"]],
        local=True,  # weights from VBENCH_CACHE_DIR, none from the network
        read_frame=False,
        mode="vbench_standard",
        imaging_quality_preprocessing_mode="longer",
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    else:
        print(json.dumps(installed()))
