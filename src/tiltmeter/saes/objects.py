"""SAEs given as Python objects: how each is read, and its checks on real activations of the site.

An SAE of tiltmeter is used as it is. An object of SAELens and one with four weights under known names are rebuilt from
their weights, and compared with their own `encode` and `decode`. Anything else is used through these two functions.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.affine import AffineSAE, unfold_value_biases
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.compatibility import check_compatible
from tiltmeter.saes.dictionary import Dictionary, only_saes
from tiltmeter.saes.formats import bare, openai, saelens_folder
from tiltmeter.saes.formats.linear import THRESHOLD, fingerprints_of
from tiltmeter.saes.formats.lm_saes import LOG_THRESHOLD
from tiltmeter.saes.formats.names import SCHEMES, scheme_of
from tiltmeter.saes.formats.options import Options
from tiltmeter.saes.formats.saelens_config import (
    ARCHITECTURES,
    UNFINISHED,
    check_target,
    current_config,
)
from tiltmeter.saes.formats.tensors import Stored
from tiltmeter.saes.object_checks import are_rows, check_agrees, check_functions
from tiltmeter.saes.object_forward import check_forward
from tiltmeter.saes.object_hashes import identify, identify_version, tensors_of
from tiltmeter.saes.object_options import WrappedSAE, convention_of, facts_of, stated_by
from tiltmeter.saes.own_functions import OwnSAE, is_saelens, own_functions
from tiltmeter.saes.sae import SAE, About, LinearSAE

CHECKED = 256
"""Tokens on which an object is checked."""

_DECODERS = (*dict.fromkeys(scheme.names["W_dec"] for scheme in SCHEMES.values()), "decoder")
"""Usual names of a decoder's matrix."""

_CONVENTIONS = ("apply_b_dec_to_input", "activation", "k", "normalize_activations")
"""Options that say how weights are used."""


@dataclass(frozen=True)
class SAEObject:
    """An SAE read from an object, which is not used before it is checked at the site. Equal if its hash is."""

    sha256: str
    sae: SAE = field(compare=False, repr=False)
    own: OwnSAE | None = field(default=None, compare=False, repr=False)
    """The object's own functions, which an SAE rebuilt from weights is compared with."""
    whole: OwnSAE | None = field(default=None, compare=False, repr=False)
    """The object, whose `forward` is compared with the reconstruction; None if that is not asked for."""
    decoder: Tensor | None = field(default=None, compare=False, repr=False)
    """The decoder matrix that the user gave."""


def read_object(name: str, given: object) -> SAEObject:
    """Read an SAE from an object, which is copied and not changed.

    Args:
        name: its name in the run.
        given: an SAE of tiltmeter, an object of SAELens, one with weights or with `encode` and `decode`, or any of
            these in `wrap_sae`.

    Raises:
        TiltmeterError: it is none of these, or what it computes cannot be hashed.
    """
    if isinstance(given, SAEObject):
        return given
    said = given if isinstance(given, WrappedSAE) else WrappedSAE(given)
    if isinstance(said.given, type):
        raise TiltmeterError(f"{name} is the class {said.given.__name__}; give an object of it.")
    if isinstance(said.given, Dictionary):
        raise TiltmeterError(
            f"{name} is {said.given.what}, and such dictionaries are not taken as objects; give the name that it is "
            "loaded by."
        )
    if empty := [key for key, tensor in tensors_of(said.given).items() if tensor.is_meta]:
        raise TiltmeterError(
            f"{name} has no values in {empty[0]}, which is on the device meta; load its weights first."
        )
    if isinstance(said.given, SAE) and isinstance(said.given.about, About):
        return _of_tiltmeter(name, said)
    if is_saelens(said.given):
        return _of_saelens(name, said)
    if said.version is None and (scheme := _scheme(said.given)):
        return _of_weights(name, said, scheme)
    return _of_functions(name, said)


def _of_tiltmeter(name: str, said: WrappedSAE) -> SAEObject:
    if said.options != Options() or any(one is not None for one in (said.version, said.decoder, said.model)):
        raise TiltmeterError(f"{name} is an SAE of tiltmeter, which says itself how it is used; give it as it is.")
    sae = deepcopy(said.given)
    if not isinstance(sae, (LinearSAE, AffineSAE)):
        return SAEObject(sae.about.sha256, sae)
    if isinstance(sae, LinearSAE) and sae.about.sha256 in fingerprints_of(sae):
        return SAEObject(sae.about.sha256, sae)
    sha256 = identify(name, sae)  # its fields may have been replaced since the hash was taken
    return SAEObject(sha256, replace(sae, about=replace(sae.about, sha256=sha256)))


def _of_saelens(name: str, said: WrappedSAE) -> SAEObject:
    """The SAE of a SAELens object, rebuilt from its weights if tiltmeter reads its architecture."""
    config = current_config(name, said.given.cfg.to_dict())
    check_target(name, config)
    architecture = config["architecture"]
    if architecture in UNFINISHED:
        raise TiltmeterError(
            f"{name} is a {architecture} SAE in training, whose latents depend on the batch; save it with "
            "save_inference_model and give what SAE.load_from_disk returns."
        )
    if architecture not in ARCHITECTURES or said.version is not None:
        return _of_functions(name, said)
    _refuse_beside(name, said, "the configuration of SAELens")
    weights = {key: tensor.detach().cpu() for key, tensor in said.given.state_dict().items()}
    sae = saelens_folder.build(name, config, weights)
    return SAEObject(sae.about.sha256, sae, own_functions(sae.about, said.given))


def _of_weights(name: str, said: WrappedSAE, scheme: str) -> SAEObject:
    """The SAE of weights under known names. Where nothing else is said, b_dec is subtracted, as in SAELens."""
    given = said.given
    if said.decoder is not None:
        raise TiltmeterError(f"{name} has a decoder matrix among its weights; leave out decoder=, or give a version.")
    tensors, facts = tensors_of(given), facts_of(said)
    stated, has_functions = stated_by(given), hasattr(given, "encode") or hasattr(given, "decode")
    known = {*SCHEMES[scheme].names.values(), *SCHEMES[scheme].ignored, THRESHOLD} - {LOG_THRESHOLD}
    if has_functions:  # what other tensors do will be seen
        tensors = {key: tensor for key, tensor in tensors.items() if key in known}
    options = convention_of(name, said.options, stated, scheme, tensors, has_functions)
    sae = only_saes(bare.load_bare(Path(), Stored(tensors, {}), name, options))
    sae = replace(sae, about=replace(sae.about, **facts))
    whole = own_functions(sae.about, given)
    return SAEObject(sae.about.sha256, sae, whole if has_functions else None, whole)


def _of_functions(name: str, said: WrappedSAE) -> SAEObject:
    given = said.given
    if not (callable(getattr(given, "encode", None)) and callable(getattr(given, "decode", None))):
        raise TiltmeterError(
            f"{name} is of type {type(given).__name__}, which is no SAE: it has neither weights under known names nor "
            "encode and decode; give an SAE of tiltmeter, one of SAELens, a module with W_enc, b_enc, W_dec and b_dec, "
            "or an object with encode and decode."
        )
    _refuse_beside(name, said, "its own encode and decode")
    about = About(name, f"own functions of {type(given).__qualname__}", "", **facts_of(said))
    own = own_functions(about, given)
    sha256 = identify(name, own.given) if said.version is None else identify_version(own.given, said.version)
    own = replace(own, about=replace(about, sha256=sha256))
    compared = None if said.version is not None or is_saelens(given) else own
    return SAEObject(sha256, own, whole=compared, decoder=said.decoder)


def _refuse_beside(name: str, said: WrappedSAE, what: str) -> None:
    """Refuse conventions beside what decides them."""
    if found := [key for key in _CONVENTIONS if getattr(said.options, key) is not None]:
        raise TiltmeterError(f"How {name} is used is decided by {what}; leave out {found[0]}=.")


def _scheme(given: object) -> str | None:
    """The scheme of names of an object's weights; None if its tensors have other names."""
    try:
        scheme = scheme_of("", tensors_of(given))
    except TiltmeterError:
        return None
    return None if scheme == openai.SCHEME else scheme


@torch.no_grad()
def place_object(given: SAEObject, model: SplitModel, site: Site, tokens: TokenSet) -> SAEAtSite:
    """Check an SAE read from an object on activations of the site, and place it there.

    Args:
        given: the SAE.
        model: the model, set to the stream (centred or raw) in which activations are measured.
        site: where the SAE is used.
        tokens: token sequences, of which the first are used.

    Raises:
        TiltmeterError: it belongs to another model, site or stream; it is not what its weights say; or its functions
            cannot be used (`check_functions`).
    """
    sae = given.sae.to(model.device, torch.float32)
    count = -(-CHECKED // tokens.ids.shape[1])
    x = model.activation(tokens.ids[:count], site).flatten(0, 1)[:CHECKED].float()
    if isinstance(sae, OwnSAE):
        latents = sae.encode(x[:1])
        sae = replace(sae, shape=(latents.shape[-1], sae.decode(latents).shape[-1]))
    check_compatible(sae, model, site)
    if given.own is not None:
        assert isinstance(sae, LinearSAE)
        check_agrees(sae, given.own.to(model.device, torch.float32), x)
    check_functions(sae, x)
    if given.whole is not None:
        check_forward(sae, given.whole.to(model.device, torch.float32), x)
    if isinstance(sae, OwnSAE):
        sae = replace(sae, rows=_rows(sae, given.decoder, x))
    exact = given.sae.to(model.device, model.hf.dtype)
    if isinstance(exact, OwnSAE) and isinstance(sae, OwnSAE):
        rows = None if sae.rows is None else sae.rows.to(model.hf.dtype)
        exact = replace(exact, shape=sae.shape, rows=rows)
    placed = unfold_value_biases(exact, model, site).to(model.device, model.hf.dtype)
    return SAEAtSite(placed, site, lambda x: model.centre(x, site))


def _rows(sae: OwnSAE, given: Tensor | None, x: Tensor) -> Tensor | None:
    """The decoder rows: the matrix that the user gave, or one under a usual name; None if there is none.

    A matrix counts only if a latent that grows moves the reconstruction by its row.
    """
    named = tensors_of(sae.given)
    candidates = [given] if given is not None else [named[key] for key in _DECODERS if key in named]
    for one in candidates:
        for rows in (one, one.mT) if one.ndim == 2 else ():
            if tuple(rows.shape) == sae.shape and are_rows(sae, rows, x):
                return rows.to(x).contiguous()
    if given is not None:
        raise TiltmeterError(
            f"The decoder given for {sae.about.name}, of shape {list(given.shape)}, is not its decoder: a latent that "
            f"grows moves its reconstruction in another way; expected {list(sae.shape)}."
        )
    return None
