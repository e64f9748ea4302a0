"""What an SAE object says of itself, what its user says of it, and how its weights are used accordingly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats import bare
from tiltmeter.saes.formats.linear import GATES, THRESHOLD, Facts
from tiltmeter.saes.formats.names import SCHEMES
from tiltmeter.saes.formats.options import Options, options_of
from tiltmeter.saes.formats.saelens_config import metadata_of, read_facts
from tiltmeter.saes.normalisation import NORMALISATIONS

GATED = "gated"


@dataclass(frozen=True)
class WrappedSAE:
    """An object, and what its user says of it: what `wrap_sae` returns."""

    given: Any
    options: Options = field(default_factory=Options)
    version: str | None = None
    decoder: Tensor | None = None
    model: str | None = None


def wrap_sae(
    given: Any,
    *,
    version: str | None = None,
    decoder: Tensor | None = None,
    model: str | None = None,
    hook_name: str | None = None,
    apply_b_dec_to_input: bool | None = None,
    activation: str | None = None,
    k: int | None = None,
    normalize_activations: str | None = None,
) -> WrappedSAE:
    """Say of an SAE object what it does not say itself, as in `Sweep(saes={"mine": tm.wrap_sae(object, k=32)})`.

    Args:
        given: the object.
        version: what identifies its `encode` and `decode`, which are then used as they are, whatever weights it has.
            Change it when they change: a run is resumed only with the same version and the same tensors.
        decoder: its decoder rows, [latent, d_site] or transposed, if it does not have them under a usual name.
        model: the model it belongs to, `gpt2` for example.
        hook_name: TransformerLens name of the site it belongs to.
        apply_b_dec_to_input: whether b_dec is subtracted from the input before encoding.
        activation: `relu`, `topk` or `jumprelu`.
        k: how many latents a top-k SAE keeps.
        normalize_activations: `none`, `layer_norm` or `constant_norm_rescale`, as in SAELens.

    Raises:
        TiltmeterError: a value is wrong, or is said beside a version that concerns only weights.
    """
    convention = {
        "apply_b_dec_to_input": apply_b_dec_to_input,
        "activation": activation,
        "k": k,
        "normalize_activations": normalize_activations,
    }
    said = [key for key, value in convention.items() if value is not None]
    if version is not None and said:
        raise TiltmeterError(
            f"Both a version and {said[0]} were given; a version means that the object's own functions are used, and "
            f"{said[0]} says how its weights are used: give one of them."
        )
    options = options_of("wrap_sae", {**convention, "hook_name": hook_name})
    return WrappedSAE(given, options, version, None if decoder is None else decoder.detach().clone(), model)


def convention_of(
    name: str, said: Options, stated: Options, scheme: str, tensors: Mapping[str, Tensor], has_functions: bool
) -> Options:
    """How the weights are used: as the user says, else as the object's configuration does, else as its format does."""
    known = bare.SCHEMES.get(scheme, bare.Known())
    k = _first(said.k, stated.k)
    subtracts = _first(said.apply_b_dec_to_input, stated.apply_b_dec_to_input, known.subtracts)
    activation = _first(said.activation, known.activation, _implied(said, k, scheme, tensors))
    needed = {"apply_b_dec_to_input": subtracts, "activation": activation}
    if not has_functions and (missing := [key for key, value in needed.items() if value is None]):
        raise TiltmeterError(
            f"{name} does not say {' and '.join(missing)}, and has no encode and decode to compare with; say it: "
            f"tm.wrap_sae(object, {', '.join(f'{key}=...' for key in missing)})."
        )
    if activation == "topk" and k is None:
        raise TiltmeterError(f"{name} is a top-k SAE that does not say its k; say it: tm.wrap_sae(object, k=...).")
    return Options(
        apply_b_dec_to_input=_first(subtracts, True),
        activation=None if activation == GATED else _first(activation, "relu"),
        k=k,
        normalize_activations=_first(said.normalize_activations, stated.normalize_activations),
    )


def _implied(said: Options, k: int | None, scheme: str, tensors: Mapping[str, Tensor]) -> str | None:
    """The activation that the weights imply, or a k; a threshold that is not positive was never set."""
    if SCHEMES[scheme].names.get(GATES[0]) in tensors:
        return GATED
    if said.k is None and THRESHOLD in tensors and bool((tensors[THRESHOLD] > 0).all()):
        return "jumprelu"
    return None if k is None else "topk"


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _configuration(given: object) -> Mapping[str, Any]:
    """What the object's `cfg` or `config` holds."""
    config: Any = getattr(given, "cfg", None) or getattr(given, "config", None)
    if callable(getattr(config, "to_dict", None)):
        config = config.to_dict()
    return config if isinstance(config, Mapping) else getattr(config, "__dict__", {})


def stated_by(given: object) -> Options:
    """The convention that an object's configuration states, or its attribute k."""
    config = _configuration(given)
    k = _first(config.get("k"), getattr(given, "k", None))
    k = int(k) if isinstance(k, int) or (isinstance(k, Tensor) and k.numel() == 1) else None
    subtracts, normalisation = config.get("apply_b_dec_to_input"), config.get("normalize_activations")
    return Options(
        apply_b_dec_to_input=subtracts if isinstance(subtracts, bool) else None,
        k=k,
        normalize_activations=normalisation if normalisation in NORMALISATIONS else None,
    )


def facts_of(said: WrappedSAE) -> Facts:
    """What is known of the SAE: what its configuration states, and over it what the user says."""
    facts = read_facts(metadata_of(_configuration(said.given)))
    said_facts = {"hook_name": said.options.hook_name, "model": said.model}
    return facts | {key: value for key, value in said_facts.items() if value is not None}  # type: ignore[return-value]
