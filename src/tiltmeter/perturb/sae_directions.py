"""Directions that need an SAE: reconstruction error and its components, decoder rows, and substitutes for x.

Directions that choose a latent draw one per token, by random address.
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
from tiltmeter.saes.at_site import RowsAtSite, SAEAtSite
from tiltmeter.saes.latent_statistics import SAEWithStatistics


@dataclass(frozen=True)
class SAEError:
    """SAE(x) - x: from x toward its reconstruction."""

    sae: SAEAtSite

    def vector(self, context: Context) -> Tensor:
        """Return reconstruction minus x."""
        return difference(self.sae.reconstruct(context.x), context.x)


@dataclass(frozen=True)
class LinearError:
    """The component of SAE(x) - x that a linear map predicts from x (Engels et al. 2024, section 3)."""

    sae: SAEWithStatistics

    def vector(self, context: Context) -> Tensor:
        """Return the predicted error."""
        return self.sae.latents.predicted_error(context.x)


@dataclass(frozen=True)
class NonlinearError:
    """The residual of SAE(x) - x after subtracting its linear component (Engels et al. 2024, section 3)."""

    sae: SAEWithStatistics

    def vector(self, context: Context) -> Tensor:
        """Return the error minus the predicted error."""
        error = SAEError(self.sae.at).vector(context).double()
        return difference(error, self.sae.latents.predicted_error(context.x))


@dataclass(frozen=True)
class Feature:
    """The decoder row of a latent drawn uniformly from those that are eligible in the sequence."""

    sae: SAEAtSite
    eligible: Callable[[Bool[Tensor, "batch latent"]], Bool[Tensor, "batch latent"]]
    """Maps the latents that fire at counted positions of each sequence to the eligible ones."""

    def vector(self, context: Context) -> Tensor:
        """Return the decoder row, or zero where no latent is eligible."""
        eligible = self.eligible(self.sae.active(context.whole(), context.counted()).cpu())
        latents = draw(eligible, uniform(context.address, "latent", 1)[..., 0])
        return self.sae.rows(latents.clamp(min=0)).to(context.x) * (latents >= 0)[..., None].to(context.x)


@dataclass(frozen=True)
class AnyRow:
    """The decoder row of a latent drawn uniformly from all whose row has a length."""

    rows: RowsAtSite

    def vector(self, context: Context) -> Tensor:
        """Return the decoder row."""
        kept = self.rows.not_zero
        latents = kept[(uniform(context.address, "latent", 1)[..., 0] * len(kept)).long()]
        return self.rows.rows(latents).to(context.x)


@dataclass(frozen=True)
class Doubling:
    """The contribution of one active latent to SAE(x), f W_dec[latent] (Anthropic, April 2024 update).

    Added to x at its own length, it doubles that latent.
    """

    sae: SAEAtSite

    def vector(self, context: Context) -> Tensor:
        """Return the latent's contribution, or zero where no latent fires."""
        # In double precision, as a contribution can be small compared with b_dec.
        x, chance = context.x.double().flatten(0, 1), uniform(context.address, "latent", 1).flatten(0, 1)
        parts = [self._contribution(f, x[part], chance[part]) for part, f in self.sae.pieces(x)]
        return torch.cat(parts).reshape(context.x.shape)

    def _contribution(self, latents: Tensor, x: Tensor, chance: Tensor) -> Tensor:
        # By difference, since an SAE that normalises each token also rescales the contributions of its latents.
        chosen = draw((latents > 0).cpu(), chance).to(latents.device)
        alone = torch.where(torch.arange(self.sae.size, device=latents.device) == chosen, latents, 0.0)
        return self.sae.decode(alone, x) - self.sae.decode(torch.zeros_like(latents), x)


def draw(eligible: Bool[Tensor, "group latent"], chance: Float[Tensor, "group each"]) -> Int64[Tensor, "group each"]:
    """Map each uniform number in [0, 1) to an eligible latent of its group, or to -1 if there is none."""
    groups = [one.nonzero()[:, 0] for one in eligible]
    pairs = zip(groups, chance, strict=True)
    return torch.stack([ids[(u * len(ids)).long()] if len(ids) else torch.full(u.shape, -1) for ids, u in pairs])


def inactive(sae: SAEWithStatistics) -> Direction:
    """Build the direction of latents that are alive but fire nowhere in the sequence (Lee & Heimersheim 2024).

    Raises:
        TiltmeterError: in every sequence of the statistics, all alive latents fire.
    """
    _check_alive(sae)
    alive = sae.latents.alive
    if sae.latents.fewest >= (count := int(alive.sum())):
        raise TiltmeterError(
            f"All {count} alive latents of the SAE {sae.at.name} fire somewhere in every sequence, so no inactive one "
            "can be drawn; use a sparser or wider SAE, shorter sequences, or sae-feature-active."
        )
    return Feature(sae.at, lambda active: alive & ~active)


def any_row(rows: RowsAtSite) -> Direction:
    """Build the direction of all latents of a dictionary of which only the decoder is used.

    Raises:
        TiltmeterError: no decoder row has a length.
    """
    if not len(rows.not_zero):
        raise TiltmeterError(
            f"All decoder rows of {rows.name} at {rows.site.name} are zero, so there is no direction; use another site."
        )
    return AnyRow(rows)


def active(sae: SAEWithStatistics) -> Direction:
    """Build the direction of latents that fire in the sequence.

    Raises:
        TiltmeterError: no latent is alive.
    """
    _check_alive(sae)
    return Feature(sae.at, lambda active: active)


def dead(sae: SAEWithStatistics) -> Direction:
    """Build the direction of latents that never fired on the tokens of the statistics.

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


def _check_alive(sae: SAEWithStatistics) -> None:
    if not bool(sae.latents.alive.any()):
        raise TiltmeterError(
            f"No latent of the SAE {sae.at.name} fired on the {sae.latents.count} tokens of the statistics; check that "
            "it belongs to this model and site."
        )


def _check_split(sae: SAEWithStatistics) -> SAEWithStatistics:
    """Check that the linear fit had enough tokens. With about as many as unknowns, it would fit the whole error."""
    if sae.latents.count <= 2 * (width := len(sae.latents.offset)):
        raise TiltmeterError(
            f"The linear component of an SAE's error cannot be estimated from {sae.latents.count} tokens in "
            f"{width} dimensions; compute the statistics on more sequences."
        )
    return sae


@dataclass(frozen=True)
class SAEDirection:
    """A registry entry for a direction that needs an SAE. Its full name is `KIND:NAME`, where NAME is the SAE's."""

    build: Callable[[SiteStatistics, SAEWithStatistics], Direction]
    meaning: str
    """The vector before it is normalised."""
    is_random: bool = True
    """False if the vector is a function of x alone, so that a second draw (`sae-error@1`) would be identical."""
    counts_latents: bool = False
    """Whether it needs `LatentStatistics`: how often each latent fires, or the component of the error linear in x. A
    sweep computes them only if a direction needs them, as they cost a pass over many tokens."""
    needs_rows: bool = False
    """Whether it needs the decoder's rows, and not only `encode` and `decode`."""
    of_rows: Callable[[RowsAtSite], Direction] | None = None
    """How to build it from decoder rows alone; None if it needs latents or a reconstruction."""
    opposite_of: str | None = None
    """The kind of which it is the negative. Both use the same random numbers, so one is exactly minus the other."""
    of_length_epsilon: str | None = None
    """The kind without an SAE along which it goes, to the length ε. Both use the same random numbers, whatever the SAE,
    so that ε is one more length on the same line."""


_SIGNED: Mapping[str, SAEDirection] = {
    "sae-error": SAEDirection(lambda _, sae: SAEError(sae.at), "SAE(x) - x", is_random=False),
    "sae-error-linear": SAEDirection(
        lambda _, sae: LinearError(_check_split(sae)),
        "component of SAE(x) - x that is linear in x",
        is_random=False,
        counts_latents=True,
    ),
    "sae-error-nonlinear": SAEDirection(
        lambda _, sae: NonlinearError(_check_split(sae)),
        "SAE(x) - x without its linear component",
        is_random=False,
        counts_latents=True,
    ),
    "sae-feature": SAEDirection(
        lambda _, sae: inactive(sae),
        "decoder row of a latent that is alive but not active in the sequence; of a transcoder or crosscoder, any row",
        counts_latents=True,
        needs_rows=True,
        of_rows=any_row,
    ),
    "sae-feature-active": SAEDirection(
        lambda _, sae: active(sae),
        "decoder row of a latent that is active in the sequence",
        counts_latents=True,
        needs_rows=True,
    ),
    "sae-feature-dead": SAEDirection(
        lambda _, sae: dead(sae), "decoder row of a latent that never fires", counts_latents=True, needs_rows=True
    ),
    "latent-doubling": SAEDirection(
        lambda _, sae: Doubling(sae.at.in_float64()), "contribution of a latent active at the token to SAE(x)"
    ),
}

# Unlike the mixtures, `epsilon-random` has draws of its own, by SAE: the KL gaps of Gurnee 2024 are correlated between
# layers, and one vector in all of them would correlate the gaps by itself.
_SUBSTITUTES: Mapping[str, SAEDirection] = {
    "sae-norm-corrected": SAEDirection(
        lambda _, sae: Substitution(sae.at, substitutions.norm_corrected), "SAE(x)·‖x‖/‖SAE(x)‖ - x", is_random=False
    ),
    "sae-cos-corrected": SAEDirection(
        lambda _, sae: Substitution(sae.at, substitutions.cos_corrected), "x·‖SAE(x)‖/‖x‖ - x", is_random=False
    ),
    "epsilon-random": SAEDirection(
        lambda s, sae: AtDistance(sae.at, Plain(s.isotropic)), "isotropic, with length ε = ‖SAE(x) - x‖"
    ),
    "theta-random-sae-norm": SAEDirection(
        lambda s, sae: ThetaRandom(sae.at, s.isotropic, lambda _, output: output),
        "random vector at SAE(x)'s angle to x, with norm ‖SAE(x)‖, - x",
    ),
    "theta-random-true-norm": SAEDirection(
        lambda s, sae: ThetaRandom(sae.at, s.isotropic, lambda x, _: x),
        "random vector at SAE(x)'s angle to x, with norm ‖x‖, - x",
    ),
    "epsilon-cov-random-mixture": SAEDirection(
        lambda s, sae: AtDistance(sae.at, Mixture(s.gaussian)),
        "cov-random-mixture, with length ε",
        of_length_epsilon="cov-random-mixture",
    ),
    "epsilon-real-mixture": SAEDirection(
        lambda s, sae: AtDistance(sae.at, Mixture(s.real)),
        "real-mixture, with length ε",
        of_length_epsilon="real-mixture",
    ),
}

_TARGETS: Mapping[str, SAEDirection] = {
    "synthetic-baseline-difference": SAEDirection(
        lambda _, sae: Difference(SyntheticBaseline(sae)),
        "decoded latents of x, each replaced by one that fires as often, - x",
        counts_latents=True,
    ),
    "synthetic-structured-difference": SAEDirection(
        lambda _, sae: Difference(SyntheticStructured(sae)),
        "decoded latents of x, replaced by others with the same cosines to the strongest, - x",
        is_random=False,
        counts_latents=True,
        needs_rows=True,
    ),
    "sae-reconstruction-difference": SAEDirection(
        lambda s, sae: Difference(Reconstruction(sae.at, s.real)), "SAE(activation of another sequence) - x"
    ),
}
"""Directions of Giglemiani et al. 2024."""


def _opposite(kind: str) -> SAEDirection:
    one = _SIGNED[kind]
    of_rows = one.of_rows
    return replace(
        one,
        build=lambda s, sae: Minus(one.build(s, sae)),
        of_rows=None if of_rows is None else lambda rows: Minus(of_rows(rows)),
        meaning=f"minus ({one.meaning})",
        opposite_of=kind,
    )


SAE_DIRECTIONS: Mapping[str, SAEDirection] = {
    **_SIGNED,
    "latent-ablation": _opposite("latent-doubling"),
    **{f"minus-{kind}": _opposite(kind) for kind in _SIGNED if kind != "latent-doubling"},
    **_SUBSTITUTES,
    **_TARGETS,
}
"""The registry entries that need an SAE."""
