"""How often `compare` finds vectors special: random vectors (which it should not), and an SAE's features.

`python scripts/compare_rates.py --model nano --tokens nano --site resid_pre:3 --sae nano:local-3-l0-31` prints, for
each kind of vector and each baseline, the fraction of vectors, both signs, whose p-value is at most 5 %; and the
fraction that differs from all baselines, each vector tested alone. Random vectors of a baseline's own kind are to be
found in at most 5 % of the tests against it.
"""

from __future__ import annotations

import argparse
import tempfile

import pandas as pd
import torch
from torch import Tensor

import tiltmeter as tm
from tiltmeter.analysis.standing import LEVEL
from tiltmeter.models.loading import LoadedModel
from tiltmeter.sweeps.compare import compare


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("model", "nano"), ("tokens", "nano"), ("site", "resid_pre:3"), ("sae", None)):
        parser.add_argument(f"--{name}", default=default)
    for name, number in (("vectors", 30), ("draws", 99), ("sequences", 32), ("statistics", 256), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    loaded = tm.load_model(given.model)
    tokens = loaded.load_tokens(given.tokens, at_most=given.statistics)
    baselines = ("isotropic", "cov-random-mixture", "real-mixture") + (("sae-feature",) if given.sae else ())
    kinds = {"isotropic": isotropic(loaded, tokens, given), "real-mixture": real_mixtures(loaded, tokens, given)}
    if given.sae:
        kinds["sae-feature"] = features(given)
    for kind, vectors in kinds.items():
        with tempfile.TemporaryDirectory() as out:
            found = compare(
                loaded,
                tokens,
                given.site,
                {f"{kind}-{number}": vector for number, vector in enumerate(vectors)},
                out=out,
                sae=given.sae,
                baselines=baselines,
                draws=given.draws,
                budgets=(),
                sequences=given.sequences,
                shard=given.sequences,
                statistics_sequences=given.statistics,
                seed=given.seed,
            ).standings
        print(f"{kind}: {rates(found)}", flush=True)


def rates(found: pd.DataFrame) -> str:
    """The fractions of vectors found, against each baseline and against all."""
    p = found.drop_duplicates(["vector", "baseline"]).pivot(index="vector", columns="baseline", values="p_curve")
    parts = [f"{name} {share:.1%}" for name, share in (p <= LEVEL).mean().items()]
    return f"{', '.join(parts)}; all {(p.max(axis=1) <= LEVEL).mean():.1%} of {len(p)}"


def isotropic(loaded: LoadedModel, tokens: tm.TokenSet, given: argparse.Namespace) -> Tensor:
    """Standard normal vectors."""
    width = loaded.model.activation(tokens.ids[:1], loaded.model.site(given.site)).shape[-1]
    return torch.randn(given.vectors, width, generator=torch.Generator().manual_seed(given.seed + 1))


def real_mixtures(loaded: LoadedModel, tokens: tm.TokenSet, given: argparse.Namespace) -> Tensor:
    """Differences of activations at the last position of sequences that are not measured."""
    ids = tokens.ids[given.sequences : given.sequences + 2 * given.vectors]
    x = loaded.model.measured_in("centred").activation(ids, loaded.model.site(given.site))[:, -1]
    return x[::2] - x[1::2]


def features(given: argparse.Namespace) -> Tensor:
    """Decoder rows of random latents."""
    rows = tm.load_sae(given.sae).decoder
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(given.seed + 2))[: given.vectors]]


if __name__ == "__main__":
    main()
