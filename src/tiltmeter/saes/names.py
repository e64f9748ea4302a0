"""The SAEs of a sweep: their short names in its results, and loading them for its site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from torch import Tensor

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.mlp_input import MLPInput, find_mlp_reader
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.affine import unfold_value_biases
from tiltmeter.saes.at_site import DictionaryAtSite, SAEAtSite, TranscoderAtSite
from tiltmeter.saes.compatibility import check_compatible, has_two_streams
from tiltmeter.saes.dictionary import Dictionary, only_saes
from tiltmeter.saes.formats.options import split_options
from tiltmeter.saes.loading import EMBEDDED_SAES, list_embedded, load_any
from tiltmeter.saes.objects import SAEObject, place_object, read_object
from tiltmeter.saes.transcoder import Transcoder

SAEs = tuple[str, ...] | Mapping[str, Any]
"""The SAEs of a sweep: names for `load_sae`, or a mapping of labels to such names and to objects (`SAEObject`)."""


def sae_names(given: Sequence[str], site: Site) -> dict[str, str]:
    """Resolve names and patterns of SAEs at a site: short name, as directions use it, to full name.

    `nano:e2e-*` matches the embedded SAEs of this site.

    Raises:
        TiltmeterError: nothing matches a pattern, or an SAE is named twice.
    """
    return short_names([name for one in given for name in matching(one, site)])


def matching(name: str, site: Site | None = None) -> list[str]:
    """The embedded SAEs that a pattern such as `nano:e2e-*` matches, at a site or at any; a plain name is itself.

    Raises:
        TiltmeterError: nothing matches a pattern.
    """
    if "*" not in name or name.partition(":")[0] not in EMBEDDED_SAES:
        return [name]
    known = [sae for sae, facts in list_embedded().items() if site is None or facts.get("hook_name") == site.name]
    if not (found := [sae for sae in known if fnmatchcase(sae, name)]):
        place = f" at {site.name}" if site else ""
        raise TiltmeterError(f"No embedded SAE{place} matches {name}; available are {', '.join(known) or 'none'}.")
    return found


def labelled(given: SAEs, site: Site) -> dict[str, str | SAEObject]:
    """The SAEs of a sweep by the names that directions use: short names, or those of a mapping.

    Raises:
        TiltmeterError: as `sae_names`; a pattern in a mapping matches several.
    """
    if not isinstance(given, Mapping):
        return dict(sae_names(given, site))
    found: dict[str, str | SAEObject] = {}
    for label, one in given.items():
        names = matching(one, site) if isinstance(one, str) else [one]
        if len(names) > 1:
            raise TiltmeterError(f"The SAE {label} is given by {one}, which matches {len(names)}; give one of them.")
        found[label] = names[0]
    return found


def loaded_by_name(given: SAEs) -> tuple[str, ...]:
    """Those SAEs of a sweep that are given by names for `load_sae`, patterns included."""
    values = given.values() if isinstance(given, Mapping) else given
    return tuple(one for one in values if isinstance(one, str))


def read_saes(given: Any) -> SAEs:
    """Check the SAEs given to a sweep: names, or a mapping of labels to objects and names. Objects are read.

    Raises:
        TiltmeterError: they are neither; an object cannot be read (`read_object`).
    """
    if isinstance(given, Mapping):
        if wrong := [one for one in given if not (isinstance(one, str) and one.strip() and one.isprintable())]:
            raise TiltmeterError(f"An SAE has the name {wrong[0]!r}; expected a text of one line that is not empty.")
        return {label: one if isinstance(one, str) else read_object(label, one) for label, one in given.items()}
    if isinstance(given, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in given):
        return tuple(given)
    if isinstance(given, str):
        raise TiltmeterError(f"saes= was the text {given!r}; give a tuple of names: saes=({given!r},).")
    raise TiltmeterError(
        f"saes= was of type {type(given).__name__}; give names, as (NAME,), or objects with names of your own, as "
        "{'mine': sae}."
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Shorten each name to what follows the last `/` or `:`, without options (`nano:e2e-3-l0-12` to `e2e-3-l0-12`).

    Names whose short forms would be equal stay whole.

    Returns:
        Short name to name.

    Raises:
        TiltmeterError: a name is given twice.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise TiltmeterError(f"The SAE {repeated[0]} is listed twice; list each SAE once.")
    short = [split_options(name).name.rstrip("/").replace(":", "/").split("/")[-1] for name in names]
    return {own if short.count(own) == 1 else name: name for own, name in zip(short, names, strict=True)}


def place(given: str | SAEObject, model: SplitModel, site: Site, tokens: TokenSet) -> SAEAtSite | DictionaryAtSite:
    """Place an SAE at a site of a model: load the one of this name, or check an object on the first of the tokens.

    Raises:
        TiltmeterError: as `load_rows_at_site` and `place_object`.
    """
    if isinstance(given, str):
        return load_rows_at_site(given, model, site)
    return place_object(given, model, site, tokens)


def load_at_site(name: str, model: SplitModel, site: Site) -> SAEAtSite:
    """Load an SAE for a site of a model, in the model's precision and on its device.

    Raises:
        TiltmeterError: there is no such SAE, or it belongs to another model, site or stream; it is another dictionary.
    """
    at = load_rows_at_site(name, model, site)
    only_saes(at.sae)
    assert isinstance(at, SAEAtSite)
    return at


def load_rows_at_site(name: str, model: SplitModel, site: Site) -> SAEAtSite | DictionaryAtSite:
    """The same for an SAE or another dictionary, of which only the decoder rows are used.

    Raises:
        TiltmeterError: there is none, or it belongs to another model, site or stream.
    """
    loaded = load_any(name, site.name)
    check_compatible(loaded, model, site)
    if isinstance(loaded, Dictionary):
        return dictionary_at_site(loaded.to(model.device, model.hf.dtype), model, site)
    sae = unfold_value_biases(loaded, model, site).to(model.device, model.hf.dtype)
    return SAEAtSite(sae, site, lambda x: model.centre(x, site))


def dictionary_at_site(loaded: Dictionary, model: SplitModel, site: Site) -> DictionaryAtSite:
    """Bind a dictionary to a site; a transcoder of an MLP also to what that MLP reads, which is found when needed."""

    def centre(x: Tensor) -> Tensor:
        return model.centre(x, site)

    if not isinstance(loaded, Transcoder) or site.kind != "mlp_out":
        return DictionaryAtSite(loaded, site, centre)
    find = cache(lambda: find_mlp_reader(model, site.layer))
    # TransformerLens does not centre the stream of models without LayerNorm, even where its options say so.
    centred = loaded.about.processing == "centred" and has_two_streams(model, site)

    def inputs(tokens: Tensor) -> dict[MLPInput, Tensor]:
        found = find().inputs(model, tokens)
        if centred:
            found["hook_resid_mid"] = found["hook_resid_mid"] - found["hook_resid_mid"].mean(-1, keepdim=True)
        return found

    return TranscoderAtSite(loaded, site, centre, inputs)
