"""What is said of captioners that are wrong."""

from pathlib import Path

import pytest

from flows.params import load_params
from stiv_model.settings_errors import checked
from tasks.captions.settings import CaptionSettings


@pytest.mark.parametrize(
    ("captioner", "said"),
    [
        ("vidoe", r"captioners\.0\.name: Input should be 'sidecar' or 'describe' \(found 'vidoe'\)$"),
        ({"kind": "video_llm"}, r"captioners\.0\.model: Unable to extract tag using discriminator 'backend'$"),
        ({"backend": "embedded", "kind": "video_llm", "name": "a"}, r"captioners\.0\.model\.embedded\.frames: Field"),
    ],
)
def test_a_captioner_is_held_against_its_own_form_alone(captioner, said):
    values = load_params(Path("params.yaml")).captions.model_dump() | {"captioners": [captioner]}
    with pytest.raises(ValueError, match=f"^here: {said}") as refused:
        checked(CaptionSettings, values, "here")
    assert ";" not in str(refused.value)
