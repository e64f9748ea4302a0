"""What a sweep is, and a sweep whose names have been looked up in a model and a token set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from tiltmeter.analysis.confidence_sequences import FIRST_LOOK
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy, Positions, parse_positions
from tiltmeter.models.readouts import Readout, parse_readout
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel, Stream
from tiltmeter.perturb.bases import COUNTING_BASES, SAE_BASES, check_base_name
from tiltmeter.perturb.names import split_draw
from tiltmeter.perturb.paths import Path as PerturbationPath
from tiltmeter.perturb.registry import DIRECTIONS, check_direction_name
from tiltmeter.perturb.sae_directions import COUNTING, SAE_DIRECTIONS
from tiltmeter.perturb.user_vectors import PREFIX, load_vectors
from tiltmeter.runs.config import Configuration
from tiltmeter.runs.rng import random_order
from tiltmeter.saes.at_site import AtSite
from tiltmeter.saes.names import load_at_site, sae_names
from tiltmeter.saes.synthetic import Synthesis

Count = Annotated[int, Field(ge=1)]


class Sweep(Configuration):
    """What is measured. Everything here, and nothing else but model, tokens and code, decides the numbers."""

    site: str
    """Where activations are moved, e.g. `blocks.6.hook_resid_pre` or `resid_pre:6`."""
    directions: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(DIRECTIONS)
    """Names of directions; `along:FILE` for vectors of one's own. An SAE's direction without the name of an SAE
    (`sae-error`) stands for that of every SAE of the sweep (`sae-error:NAME`)."""
    saes: tuple[str, ...] = ()
    """SAEs, as `load_sae` names them; `nano:e2e-*` stands for all of nano's at the site that it matches."""
    base: str = "clean"
    """Where paths begin: `clean` (the activation), or the name of another base."""
    synthesis: Synthesis = Synthesis()
    """How synthetic activations are made of latents (Giglemiani et al. 2024)."""
    stream: Stream = "centred"
    """How a LayerNorm model's residual stream is measured."""
    path: PerturbationPath
    readouts: Annotated[tuple[str, ...], Field(min_length=1)] = ("kl",)
    sequences: Count = 192
    """How many sequences are measured: the first of the token set."""
    until_ci: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Stop as soon as half the interval of every mean is at most this share of it (`tiltmeter.analysis.stopping`).
    Sequences are then taken in random order, and `sequences` is how many that may be at most."""
    positions: str = "all"
    """Positions that are perturbed and read: `all`, `last`, `32`, `32+16`, `3,7,9`."""
    bos: BosPolicy = BosPolicy()
    keep_positions: bool = False
    """Keep every read position apart instead of a sequence's mean."""
    seed: int = 0
    statistics_sequences: Count = 2048
    """How many sequences, at most, the mean, the covariance and the pool of real activations are taken from."""
    statistics_positions: Literal["all", "perturbed"] = "all"
    """The positions of these sequences that they are taken at: all, or those that are perturbed (Heimersheim & Mendel
    2024 and Giglemiani et al. 2024 take the last of ten tokens)."""
    pool: Count = 32768
    """How many real activations the pool holds, at most."""
    shard: Count = 16
    """Sequences a shard."""
    batch_tokens: Count = 8192
    """Perturbed tokens that are in memory at once."""


@dataclass(frozen=True)
class Plan:
    """A sweep whose names have been looked up in a model."""

    sweep: Sweep
    model: SplitModel
    tokens: TokenSet
    site: Site
    readouts: tuple[Readout, ...]
    positions: Positions
    directions: tuple[str, ...]
    """With each row of a vectors file, and each SAE, under its own name."""
    vectors: dict[str, Tensor]
    saes: dict[str, AtSite]
    """Those that a direction or the base is of, by the names that these give them."""

    @property
    def statistics_positions(self) -> tuple[int, ...] | None:
        """The positions that statistics are taken at; None for all."""
        return None if self.sweep.statistics_positions == "all" else self.positions.perturbed

    @property
    def order(self) -> Sequence[int]:
        """The sequences, in the order in which they are measured."""
        if self.sweep.until_ci is None:
            return range(self.sweep.sequences)
        return random_order(self.sweep.sequences, self.sweep.seed)

    @property
    def counted_saes(self) -> tuple[str, ...]:
        """Those whose latents' statistics a direction or the base asks for."""
        kinds = COUNTING | COUNTING_BASES
        parts = [split_draw(name).name.partition(":") for name in (*self.directions, self.sweep.base)]
        wanted = {label for kind, _, label in parts if kind in kinds}
        return tuple(label for label in self.saes if label in wanted)


def make_plan(sweep: Sweep, model: SplitModel, tokens: TokenSet) -> Plan:
    """Look up every name of a sweep.

    Raises:
        TiltmeterError: a site, direction, readout, position or SAE that does not exist; an SAE of another site or
            model, or SAEs that nothing uses; fewer sequences than asked for, or than `until_ci` needs.
    """
    model = model.measured_in(sweep.stream)
    if len(tokens.ids) < sweep.sequences:
        raise TiltmeterError(
            f"{sweep.sequences} sequences were asked for, but {tokens.name} gave {len(tokens.ids)}; ask for at most "
            "that many."
        )
    if sweep.until_ci is not None and sweep.sequences < FIRST_LOOK:
        raise TiltmeterError(
            f"No mean can be known of {sweep.sequences} sequences: the first look is after {FIRST_LOOK}; ask for as "
            "many, better a thousand (--n-sequences), or leave --until-ci out."
        )
    site = model.site(sweep.site)
    readouts = tuple(parse_readout(name, model) for name in dict.fromkeys(sweep.readouts))
    positions = parse_positions(sweep.positions, tokens.ids.shape[1])
    names = sae_names(sweep.saes, site)
    directions, vectors = look_up(sweep.directions, tuple(names))
    check_base_name(sweep.base, tuple(names))
    used = _used(names, (*directions, sweep.base))
    saes = {label: load_at_site(name, model, site) for label, name in used.items()}
    _refuse_equal(saes)
    return Plan(sweep, model, tokens, site, readouts, positions, directions, vectors, saes)


def _used(saes: dict[str, str], wanted: tuple[str, ...]) -> dict[str, str]:
    """Those SAEs that a direction or base is of: loading and measuring the others would be for nothing."""
    parts = [split_draw(name).name.partition(":") for name in wanted]
    labels = {label for kind, _, label in parts if kind in SAE_DIRECTIONS or kind in SAE_BASES}
    if saes and not labels:
        raise TiltmeterError(
            f"The SAE {next(iter(saes.values()))} was given, but no direction and no base is of an SAE; name one, as "
            "sae-error, or give no SAE."
        )
    return {label: name for label, name in saes.items() if label in labels}


def _refuse_equal(saes: dict[str, AtSite]) -> None:
    seen: dict[str, str] = {}
    for label, at in saes.items():
        if (other := seen.setdefault(at.sae.about.sha256, label)) != label:
            raise TiltmeterError(f"The SAEs {other} and {label} have the same weights; give each once.")


def look_up(names: tuple[str, ...], saes: tuple[str, ...] = ()) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Every direction, with each row of a vectors file and each of these SAEs under its own name, and the vectors.

    Raises:
        TiltmeterError: a direction that does not exist or is named twice; a file that holds no vectors.
    """
    vectors: dict[str, Tensor] = {}
    directions: list[str] = []
    for name in names:
        if name.startswith(PREFIX):
            found = load_vectors(name)
            vectors |= found
            directions += found
        elif split_draw(name).name in SAE_DIRECTIONS and saes:
            directions += [f"{name}:{sae}" for sae in saes]
        else:
            check_direction_name(name, saes)
            directions.append(name)
    if repeated := sorted({name for name in directions if directions.count(name) > 1}):
        raise TiltmeterError(
            f"The direction {repeated[0]} is asked for twice; name each once, and "
            "give files of vectors different names."
        )
    return tuple(directions), vectors
