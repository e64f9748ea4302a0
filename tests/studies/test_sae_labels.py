"""Labels of SAEs in figures: kind and L0, never two alike, and never in the place of another word."""

import json

import numpy as np
import pytest
import xarray as xr

from tiltmeter.studies.results import Results
from tiltmeter.studies.sae_labels import renaming, sae_labels


def dataset(layer=3, **saes):
    facts = {name.replace("_", "-"): one for name, one in saes.items()}
    attrs = {"saes": json.dumps(facts), "site": f"blocks.{layer}.hook_resid_pre"}
    return xr.Dataset({"kl": (("step", "sequence"), np.zeros((1, 4)))}, attrs=attrs)


def sae(kind, l0, **more):
    return {"kind": kind, "l0": l0, **more}


def labels(*datasets):
    named = {f"layers-{at}": one for at, one in enumerate(datasets)}
    return sae_labels(Results(named, {}), ["layers"])


def test_the_kind_and_the_rounded_l0():
    nan = float("nan")
    known = dataset(a=sae("local", 12.4), b=sae("e2e+ds", 33.0), c=sae("topk", 0.25), d=sae(None, 7), e=sae("e2e", nan))
    assert labels(known) == {
        "a": "local SAE, L0 12",
        "b": "e2e+ds SAE, L0 33",
        "c": "local SAE, L0 0.25",
        "d": "local SAE, L0 7",
        "e": "e2e SAE",
    }


def test_what_tells_them_apart_is_added_where_labels_would_be_equal():
    by_layer = labels(dataset(3, a=sae("local", 12.4), c=sae("e2e", 12.0)), dataset(4, b=sae("local", 11.6)))
    assert by_layer == {"c": "e2e SAE, L0 12", "a": "local SAE, L0 12, layer 3", "b": "local SAE, L0 12, layer 4"}
    by_latents = labels(dataset(a=sae("local", 12.0, latents=64), b=sae("local", 12.1, latents=128)))
    assert by_latents == {"a": "local SAE, L0 12, 64 latents", "b": "local SAE, L0 12, 128 latents"}
    by_name = labels(dataset(a=sae("local", 12.0, latents=64), b=sae("local", 12.1, latents=64)))
    assert by_name == {"a": "local SAE, L0 12, a", "b": "local SAE, L0 12, b"}


def test_l0_is_that_of_most_tokens_in_every_figure():
    few, many = dataset(a=sae("local", 107.6, tokens=64)), dataset(a=sae("local", 106.9, tokens=256))
    for order in ({"errors": few, "features": many}, {"features": many, "errors": few}):
        for used in order:
            assert sae_labels(Results(order, {}), [used]) == {"a": "local SAE, L0 107"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("l-4", "A"),
        ("sae-error:l-4", "sae-error (A)"),
        ("sae-error:l-40 above sae-error:l-4.", "sae-error (B) above sae-error (A)."),
        ("sae-error:l-4.5", "sae-error:l-4.5"),
        ("sae-error:l-4-x", "sae-error:l-4-x"),
        ("the length l-4 is a word here", "the length l-4 is a word here"),
        ("isotropic", "isotropic"),
    ],
)
def test_names_are_replaced_and_nothing_else(text, wanted):
    assert renaming({"l-4": "A", "l-40": "B"})(text) == wanted
    assert renaming({})(text) == text
