"""The configuration of a sweep, and the plan in which its names have been looked up in a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator
from transformers import PreTrainedTokenizerBase

from tiltmeter.analysis.confidence_sequences import FIRST_LOOK
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError, did_you_mean
from tiltmeter.models.positions import BosPolicy, MassivePolicy, Positions, parse_positions
from tiltmeter.models.readouts import Readout
from tiltmeter.models.site_names import check_sites
from tiltmeter.models.sites import Site, check_visible
from tiltmeter.models.split_model import SplitModel, Stream
from tiltmeter.perturb.bases import SAE_BASES, check_base_name
from tiltmeter.perturb.names import ALONG, BaseName, DirectionName
from tiltmeter.perturb.own_directions import (
    Directions,
    OwnDirection,
    check_positions,
    of_vector,
    read_directions,
    shown,
)
from tiltmeter.perturb.paths import Path as PerturbationPath
from tiltmeter.perturb.paths import Sphere, Straight, Substitute
from tiltmeter.perturb.registry import check_direction_name, check_suits, counts_latents, needs_rows, needs_sae
from tiltmeter.perturb.user_vectors import load_vectors
from tiltmeter.runs.config import Configuration
from tiltmeter.runs.rng import random_order
from tiltmeter.runs.versions import refuse_unversioned
from tiltmeter.saes.at_site import DictionaryAtSite, RowsAtSite, SAEAtSite
from tiltmeter.saes.names import SAEs, labelled, place, read_saes
from tiltmeter.saes.objects import SAEObject
from tiltmeter.saes.synthetic import Synthesis
from tiltmeter.sweeps.given_readouts import Readouts, look_up_readouts, read_readouts, shown_readouts

Count = Annotated[int, Field(ge=1)]

DEFAULT_DIRECTIONS = (
    "isotropic",
    "isotropic-difference",
    "cov-random-difference",
    "cov-random-mixture",
    "real-difference",
    "real-mixture",
)
"""The default directions of a sweep."""


STATISTICS_SEQUENCES = 2048
"""At most so many sequences are used for statistics by default."""


def _shown(saes: SAEs) -> Any:
    """How a configuration is dumped: names as they are, an object as its hash."""
    if not isinstance(saes, Mapping):
        return saes
    return {label: one if isinstance(one, str) else one.sha256 for label, one in saes.items()}


def _one_text(site: Any) -> Any:
    """Names of several sites as one text."""
    return ",".join(site) if isinstance(site, list | tuple) and all(isinstance(one, str) for one in site) else site


PATHS = {"straight": Straight, "sphere": Sphere, "substitute": Substitute}
"""The kinds of path."""

PATHS_SHOWN = "tm.Straight(lengths=(0, 1, 2)), tm.Sphere(degrees=(0, 90)) or tm.Substitute()"


def _a_path(path: Any) -> Any:
    """Refuse what is no path, in words that say which there are."""
    if isinstance(path, Configuration):
        return path
    if not isinstance(path, Mapping):
        raise ValueError(f"give a path: {PATHS_SHOWN}")
    kind = path.get("kind")
    if kind in PATHS:
        return path
    if kind is not None:
        raise ValueError(f"{kind!r} is not a kind of path{did_you_mean(str(kind), PATHS)}; give {PATHS_SHOWN}")
    known = list(dict.fromkeys(name for one in PATHS.values() for name in one.model_fields))
    if wrong := [str(name) for name in path if name not in known]:
        raise ValueError(f"a path has no {wrong[0]}{did_you_mean(wrong[0], known)}; give {PATHS_SHOWN}")
    raise ValueError(f"its kind is missing; give {PATHS_SHOWN}")


def _possible(sites: str) -> str:
    """Refuse names that can be no sites of any model."""
    check_sites(sites)
    return sites


class Sweep(Configuration):
    """Configuration of a sweep. Together with model, tokens and code, it fully determines the numbers."""

    site: Annotated[str, BeforeValidator(_one_text), AfterValidator(_possible)]
    """Where activations are perturbed, e.g. `blocks.6.hook_resid_pre` or `resid_pre:6`. Or several sites, one after the
    other: `resid_pre:*`, `resid_pre:3,mlp_out:3`, or a list of names."""
    directions: Annotated[Directions, PlainValidator(read_directions), PlainSerializer(shown)] = DEFAULT_DIRECTIONS
    """Names of directions; `along:FILE` for your own vectors. An SAE direction without an SAE's name (`sae-error`) is
    expanded to one for every SAE of the sweep (`sae-error:NAME`). Or a mapping of labels to vectors, functions and
    `Direction` objects, and of names to `...` (`tiltmeter.perturb.own_directions`): `{"mine": v, "isotropic": ...}`."""
    saes: Annotated[SAEs, PlainValidator(read_saes), PlainSerializer(_shown)] = ()
    """SAEs, named as in `load_sae`; a pattern such as `nano:e2e-*` matches nano's SAEs at the site. Or a mapping of
    names of your own to SAE objects (`tiltmeter.saes.objects`) and to names for `load_sae`: `{"mine": sae}`."""
    base: str = "clean"
    """Start of the paths: `clean` (the activation itself), or the name of another base."""
    synthesis: Synthesis = Synthesis()
    """Parameters for synthesising activations from latents (Giglemiani et al. 2024)."""
    stream: Stream = "centred"
    """Whether a LayerNorm model's residual stream is centred before measuring."""
    path: Annotated[PerturbationPath, BeforeValidator(_a_path)]
    """How far along: `Straight(lengths=...)`, `Sphere(degrees=...)` or `Substitute()`."""
    readouts: Annotated[Readouts, PlainValidator(read_readouts), PlainSerializer(shown_readouts)] = ("kl",)
    """Names of readouts; or a mapping of labels to functions, and of names to `...`
    (`tiltmeter.sweeps.given_readouts`): `{"mine": f, "kl": ...}`."""
    sequences: Count = 192
    """Number of sequences to measure, from the start of the token set. Not given: at most 192, or all there are."""
    until_ci: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Stop once the half-width of every mean's interval is at most this fraction of the mean
    (`tiltmeter.analysis.stopping`). Sequences are then taken in random order, and `sequences` is their maximum
    number."""
    positions: str = "all"
    """Positions to perturb and read: `all`, `last`, `32`, `32+16`, `3,7,9`."""
    bos: BosPolicy = BosPolicy()
    massive: MassivePolicy = MassivePolicy()
    keep_positions: bool = False
    """Keep every read position instead of averaging over each sequence."""
    seed: int = 0
    statistics_sequences: Count = STATISTICS_SEQUENCES
    """Maximum number of sequences for the mean, the covariance and the pool of real activations."""
    statistics_positions: Literal["all", "perturbed"] = "all"
    """Positions of these sequences to use: all, or the perturbed ones (Heimersheim & Mendel 2024 and Giglemiani et al.
    2024 use the last of ten tokens)."""
    pool: Count = 32768
    """Maximum number of real activations in the pool."""
    shard: Count = 16
    """Sequences per shard."""
    batch_tokens: Count = 8192
    """Perturbed tokens in memory at once."""

    @property
    def sequences_to_load(self) -> int:
        """Enough sequences to measure, and for the statistics."""
        return max(self.sequences, self.statistics_sequences)


@dataclass(frozen=True)
class Plan:
    """A sweep whose names have been looked up in a model and a token set."""

    sweep: Sweep
    model: SplitModel
    tokens: TokenSet
    site: Site
    readouts: tuple[Readout, ...]
    positions: Positions
    directions: tuple[DirectionName, ...]
    """Direction names, expanded to one per row of a vectors file and per SAE."""
    own: dict[DirectionName, OwnDirection]
    """The user's directions: vectors of files (`along:...`), and objects."""
    base: BaseName
    saes: dict[str, SAEAtSite]
    """The SAEs that a direction or the base needs, keyed by the names used there."""
    dictionaries: dict[str, DictionaryAtSite] = field(default_factory=dict)
    """The same for transcoders, crosscoders and others of which only decoder rows are used."""
    massive_above: float = math.inf
    """Activations with larger norms are massive. Known once the statistics of the site are."""

    @property
    def statistics_positions(self) -> tuple[int, ...] | None:
        """Positions used for statistics; None for all."""
        return None if self.sweep.statistics_positions == "all" else self.positions.perturbed

    @property
    def order(self) -> Sequence[int]:
        """Sequence indices, in the order of measurement."""
        if self.sweep.until_ci is None:
            return range(self.sweep.sequences)
        return random_order(self.sweep.sequences, self.sweep.seed)

    def check_storable(self) -> None:
        """Check that a run in a run directory can be resumed with what it was begun with.

        Raises:
            TiltmeterError: a direction or a readout is a function without a version.
        """
        functions = {str(name): one.function for name, one in self.own.items() if one.function is not None}
        refuse_unversioned("direction", functions)
        refuse_unversioned("readout", {one.name: one.own.function for one in self.readouts if one.own is not None})

    @property
    def counted_saes(self) -> tuple[str, ...]:
        """SAEs whose latent statistics a direction or the base needs."""
        wanted = {name.argument for name in self.directions if counts_latents(name.kind)}
        if self.base.kind in SAE_BASES and SAE_BASES[self.base.kind].counts_latents:
            wanted.add(self.base.argument)
        return tuple(label for label in self.saes if label in wanted)


def make_plan(
    sweep: Sweep, model: SplitModel, tokens: TokenSet, tokenizer: PreTrainedTokenizerBase | None = None
) -> Plan:
    """Look up every name of a sweep, and check SAE objects on the first of the tokens.

    The tokenizer finds the tokens that readouts name by their text (`prob:yes`).

    Raises:
        TiltmeterError: a site, direction, readout, position or SAE does not exist; an SAE belongs to another site or
            model, or no direction uses the SAEs; there are fewer sequences than requested, or than `until_ci` needs.
    """
    model = model.measured_in(sweep.stream)
    if "sequences" not in sweep.model_fields_set:
        sweep = sweep.model_copy(update={"sequences": min(sweep.sequences, len(tokens.ids))})
    if len(tokens.ids) < sweep.sequences:
        raise TiltmeterError(
            f"{sweep.sequences} sequences were requested, but {tokens.name} gave {len(tokens.ids)}; request "
            "at most that many."
        )
    if sweep.until_ci is not None and sweep.sequences < FIRST_LOOK:
        raise TiltmeterError(
            f"No mean can be known of {sweep.sequences} sequences: the first look is after {FIRST_LOOK}; ask for as "
            "many, better a thousand (--sequences), or leave --until-ci out."
        )
    site = model.site(sweep.site)
    readouts = look_up_readouts(sweep.readouts, model, tokenizer)
    for readout in readouts:
        if readout.site is not None:
            check_visible(readout.site, site)
    positions = parse_positions(sweep.positions, tokens.ids.shape[1])
    given = labelled(sweep.saes, site)
    directions, own, base = look_up(sweep, tuple(given))
    for name, direction in own.items():
        check_positions(name, direction, tokens.ids.shape[1])
    used = _used(given, directions, base)
    found = {label: place(one, model, site, tokens) for label, one in used.items()}
    _refuse_equal(found)
    saes = {label: at for label, at in found.items() if isinstance(at, SAEAtSite)}
    others = {label: at for label, at in found.items() if isinstance(at, DictionaryAtSite)}
    asked: tuple[DirectionName | BaseName, ...] = (*directions, base)
    for one in asked:
        if one.argument in found:
            check_suits(one, found[one.argument])
    _refuse_without_rows(saes, directions, base)
    return Plan(sweep, model, tokens, site, readouts, positions, directions, own, base, saes, others)


Given = str | SAEObject


def _used(saes: dict[str, Given], directions: tuple[DirectionName, ...], base: BaseName) -> dict[str, Given]:
    """Select the SAEs that a direction or the base needs, to avoid loading and measuring the others."""
    labels = {name.argument for name in directions if needs_sae(name.kind)}
    if base.kind in SAE_BASES:
        labels.add(base.argument)
    if saes and not labels:
        label, first = next(iter(saes.items()))
        raise TiltmeterError(
            f"The SAE {first if isinstance(first, str) else label} was given, but no direction or base uses an SAE; "
            "add one, such as sae-error, or leave the SAE out."
        )
    return {label: one for label, one in saes.items() if label in labels}


def _refuse_equal(saes: Mapping[str, RowsAtSite]) -> None:
    seen: dict[str, str] = {}
    for label, at in saes.items():
        if (other := seen.setdefault(at.sae.about.sha256, label)) != label:
            raise TiltmeterError(f"The SAEs {other} and {label} have the same weights; give each once.")


def _refuse_without_rows(saes: dict[str, SAEAtSite], directions: tuple[DirectionName, ...], base: BaseName) -> None:
    """Refuse directions and a base that need decoder rows of an SAE whose rows are not known."""
    wanting: list[DirectionName | BaseName] = [name for name in directions if needs_rows(name.kind)]
    if base.kind in SAE_BASES and SAE_BASES[base.kind].needs_rows:
        wanting.append(base)
    for name in wanting:
        if name.argument in saes and not saes[name.argument].has_rows:
            raise TiltmeterError(
                f"{name} needs decoder rows, and no matrix of {name.argument} was found whose rows its decode adds; "
                "give them with tm.wrap_sae(object, decoder=...), or leave the direction out."
            )


class LookedUp(NamedTuple):
    """The parsed names of a sweep, all known to exist."""

    directions: tuple[DirectionName, ...]
    own: dict[DirectionName, OwnDirection]
    base: BaseName


def look_up(sweep: Sweep, saes: tuple[str, ...]) -> LookedUp:
    """Parse the names of directions and base, and expand those that refer to several.

    `along:FILE` expands to one name per vector of the file, and `sae-error` to one per SAE.

    Raises:
        TiltmeterError: a direction or base does not exist; a direction is listed twice; a file contains no vectors.
    """
    own: dict[DirectionName, OwnDirection] = {}
    directions: list[DirectionName] = []
    objects = sweep.directions if isinstance(sweep.directions, Mapping) else {}
    for text in sweep.directions:
        if (given := objects.get(text)) is not None:
            own[name := DirectionName(text)] = given
            directions.append(name)
        elif (name := DirectionName.parse(text)).kind == ALONG and name.argument is not None:
            found = {one: of_vector(vector) for one, vector in load_vectors(name, sweep.site).items()}
            own |= found
            directions += found
        else:
            some = _for_each_sae(name, saes)
            for one in some:
                check_direction_name(one, saes)
            directions += some
    if repeated := sorted({str(name) for name in directions if directions.count(name) > 1}):
        raise TiltmeterError(
            f"The direction {repeated[0]} is listed twice; list each once, and give vector files different names."
        )
    base = BaseName.parse(sweep.base)
    check_base_name(base, saes)
    return LookedUp(tuple(directions), own, base)


def _for_each_sae(name: DirectionName, saes: tuple[str, ...]) -> list[DirectionName]:
    if needs_sae(name.kind) and name.argument is None and saes:
        return [replace(name, argument=sae) for sae in saes]
    return [name]
