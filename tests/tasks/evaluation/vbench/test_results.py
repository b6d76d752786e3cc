"""Result files of VBench are read as they are, and refused in one line where a number could not be meant."""

import json
from pathlib import Path

import pytest

from tasks.evaluation.vbench.conventions import convention
from tasks.evaluation.vbench.results import read

VIDEO = {"video_path": "videos/a dog-0.mp4", "video_results": 0.9}


def told(tmp_path: Path, text: str, name: str = "t2v") -> dict[str, float]:
    file = tmp_path / "a_eval_results.json"
    file.write_text(text)
    return read([file], convention(name))


def test_what_vbench_writes_and_bare_means_are_read(tmp_path):
    found = told(tmp_path, json.dumps({"scene": [0.5, [VIDEO]], "color": 0.25, "dynamic_degree": [1, [VIDEO]]}))
    assert found == {"scene": 0.5, "color": 0.25, "dynamic_degree": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"scenes": [0.5]}', "no dimension of VBench: did you mean scene?"),
        ('{"i2v_subject": [0.5]}', "i2v_subject, which is no dimension of convention t2v"),
        ('{"scene": NaN}', "scene of .* is nan, as VBench says where it found no video"),
        ('{"scene": [NaN, []]}', "scene of .* was measured on no video"),
        ('{"scene": 53.6}', "scene of .* is 53.6: VBench's results are fractions; divide percent by 100"),
        ('{"scene": -0.1}', "scene of .* is -0.1, and must be from 0 to 1"),
        ('{"scene": Infinity}', "scene of .* is inf, and must be from 0 to 1"),
        ('{"scene": []}', "scene of .* is an empty list: it was not measured"),
        ('{"scene": [true, []]}', "measured on no video"),
        ('{"scene": true}', "scene of .* is true, which is no number"),
        ('{"scene": "0.5"}', 'scene of .* is "0.5", which is no number'),
        ('{"scene": 0.5, "scene": 0.6}', "it has scene twice"),
        ('{"scene": 0.5', "is not a result of VBench: Expecting"),
        ("[" * 100_000, "is not a result of VBench: "),
        ("{}", "no JSON object with a dimension in it"),
        ("[0.5]", "no JSON object with a dimension in it"),
    ],
)
def test_what_could_not_be_meant_is_refused(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as stop:
        told(tmp_path, text)
    assert "\n" not in str(stop.value)


def test_a_dimension_in_two_files_is_refused_with_both(tmp_path):
    (tmp_path / "one.json").write_text('{"scene": 0.5, "color": 0.5}')
    (tmp_path / "two.json").write_text('{"scene": 0.5}')
    with pytest.raises(ValueError, match=r"scene is in .*one.json and in .*two.json"):
        read([tmp_path / "one.json", tmp_path / "two.json"], convention("t2v"))
