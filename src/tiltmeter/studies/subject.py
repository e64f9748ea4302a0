"""Finding out, before anything is measured, what a study is to be run on."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.progress import progress
from tiltmeter.saes.compatibility import check_compatible, own_site
from tiltmeter.saes.loading import EMBEDDED_SAES, list_embedded, load_sae
from tiltmeter.studies.study import KnownSAE, Study, Subject


def make_subject(study: Study, loaded: LoadedModel, layer: int | None, saes: Sequence[str], seed: int) -> Subject:
    """A study's subject.

    Args:
        study: which study.
        loaded: the model.
        layer: where the paper's layer is here; None for the same part of the depth.
        saes: names, as `load_sae` takes them; `nano:*` means all of nano's, at any site.
        seed: of every random vector.

    Raises:
        TiltmeterError: a layer that the model does not have; an SAE that does not exist, is of another model, or is
            named twice.
    """
    model = loaded.model
    if layer is not None and not 0 <= layer < model.n_layers:
        raise TiltmeterError(
            f"Layer {layer} was asked for, but {model.name} has layers 0 to {model.n_layers - 1}; choose one of those."
        )
    here = corresponding_layer(study.middle, model.n_layers) if layer is None else layer
    return Subject(loaded, here, known_saes(saes, model, Site(here, "resid_pre")), seed)


def corresponding_layer(middle: float, n_layers: int) -> int:
    """The layer at a part of the depth; not the first, which holds embeddings alone, where there is another."""
    return min(n_layers - 1, max(1, round(middle * n_layers)))


def known_saes(names: Sequence[str], model: SplitModel, site: Site) -> tuple[KnownSAE, ...]:
    """What is known of some SAEs; one whose files name no site is taken to be of `site`.

    Raises:
        TiltmeterError: one does not exist, is of another model, or is named twice.
    """
    wanted = [name for given in names for name in _matching(given)]
    if repeated := sorted({name for name in wanted if wanted.count(name) > 1}):
        raise TiltmeterError(f"The SAE {repeated[0]} is listed twice; list each once.")
    return tuple(_known(name, model, site) for name in progress(wanted, "SAEs"))


def _matching(name: str) -> list[str]:
    if "*" not in name or name.partition(":")[0] not in EMBEDDED_SAES:
        return [name]
    if not (found := [sae for sae in list_embedded() if fnmatchcase(sae, name)]):
        raise TiltmeterError(f"No embedded SAE is called {name}; there are {', '.join(list_embedded())}.")
    return found


def _known(name: str, model: SplitModel, site: Site) -> KnownSAE:
    sae = load_sae(name)
    own = own_site(sae, model) or site
    check_compatible(sae, model, own)
    return KnownSAE(name, own, sae.about.kind, sae.about.l0)
