"""Results of Gurnee 2024's experiments in worlds whose truth is known: by default, every claim of the paper holds."""

import json
from typing import NamedTuple

import numpy as np
import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.studies.gurnee2024.experiments import ABLATIONS, AFTER, INTERVENTIONS, TOKEN
from tiltmeter.studies.results import Results

SEQUENCES, POSITIONS, LAYERS, STUDY_LAYER = 300, 40, (0, 1), 1
NOISE = 0.2


class World(NamedTuple):
    """How strong everything is, beside the random point."""

    sae: float = 3.0
    norm: float = 3.0
    theta: float = 1.05
    cos: float = 0.05
    loss_sae: float = 3.0
    alone: float = 0.5
    """KL where one token is replaced ÷ where all are."""
    at_token: float = 3.0
    at_next: float = 3.0
    late: float = 3.0
    first_after: float = 0.5
    """Part of the KL that is left after the token, in the first layer."""
    last_after: float = 0.1
    bad: float = 0.5
    """Part of the tokens whose SAE(x) is far above its random points."""
    typical: float = 0.5
    """Part that is around their mean; the rest is far below."""
    with_position: float = 0.7
    """How much larger the gap is at the last position than in the middle, as a part."""
    with_cosine: float = -0.5
    """How much of each goes with the gap."""
    with_l0: float = 0.0
    with_frequency: float = 0.0
    l0_with_cosine: float = 0.5
    """How much L0 goes with what the cosine has apart from the gap."""
    by_token: float = 0.0
    """How much of the gap is the token's own, from one token to the next a fifth more."""
    between: float = 1.0
    """How much of the gap all layers have in common."""
    heads: float = 1.3
    heads_norm: float = 1.05
    high: float = 1.5
    low: float = 0.6


class _Draw:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def noise(self, shape):
        """Positive, of mean one."""
        return self.rng.lognormal(-(NOISE**2) / 2, NOISE, shape)


def results(world=None, seed=0, **changes):
    """The datasets of a world."""
    world, draw = (world or World())._replace(**changes), _Draw(seed)
    shape = (SEQUENCES, POSITIONS)
    rising = 1 + world.with_position * np.linspace(-1, 1, POSITIONS)
    common = draw.rng.lognormal(0, 1, shape) * rising
    found = {}
    for layer in LAYERS:
        own = draw.rng.lognormal(0, 1, shape) * rising
        difficulty = world.between * common + (1 - world.between) * own
        found[f"layers-{layer}"], found[f"tokens-{layer}"] = _layer(world, draw, layer, difficulty)
        found[f"single-{layer}"] = _single(world, draw, layer, difficulty)
    found["attention-1"] = _sweep(
        "blocks.1.attn.hook_z", {kind: level * draw.noise(shape) for kind, level in _heads(world).items()}
    )
    found["draws"] = _drawn(world, draw)
    found["saes"] = _saes(world, draw)
    return Results(found, {})


def _levels(world):
    theta = {"theta-random-sae-norm": world.theta, "theta-random-true-norm": world.theta}
    ablations = dict.fromkeys(ABLATIONS, 20.0)
    return {
        "sae-error": world.sae,
        "sae-norm-corrected": world.norm,
        "epsilon-random": 1.0,
        **theta,
        "sae-cos-corrected": world.cos,
        **ablations,
    }


def _heads(world):
    return _levels(world) | {"sae-error": world.heads, "sae-norm-corrected": world.heads_norm}


def _layer(world, draw, layer, difficulty):
    tokens = np.random.default_rng(layer).integers(0, 30, difficulty.shape).astype(np.int32)
    difficulty = (1 - world.by_token) * difficulty + world.by_token * 1.2**tokens
    kl = {kind: level * difficulty * draw.noise(difficulty.shape) for kind, level in _levels(world).items()}
    clean = 3 + draw.rng.normal(size=difficulty.shape)
    rises = dict.fromkeys(kl, 1.0) | {"sae-error": world.loss_sae}
    loss = {kind: clean + 0.1 * rises[kind] * difficulty * draw.noise(difficulty.shape) for kind in kl}
    gap = kl["sae-error"] - kl["epsilon-random"]
    gap = (gap - gap.mean()) / (gap.std() or 1.0)

    def along(part):
        return part * gap + draw.rng.normal(size=gap.shape)

    site = f"blocks.{layer}.hook_resid_pre"
    cosine = along(world.with_cosine)
    apart = cosine - world.with_cosine * gap
    cosines = dict.fromkeys(kl, 0.9 + 0.02 * cosine)
    facts = xr.Dataset(
        {
            "token": (("sequence", "position"), tokens),
            "frequency": (("sequence", "position"), np.exp(along(world.with_frequency) - 8)),
            "loss": (("sequence", "position"), clean),
            "norm": (("sequence", "position"), np.ones(gap.shape)),
            "l0": (("sequence", "position"), 30 + 3 * (along(world.with_l0) + world.l0_with_cosine * apart)),
        },
        attrs={"strings": json.dumps({str(one): f"w{one}" for one in range(30)}), "site": site},
    )
    return _sweep(site, kl, {"loss": loss, f"cos@{site}": cosines}), facts


def _single(world, draw, layer, difficulty):
    after = world.first_after if layer == LAYERS[0] else world.last_after
    left = np.array([1.0, *[after] * AFTER])
    own = np.array([world.at_token, world.at_next, *[3.0] * 7, *[world.late] * 8])
    read = difficulty[:, TOKEN, None] * world.alone * left
    levels = _levels(world)
    kl = {kind: levels[kind] * read * draw.noise(read.shape) for kind in INTERVENTIONS}
    kl["sae-error"] = own * read * draw.noise(read.shape)
    return _sweep(f"blocks.{layer}.hook_resid_pre", kl, positions=range(TOKEN, TOKEN + AFTER + 1), text="32+16")


def _drawn(world, draw, tokens=200, points=20):
    random = 1 + 0.05 * draw.rng.normal(size=(points, tokens))
    sort = draw.rng.uniform(size=tokens)
    own = np.where(sort < world.bad, 3.0, np.where(sort < world.bad + world.typical, 1.0, 0.1))
    names = ["sae-error:A", "epsilon-random:A", *(f"epsilon-random@{at}:A" for at in range(1, points))]
    return _curves(STUDY_SITE, {name: row for name, row in zip(names, [own, *random], strict=True)})


def _saes(world, draw):
    cosines = {"low": 0.7, "middle": 0.8, "high": 0.95}
    levels = {"low": world.low, "middle": 1.0, "high": world.high}
    kl, cos = {}, {}
    for sae in cosines:
        for kind, level in (("sae-error", 2.0), ("sae-norm-corrected", levels[sae]), ("theta-random-true-norm", 1.0)):
            kl[f"{kind}:{sae}"] = level * draw.noise(SEQUENCES)
            cos[f"{kind}:{sae}"] = np.full(SEQUENCES, cosines[sae])
    return _curves(STUDY_SITE, kl, {f"cos@{STUDY_SITE}": cos}, saes=tuple(cosines))


STUDY_SITE = f"blocks.{STUDY_LAYER}.hook_resid_pre"


def _sweep(site, kl, more=None, positions=None, text="all"):
    """Every token kept apart, of one SAE."""
    more = more or {}
    kinds = {kind: kind if kind in ABLATIONS else f"{kind}:A" for kind in kl}
    named = {readout: {kinds[kind]: values for kind, values in every.items()} for readout, every in more.items()}
    if "loss" in named:
        for values in named["loss"].values():
            values[:, -1] = np.nan
    return _curves(site, {kinds[kind]: values for kind, values in kl.items()}, named, positions, text)


def _curves(site, kl, more=None, positions=None, text="48", saes=("A",)):
    names = list(kl)
    first = np.asarray(kl[names[0]])
    if first.ndim == 2 and positions is None:
        positions, text = range(first.shape[1]), "all"
    readouts = {"kl": np.stack([kl[name] for name in names])[:, None]}
    for readout, values in (more or {}).items():
        readouts[readout] = np.stack([values[name] for name in names])[:, None]
    readouts["length"] = np.ones_like(readouts["kl"])
    axes = curves.Axes(names, [1.0], "substitution", range(len(first)), positions)
    facts = {sae: {"kind": "local", "l0": 10.0 * at} for at, sae in enumerate(saes, 1)}
    attrs = {"site": site, "positions": text, "saes": json.dumps(facts), "pair_distance": 1.0}
    return curves.build(readouts, np.ones((len(names), len(first)), int), axes, attrs)
