from __future__ import annotations

from service.overview import flat_params
from service.spec import RunSpec


def test_the_settings_of_two_specs_differ_exactly_where_an_overlay_set_them(spec: RunSpec) -> None:
    overlay = {"score.slot.lr": 0.5, "gang.threads": 3, "budget.eval_s": 7.0, "net.ln_scale": False}
    before, after = flat_params(spec), flat_params(spec.at(overlay))
    assert before.keys() == after.keys()
    assert {path: after[path] for path in after if after[path] != before[path]} == {
        path: str(value) for path, value in overlay.items()
    }


def test_a_scorer_that_is_off_is_listed_as_off(spec: RunSpec) -> None:
    params = flat_params(spec.at({"score.slot": None}))
    assert params["score.slot"] == "None"
    assert not [path for path in params if path.startswith("score.slot.")]
