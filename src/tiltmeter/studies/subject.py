"""What a study runs on, found before anything is measured: the layer and the SAEs of a model."""

from __future__ import annotations

from collections.abc import Sequence

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.progress import progress
from tiltmeter.saes.compatibility import check_compatible, own_site
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.names import matching, short_names
from tiltmeter.studies.lengths import Lengths
from tiltmeter.studies.study import KnownSAE, Study, Subject


def make_subject(
    study: Study, loaded: LoadedModel, layer: int | None, saes: Sequence[str], seed: int, lengths: Lengths = "scaled"
) -> Subject:
    """Choose the layer and look up the SAEs that a study runs on.

    Args:
        study: which study.
        loaded: the model.
        layer: the layer to study in place of the paper's; None for the one at the same fraction of the depth.
        saes: names, as `load_sae` takes them; `nano:*` means all of nano's, at any site.
        seed: of every random vector.
        lengths: `published` where model and layer are the paper's own.

    Raises:
        TiltmeterError: a layer that the model does not have; an SAE that does not exist, is of another model, or is
            named twice.
    """
    model = loaded.model
    if layer is not None and not 0 <= layer < model.n_layers:
        raise TiltmeterError(
            f"Layer {layer} was asked for, but {model.name} has layers 0 to {model.n_layers - 1}; choose one of those."
        )
    here = corresponding_layer(study.depth, model.n_layers) if layer is None else layer
    return Subject(loaded, here, known_saes(saes, model, Site(here, "resid_pre")), seed, lengths)


def corresponding_layer(depth: float, n_layers: int) -> int:
    """The layer at a fraction of the depth; not layer 0, which sees only embeddings, unless it is the only one."""
    return min(n_layers - 1, max(1, round(depth * n_layers)))


def known_saes(names: Sequence[str], model: SplitModel, site: Site) -> tuple[KnownSAE, ...]:
    """Site, kind and L0 of SAEs, from their files; an SAE whose files name no site is assumed to belong to `site`.

    Raises:
        TiltmeterError: one does not exist, is of another model, or is named twice.
    """
    wanted = short_names([name for given in names for name in matching(given)]).values()
    return tuple(_known(name, model, site) for name in progress(list(wanted), "SAEs"))


def _known(name: str, model: SplitModel, site: Site) -> KnownSAE:
    sae = load_sae(name)
    own = own_site(sae, model) or site
    check_compatible(sae, model, own)
    return KnownSAE(name, own, sae.about.kind, sae.about.l0)
