import sys
from pathlib import Path

import pytest

from stiv_model import package_files

FAILS_ON_IMPORT = "raise RuntimeError('imported')\n"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The folder of a package `carrier` that cannot be imported, with model/weights.bin."""
    folder = tmp_path / "carrier"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text(FAILS_ON_IMPORT)
    (folder / "model" / "weights.bin").write_bytes(b"1")
    (tmp_path / "single_file.py").write_text(FAILS_ON_IMPORT)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_files_and_folders_of_a_package_are_found_without_importing_it(package):
    weights = package_files.find("a.weights", "package:carrier/model/weights.bin", Path.is_file, "")
    assert weights == package / "model" / "weights.bin"
    assert package_files.find("a.source", "package:carrier/model", Path.is_dir, "") == package / "model"
    assert "carrier" not in sys.modules


def test_a_folder_is_found_in_any_part_of_a_package_that_is_spread_over_several(tmp_path, monkeypatch):
    for part, folder in (("one", "model"), ("other", "more")):
        (tmp_path / part / "spread" / folder).mkdir(parents=True)
        monkeypatch.syspath_prepend(tmp_path / part)
    for part, folder in (("one", "model"), ("other", "more")):
        found = package_files.find("a.source", f"package:spread/{folder}", Path.is_dir, "")
        assert found == tmp_path / part / "spread" / folder


@pytest.mark.parametrize(
    ("source", "lack"),
    [
        ("package:carrier/model/nothing", "the package carrier carries no model/nothing"),
        ("package:carrier/model", "the package carrier carries no model"),  # a folder, where a file is wanted
        ("package:no_such/file", "there is no package 'no_such' here"),
        ("package:no.such/file", "there is no package 'no.such' here"),
        ("package:single_file/file", "there is no package 'single_file' here"),
        ("package:/file", "there is no package '' here"),
    ],
)
def test_what_is_not_there_is_told_with_its_setting_value_and_remedy(package, source, lack):
    with pytest.raises(FileNotFoundError) as stopped:
        package_files.find("shots.weights", source, Path.is_file, "name another")
    assert str(stopped.value) == f"shots.weights asks for {source}, but {lack}: name another"
