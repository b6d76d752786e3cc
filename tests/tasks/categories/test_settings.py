"""What a section categories may not say."""

import pytest
from pydantic import ValidationError

from tests import made_categories
from tests.made_categories import LISTED, NEAREST, settings


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"listed": [*LISTED, LISTED[0]]}, "shapes twice"),
        ({"listed": [*LISTED, {"name": "other", "description": "the rest"}]}, "has other, which is always there"),
        ({"listed": []}, "at least 1"),
        ({"listed": [{"name": "empty", "description": " "}]}, "description"),
        ({"listed": [{"name": "Two words", "description": "a"}]}, "name"),
        ({"by": NEAREST, "weights": {"shapes": 1, "zebras": 2}}, "zebras, which is none of shapes, animals"),
        ({"by": NEAREST, "weights": {"shapes": 1, "animals": 1, "vehicles": 1}}, "no other: give every category"),
        ({"by": NEAREST, "weights": dict.fromkeys(["shapes", "animals", "vehicles", "other"], 0)}, "greater than 0"),
        ({"by": NEAREST, "weights": "evenly"}, "equal"),
        ({"weights": "equal"}, "categories.by is null"),
        ({"by": {"kind": "guess"}}, "guess"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        settings(**changes)


def test_weights_are_equal_or_as_given():
    assert settings(by=NEAREST).weight("shapes") is None
    assert settings(by=NEAREST, weights="equal").weight("other") == 1.0
    given = {"shapes": 0.5, "animals": 2, "vehicles": 1, "other": 1}
    assert [settings(by=NEAREST, weights=given).weight(name) for name in ("shapes", "animals", None)] == [0.5, 2, None]
    assert made_categories.settings().names == ("shapes", "animals", "vehicles", "other")
