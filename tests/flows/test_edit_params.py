"""Assignments of --set over params.yaml; the other half of the tests is with `stiv funnel`, which writes them down."""

from pathlib import Path

import pytest
import yaml

from flows.edit_params import override
from flows.params import Params

VALUES = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
LEARNED = {"kind": "learned", "rows": 8, "columns": 8, "num_temporal": 4, "std": 0.5}


def test_a_section_of_several_kinds_takes_the_keys_of_each():
    found = override(VALUES, [f"model.positions={LEARNED}"])
    assert Params.model_validate(found).model.positions.rows == 8
    later = override(found, ["model.positions.rows=16"])
    assert Params.model_validate(later).model.positions.rows == 16


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("model.positions.spatial_scal=1", "spatial_scale"),
        ("model.positions.moments=3", "model.positions.num_temporal"),
        ("model.positions.row=3", "rows"),
    ],
)
def test_a_wrong_key_of_such_a_section_is_told_with_the_nearest_of_any_kind(assignment, said):
    with pytest.raises(ValueError, match=said):
        override(VALUES, [assignment])
