"""VBench's environment as files: what is pinned in one is what the others say."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tasks.evaluation.vbench import measured, weights
from tasks.evaluation.vbench.conventions import convention

ROOT = Path(__file__).parents[4]
INFRA = ROOT / "infra/vbench"


def locked() -> dict[str, str]:
    return dict(
        re.findall(r"^([\w.-]+)==([\w.]+)(?: ; .*)? \\$", (INFRA / "requirements.lock").read_text(), re.MULTILINE)
    )


def test_the_lock_has_what_is_asked_for_and_a_hash_of_each():
    versions, text = locked(), (INFRA / "requirements.lock").read_text()
    for line in (INFRA / "requirements.in").read_text().splitlines():
        if line and not line.startswith("#"):
            wanted = Requirement(line)
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), line
    assert len(versions) > 80 and text.count("--hash=sha256:") >= len(versions)
    assert Version(versions["numpy"]) < Version("2") and versions["nvidia-cuda-runtime-cu12"].startswith("12.1.")


def test_the_commit_that_is_installed_is_the_one_that_a_run_asks_for():
    assert (INFRA / "vbench.txt").read_text().strip().endswith(f"@{measured.COMMIT}")
    for user in (ROOT / "Makefile", INFRA / "Dockerfile"):
        assert "vbench.txt" in user.read_text() and measured.COMMIT[:7] not in user.read_text()


def test_every_dimension_but_none_other_has_weights():
    used = [dimension for one in weights.listed() for dimension in one.dimensions]
    assert set(used) == set(convention("t2v").counted)
    for one in weights.listed():
        assert one.sha256 is None or re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", one.sha256)
        assert one.sha256 is None or one.sha256 in one.source, "a hash that its source states"


def test_the_runner_is_a_program_of_python_3_10_that_needs_nothing_of_ours():
    tree = ast.parse((INFRA / "runner.py").read_text(), feature_version=(3, 10))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or alias.name for node in imports for alias in node.names}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"torch", "vbench"}


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A docker that writes down what it is asked, with the variables that it is to hand on."""
    command = tmp_path / "bin/docker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" "HF_HOME=$HF_HOME" > "{tmp_path}/asked"\n')
    command.chmod(0o755)
    return tmp_path / "asked"


def test_in_its_image_vbench_has_no_network_and_sees_the_same_places(docker, tmp_path):
    known = {
        "PATH": f"{docker.parent / 'bin'}:{os.environ['PATH']}",
        "VBENCH_CACHE_DIR": "/data/w",
        "HF_HOME": "/data/w/h",
    }
    subprocess.run([INFRA / "python-in-image", "runner.py", "a b.json"], cwd=tmp_path, env=known, check=True)
    asked = docker.read_text().splitlines()
    assert asked[asked.index("--network") + 1] == "none"
    assert {f"{tmp_path}:{tmp_path}", "/data/w:/data/w"} <= set(asked)
    assert asked[-4:] == ["python", "runner.py", "a b.json", "HF_HOME=/data/w/h"]
