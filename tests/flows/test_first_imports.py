import os
from importlib.util import find_spec

import pytest

from flows import first_imports
from flows.__main__ import FLOWS


def test_what_is_imported_ahead_is_what_stages_import():
    assert all(find_spec(name) for name in first_imports.MODULES)
    optional = {"flows.views"}  # stages that the demo has none of
    assert set(FLOWS.values()) - {"flows.pipeline"} - optional <= set(first_imports.MODULES)


@pytest.mark.parametrize("name", ["no_such_module_of_ours", "flows.params"])
def test_the_lowest_priority_is_asked_for_and_what_is_not_there_is_left_to_its_stage(monkeypatch, name):
    asked = []
    monkeypatch.setattr(os, "nice", asked.append)
    monkeypatch.setattr(first_imports, "MODULES", (name,))
    first_imports.main()
    assert asked == [19]
