import pytest
from pydantic import NonNegativeInt, model_validator

from stiv_model import settings_errors
from stiv_model.settings import Settings


class Inner(Settings):
    least: NonNegativeInt
    most: NonNegativeInt

    @model_validator(mode="after")
    def ordered(self):
        if self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}")
        return self


class Outer(Settings):
    inner: Inner
    name: str

    @model_validator(mode="after")
    def named(self):
        if not self.name:
            raise ValueError("name is empty: give one")
        return self


def said(values: object) -> str:
    with pytest.raises(ValueError, match=r"^file: .+$") as stopped:
        settings_errors.checked(Outer, values, "file")
    return str(stopped.value)


def test_right_values_are_returned():
    inner = Inner(least=1, most=2)
    assert settings_errors.checked(Outer, {"inner": {"least": 1, "most": 2}, "name": "a"}, "f") == Outer(
        inner=inner, name="a"
    )


def test_a_rule_of_ours_is_told_in_its_own_words_behind_its_place():
    assert said({"inner": {"least": 3, "most": 2}, "name": "a"}) == "file: inner: least 3 is above most 2"
    assert said({"inner": {"least": 1, "most": 2}, "name": ""}) == "file: name is empty: give one"


def test_every_wrong_key_is_told_in_one_line_with_what_was_found():
    told = said({"inner": {"least": -1, "most": 2, "mean": "1.5"}, "name": "a"})
    assert told.split("; ") == [
        "file: inner.least: Input should be greater than or equal to 0 (found -1)",
        "file: inner.mean: Extra inputs are not permitted (found '1.5')",
    ]


def test_what_is_no_mapping_is_told_without_a_key():
    assert said(None).startswith("file: Input should be a valid dictionary")
