"""Directions that an SAE gives: its error and the parts of it, its decoder's rows, and the substitutes for x.

Names carry the SAE: `sae-error:NAME`. A latent is drawn for each token, by address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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


class SAEDefinition(NamedTuple):
    """A direction of an SAE that has a name."""

    build: Callable[[SiteStatistics, BoundSAE], Direction]
    meaning: str


_SIGNED: Mapping[str, SAEDefinition] = {
    "sae-error": SAEDefinition(lambda _, sae: SAEError(sae.at), "SAE(x) - x"),
    "sae-error-linear": SAEDefinition(
        lambda _, sae: LinearError(_check_split(sae)), "part of SAE(x) - x that is linear in x"
    ),
    "sae-error-nonlinear": SAEDefinition(
        lambda _, sae: NonlinearError(_check_split(sae)), "SAE(x) - x without its linear part"
    ),
    "sae-feature": SAEDefinition(
        lambda _, sae: inactive(sae), "decoder row of a latent that is alive but not active in the sequence"
    ),
    "sae-feature-active": SAEDefinition(
        lambda _, sae: active(sae), "decoder row of a latent that is active in the sequence"
    ),
    "sae-feature-dead": SAEDefinition(lambda _, sae: dead(sae), "decoder row of a latent that never fires"),
    "latent-doubling": SAEDefinition(
        lambda _, sae: Doubling(sae.at.in_float64()), "what a latent that is active at the token adds to SAE(x)"
    ),
}

_SUBSTITUTES: Mapping[str, SAEDefinition] = {
    "sae-norm-corrected": SAEDefinition(
        lambda _, sae: Substitution(sae.at, substitutions.norm_corrected), "SAE(x) scaled to ‖x‖, - x"
    ),
    "sae-cos-corrected": SAEDefinition(
        lambda _, sae: Substitution(sae.at, substitutions.cos_corrected), "x scaled to ‖SAE(x)‖, - x"
    ),
    "epsilon-random": SAEDefinition(
        lambda s, sae: AtDistance(sae.at, Plain(s.isotropic)), "isotropic, of length ε = ‖SAE(x) - x‖"
    ),
    "theta-random-sae-norm": SAEDefinition(
        lambda s, sae: ThetaRandom(sae.at, s.isotropic, lambda _, output: output),
        "random vector at SAE(x)'s angle to x, of norm ‖SAE(x)‖, - x",
    ),
    "theta-random-true-norm": SAEDefinition(
        lambda s, sae: ThetaRandom(sae.at, s.isotropic, lambda x, _: x),
        "random vector at SAE(x)'s angle to x, of norm ‖x‖, - x",
    ),
    "epsilon-cov-random-mixture": SAEDefinition(
        lambda s, sae: AtDistance(sae.at, Mixture(s.gaussian)), "cov-random-mixture, of length ε"
    ),
    "epsilon-real-mixture": SAEDefinition(
        lambda s, sae: AtDistance(sae.at, Mixture(s.real)), "real-mixture, of length ε"
    ),
}

_TARGETS: Mapping[str, SAEDefinition] = {
    "synthetic-baseline-difference": SAEDefinition(
        lambda _, sae: Difference(SyntheticBaseline(sae)),
        "decoded latents of x, each exchanged for one that fires as often, - x",
    ),
    "synthetic-structured-difference": SAEDefinition(
        lambda _, sae: Difference(SyntheticStructured(sae)),
        "decoded latents of x, exchanged for others that lie to the strongest as they did, - x",
    ),
    "sae-reconstruction-difference": SAEDefinition(
        lambda s, sae: Difference(Reconstruction(sae.at, s.real)), "SAE(activation of another sequence) - x"
    ),
}
"""Those of Giglemiani et al. 2024."""

OPPOSITES: Mapping[str, str] = {
    "latent-ablation": "latent-doubling",
    **{f"minus-{kind}": kind for kind in _SIGNED if kind != "latent-doubling"},
}
"""Kinds that are the other sign of another kind, and which. The two draw the same latents."""


def _opposite(kind: str) -> SAEDefinition:
    twin = _SIGNED[kind]
    return SAEDefinition(lambda s, sae: Minus(twin.build(s, sae)), f"minus ({twin.meaning})")


SAE_DIRECTIONS: Mapping[str, SAEDefinition] = {
    **_SIGNED,
    **{opposite: _opposite(kind) for opposite, kind in OPPOSITES.items()},
    **_SUBSTITUTES,
    **_TARGETS,
}
"""Directions that need an SAE, and what they are before normalisation. A full name is `KIND:NAME`, NAME the SAE's."""

COUNTING = frozenset(
    kind
    for kind in SAE_DIRECTIONS
    if kind.removeprefix("minus-").startswith(("sae-error-", "sae-feature")) or kind.startswith("synthetic-")
)
"""Kinds that ask which latents fire how often, or what of the error is linear: statistics of many tokens."""


def draws_as(name: str) -> str:
    """The name under which a direction draws: the two signs of one draw the same."""
    kind, colon, sae = name.partition(":")
    return OPPOSITES.get(kind, kind) + colon + sae
