"""SAEs on the command line: what is said of them, and that a wrong file is refused before a model is loaded."""

import pytest
import torch
from safetensors.torch import save_file

from tiltmeter.cli.parsing import with_options
from tiltmeter.cli.sweep_options import make_sweep
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.paths import Straight


@pytest.mark.parametrize(
    ("saes", "options", "expected"),
    [
        (["a", "b?k=3"], ["activation=topk"], ["a?activation=topk", "b?k=3&activation=topk"]),
        (["a"], ["k=3", "activation=topk"], ["a?k=3&activation=topk"]),
        (["a"], None, ["a"]),
        (None, None, []),
    ],
)
def test_options_follow_each_name(saes, options, expected):
    assert with_options(saes, options) == expected


def test_options_of_no_sae_are_refused():
    with pytest.raises(TiltmeterError, match="--sae-option k=3 was given without --sae"):
        with_options(None, ["k=3"])


def test_a_file_that_does_not_say_enough_is_refused_before_a_model_is_loaded(tmp_path):
    weights = {"W_enc": torch.ones(3, 4), "b_enc": torch.ones(4), "W_dec": torch.ones(4, 3), "b_dec": torch.ones(3)}
    save_file(weights, tmp_path / "a.safetensors")
    config = {"site": "resid_pre:1", "directions": ["sae-error"], "path": Straight(lengths=(0, 1))}
    with pytest.raises(TiltmeterError, match="does not say apply_b_dec_to_input and activation"):
        make_sweep(config | {"saes": [str(tmp_path / "a.safetensors")]})
    said = f"{tmp_path / 'a.safetensors'}?activation=relu&apply_b_dec_to_input=true"
    assert make_sweep(config | {"saes": [said]}).saes == (said,)
