"""Directions that need an SAE: its reconstruction error and parts of it, its decoder rows, and substitutes for x.

Where a latent is chosen, each token draws its own, by address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb import substitutions
from tiltmeter.perturb.directions import Difference, Direction, Minus, Mixture, Plain, difference
from tiltmeter.perturb.sae_sources import Reconstruction, SyntheticBaseline, SyntheticStructured
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Context
from tiltmeter.perturb.substitutions import AtDistance, Substitution, ThetaRandom
from tiltmeter.runs.rng import uniform
from tiltmeter.saes.at_site import AtSite
from tiltmeter.saes.latent_statistics import BoundSAE


@dataclass(frozen=True)
class SAEError:
    """SAE(x) - x: from x toward its reconstruction."""

    sae: AtSite

    def vector(self, context: Context) -> Tensor:
        """Reconstruction minus x."""
        return difference(self.sae.reconstruct(context.x), context.x)


@dataclass(frozen=True)
class LinearError:
    """The part of SAE(x) - x that a linear map predicts from x (Engels et al. 2024, section 3)."""

    sae: BoundSAE

    def vector(self, context: Context) -> Tensor:
        """Predicted error."""
        return self.sae.latents.predicted_error(context.x)


@dataclass(frozen=True)
class NonlinearError:
    """What is left of SAE(x) - x without its linear part (Engels et al. 2024, section 3)."""

    sae: BoundSAE

    def vector(self, context: Context) -> Tensor:
        """Error minus predicted error."""
        error = SAEError(self.sae.at).vector(context).double()
        return difference(error, self.sae.latents.predicted_error(context.x))


@dataclass(frozen=True)
class Feature:
    """The decoder row of a latent, each of those that are eligible in the sequence equally likely."""

    sae: AtSite
    eligible: Callable[[Bool[Tensor, "batch latent"]], Bool[Tensor, "batch latent"]]
    """From the latents that fire at a counted position of each sequence."""

    def vector(self, context: Context) -> Tensor:
        """Decoder row; zero where no latent is eligible."""
        eligible = self.eligible(self.sae.active(context.whole(), context.counted).cpu())
        latents = draw(eligible, uniform(context.address, "latent", 1)[..., 0])
        return self.sae.rows(latents.clamp(min=0)).to(context.x) * (latents >= 0)[..., None].to(context.x)


@dataclass(frozen=True)
class Doubling:
    """What a latent that fires at the token adds to SAE(x): f W_dec[latent] (Anthropic, April 2024 update)."""

    sae: AtSite

    def vector(self, context: Context) -> Tensor:
        """The latent's contribution; zero where none fires."""
        # In double precision: a contribution can be small beside b_dec.
        x, chance = context.x.double().flatten(0, 1), uniform(context.address, "latent", 1).flatten(0, 1)
        parts = [self._contribution(f, x[part], chance[part]) for part, f in self.sae.pieces(x)]
        return torch.cat(parts).reshape(context.x.shape)

    def _contribution(self, latents: Tensor, x: Tensor, chance: Tensor) -> Tensor:
        # By difference, since an SAE that normalises each token also scales what its latents add.
        chosen = draw((latents > 0).cpu(), chance).to(latents.device)
        alone = torch.where(torch.arange(self.sae.size, device=latents.device) == chosen, latents, 0.0)
        return self.sae.decode(alone, x) - self.sae.decode(torch.zeros_like(latents), x)


def draw(eligible: Bool[Tensor, "group latent"], chance: Float[Tensor, "group each"]) -> Int64[Tensor, "group each"]:
    """A latent for each number in [0, 1), each eligible one of its group equally likely; -1 where there is none."""
    groups = [one.nonzero()[:, 0] for one in eligible]
    pairs = zip(groups, chance, strict=True)
    return torch.stack([ids[(u * len(ids)).long()] if len(ids) else torch.full(u.shape, -1) for ids, u in pairs])


def inactive(sae: BoundSAE) -> Direction:
    """Decoder rows of latents that are alive but fire nowhere in the sequence (Lee & Heimersheim 2024).

    Raises:
        TiltmeterError: no sequence leaves such a latent.
    """
    _check_alive(sae)
    alive = sae.latents.alive
    if sae.latents.fewest >= (count := int(alive.sum())):
        raise TiltmeterError(
            f"All {count} alive latents of the SAE {sae.at.name} fire somewhere in every sequence, so no inactive one "
            "can be drawn; use a sparser or wider SAE, shorter sequences, or sae-feature-active."
        )
    return Feature(sae.at, lambda active: alive & ~active)


def active(sae: BoundSAE) -> Direction:
    """Decoder rows of latents that fire in the sequence.

    Raises:
        TiltmeterError: no latent is alive.
    """
    _check_alive(sae)
    return Feature(sae.at, lambda active: active)


def dead(sae: BoundSAE) -> Direction:
    """Decoder rows of latents that never fired on the tokens of the statistics.

    Raises:
        TiltmeterError: every latent is alive.
    """
    alive = sae.latents.alive
    if bool(alive.all()):
        raise TiltmeterError(
            f"All {len(alive)} latents of the SAE {sae.at.name} fired on the {sae.latents.count} tokens of the "
            "statistics, so no dead one can be drawn; leave sae-feature-dead out."
        )
    return Feature(sae.at, lambda active: ~alive & ~active)


def _check_alive(sae: BoundSAE) -> None:
    if not bool(sae.latents.alive.any()):
        raise TiltmeterError(
            f"No latent of the SAE {sae.at.name} fired on the {sae.latents.count} tokens of the statistics; check that "
            "it belongs to this model and site."
        )


def _check_split(sae: BoundSAE) -> BoundSAE:
    """Refuse a linear part that was fitted to hardly more tokens than it has unknowns: it would be the whole error."""
    if sae.latents.count <= 2 * (width := len(sae.latents.offset)):
        raise TiltmeterError(
            f"The linear part of an SAE's error cannot be told from {sae.latents.count} tokens in {width} dimensions; "
            "take the statistics from more sequences."
        )
    return sae


@dataclass(frozen=True)
class SAEDirection:
    """A registry entry: a direction that belongs to an SAE. Its full name is `KIND:NAME`, NAME the SAE's."""

    build: Callable[[SiteStatistics, BoundSAE], Direction]
    meaning: str
    """The vector before it is normalised."""
    is_random: bool = True
    """False where the vector is a function of x alone: a second draw (`sae-error@1`) would be the same."""
    counts_latents: bool = False
    """Whether it needs `LatentStatistics`: which latents fire how often, or which part of the error is linear in x. A
    sweep takes them only where a direction needs them, as they cost a pass over many tokens."""
    opposite_of: str | None = None
    """The kind that it is the negative of. Both draw the same random numbers: one is exactly minus the other."""


_SIGNED: Mapping[str, SAEDirection] = {
    "sae-error": SAEDirection(lambda _, sae: SAEError(sae.at), "SAE(x) - x", is_random=False),
    "sae-error-linear": SAEDirection(
        lambda _, sae: LinearError(_check_split(sae)),
        "part of SAE(x) - x that is linear in x",
        is_random=False,
        counts_latents=True,
    ),
    "sae-error-nonlinear": SAEDirection(
        lambda _, sae: NonlinearError(_check_split(sae)),
        "SAE(x) - x without its linear part",
        is_random=False,
        counts_latents=True,
    ),
    "sae-feature": SAEDirection(
        lambda _, sae: inactive(sae),
        "decoder row of a latent that is alive but not active in the sequence",
        counts_latents=True,
    ),
    "sae-feature-active": SAEDirection(
        lambda _, sae: active(sae),
        "decoder row of a latent that is active in the sequence",
        counts_latents=True,
    ),
    "sae-feature-dead": SAEDirection(
        lambda _, sae: dead(sae), "decoder row of a latent that never fires", counts_latents=True
    ),
    "latent-doubling": SAEDirection(
        lambda _, sae: Doubling(sae.at.in_float64()), "what a latent that is active at the token adds to SAE(x)"
    ),
}

_SUBSTITUTES: Mapping[str, SAEDirection] = {
    "sae-norm-corrected": SAEDirection(
        lambda _, sae: Substitution(sae.at, substitutions.norm_corrected), "SAE(x) scaled to ‖x‖, - x", is_random=False
    ),
    "sae-cos-corrected": SAEDirection(
        lambda _, sae: Substitution(sae.at, substitutions.cos_corrected), "x scaled to ‖SAE(x)‖, - x", is_random=False
    ),
    "epsilon-random": SAEDirection(
        lambda s, sae: AtDistance(sae.at, Plain(s.isotropic)), "isotropic, of length ε = ‖SAE(x) - x‖"
    ),
    "theta-random-sae-norm": SAEDirection(
        lambda s, sae: ThetaRandom(sae.at, s.isotropic, lambda _, output: output),
        "random vector at SAE(x)'s angle to x, of norm ‖SAE(x)‖, - x",
    ),
    "theta-random-true-norm": SAEDirection(
        lambda s, sae: ThetaRandom(sae.at, s.isotropic, lambda x, _: x),
        "random vector at SAE(x)'s angle to x, of norm ‖x‖, - x",
    ),
    "epsilon-cov-random-mixture": SAEDirection(
        lambda s, sae: AtDistance(sae.at, Mixture(s.gaussian)), "cov-random-mixture, of length ε"
    ),
    "epsilon-real-mixture": SAEDirection(
        lambda s, sae: AtDistance(sae.at, Mixture(s.real)), "real-mixture, of length ε"
    ),
}

_TARGETS: Mapping[str, SAEDirection] = {
    "synthetic-baseline-difference": SAEDirection(
        lambda _, sae: Difference(SyntheticBaseline(sae)),
        "decoded latents of x, each exchanged for one that fires as often, - x",
        counts_latents=True,
    ),
    "synthetic-structured-difference": SAEDirection(
        lambda _, sae: Difference(SyntheticStructured(sae)),
        "decoded latents of x, exchanged for others that lie to the strongest as they did, - x",
        is_random=False,
        counts_latents=True,
    ),
    "sae-reconstruction-difference": SAEDirection(
        lambda s, sae: Difference(Reconstruction(sae.at, s.real)), "SAE(activation of another sequence) - x"
    ),
}
"""Those of Giglemiani et al. 2024."""


def _opposite(kind: str) -> SAEDirection:
    one = _SIGNED[kind]
    return replace(
        one, build=lambda s, sae: Minus(one.build(s, sae)), meaning=f"minus ({one.meaning})", opposite_of=kind
    )


SAE_DIRECTIONS: Mapping[str, SAEDirection] = {
    **_SIGNED,
    "latent-ablation": _opposite("latent-doubling"),
    **{f"minus-{kind}": _opposite(kind) for kind in _SIGNED if kind != "latent-doubling"},
    **_SUBSTITUTES,
    **_TARGETS,
}
"""The part of the registry that needs an SAE."""
