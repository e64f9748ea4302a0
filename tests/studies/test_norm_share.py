"""The share of Gurnee's KL gap that is due to the norm change, against naive sums, and where there is no gap."""

import numpy as np
import pytest

from gurnee_worlds import results
from tiltmeter.studies.claims import judge
from tiltmeter.studies.gurnee2024.claims import CLAIMS
from tiltmeter.studies.gurnee2024.replications import attention_norm_matters_more

(CLAIM,) = (claim for claim in CLAIMS if claim.name == "attention-norm-matters-more")
LAYER = "layers-1", "attention-1"
"""The one layer with both kinds of SAE, in the stream and at the heads."""


def naive_share(curves):
    """From the mean KL of every token but the last."""
    own, corrected, random = (
        float(curves.kl.sel(direction=f"{kind}:A").isel(step=0, position=slice(0, -1)).mean())
        for kind in ("sae-error", "sae-norm-corrected", "epsilon-random")
    )
    return (own - corrected) / (own - random)


@pytest.mark.parametrize(
    ("world", "least"),
    [({"norm": 2.4}, 1.25), ({"norm": 3.6}, 1 / 1.25)],
    ids=["correcting the norm helps in the stream", "it makes things worse there"],
)
def test_shares_are_of_the_gap(world, least):
    found = results(**world)
    (estimand,) = attention_norm_matters_more(found)
    stream, heads = (naive_share(found[name]) for name in LAYER)
    assert (stream > 0) == (least > 1)
    assert estimand.statistic(estimand.rows) == pytest.approx(heads - least * stream, rel=1e-9)


def test_a_large_effect_of_the_norm_alone_is_no_share_of_the_gap():
    """Changing only the norm has a larger part of the KL of SAE(x) at the heads, but correcting it closes no gap."""
    found = results(heads_norm=1.3, norm=2.0, cos=0.3)
    part = {
        name: float(
            found[name].kl.sel(direction="sae-cos-corrected:A").mean()
            / found[name].kl.sel(direction="sae-error:A").mean()
        )
        for name in LAYER
    }
    assert part["attention-1"] > 1.25 * part["layers-1"]
    assert judge([CLAIM], found)[0].word == "contradicted"


@pytest.mark.parametrize("world", [{"heads": 0.9, "heads_norm": 0.5}, {"sae": 0.9, "norm": 0.8}])
def test_without_a_gap_there_is_no_share(world):
    """0.9 of the random point's KL is at the lower end of what the post found at the heads."""
    found = results(**world)
    (estimand,) = attention_norm_matters_more(found)
    assert np.isnan(estimand.statistic(estimand.rows))
    assert judge([CLAIM], found)[0].word == "not tested"


def test_a_gap_that_may_be_none_decides_nothing():
    assert judge([CLAIM], results(heads=1.0005, heads_norm=0.5))[0].word in ("inconclusive", "not tested")
