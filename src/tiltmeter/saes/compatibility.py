"""Whether an SAE is compatible with where it is used: its model, site, width and residual stream.

Only what the SAE's files state is checked here, without running the model on text; `load_check` measures.
"""

from __future__ import annotations

import re
from functools import partial

import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.architectures import ignores_mean
from tiltmeter.models.model_files import EMBEDDED
from tiltmeter.models.sites import OF_WIDTH_D_MODEL, STREAM, Site, describe_sites, parse_site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes.at_site import RowsAtSite
from tiltmeter.saes.dictionary import Dictionary, Loaded
from tiltmeter.saes.formats.hook_names import site_name

_CERTAIN = re.compile(
    r"gpt2(-medium|-large|-xl)?|distilgpt2|pythia-(14|31|70|160|410)m(-deduped)?|pythia-[\d.]+b(-deduped)?"
    r"|gemma-(\d-)?\d+[bm]"
)
"""Models with one name, up to what `_canonical_model` strips. Others may have several names, and are not compared."""


def check_compatible(sae: Loaded, model: SplitModel, site: Site) -> None:
    """Check that an SAE belongs to this model, site, width and stream, as far as its files say.

    Of a dictionary, only decoder rows are used, which are the same direction in both streams.

    Raises:
        TiltmeterError: it does not.
    """
    about = sae.about
    ours, theirs = _canonical_model(model.name), _canonical_model(about.model)
    if ours and theirs and ours != theirs:
        raise TiltmeterError(
            f"The SAE {about.name} is of {about.model}, not of {model.name}; give an SAE of this model."
        )
    _check_site(sae, model, site)
    _check_width(sae, model, site)
    if not isinstance(sae, Dictionary) and (disagreement := stream_disagreement(sae, model, site)):
        raise TiltmeterError(disagreement)


def stream_disagreement(sae: Loaded, model: SplitModel, site: Site) -> str | None:
    """A sentence, if an SAE's files state that it expects another residual stream than the measured one; else None."""
    wanted = sae.about.processing
    if wanted not in ("centred", "raw") or not has_two_streams(model, site):
        return None
    stream = "centred" if model.centred else "raw"
    if wanted == stream:
        return None
    return (
        f"The SAE {sae.about.name} expects the {wanted} residual stream, but {model.name} is measured in the {stream} "
        f"one; measure with --stream {wanted}."
    )


def has_two_streams(model: SplitModel, site: Site) -> bool:
    """Whether activations at a site can be measured both centred and raw: those that LayerNorm reads, but not z."""
    like = torch.empty(model.width, dtype=model.hf.dtype, device=model.device)
    return site.kind in OF_WIDTH_D_MODEL and (model.centred or ignores_mean(model.parts.final_norm, like))


def is_same_site(one: Site, other: Site) -> bool:
    """Whether two sites are the same activation: the stream after a layer is the stream before the next."""
    return one == other or (one.kind in STREAM and other.kind in STREAM and one.boundary == other.boundary)


def own_site(sae: Loaded, model: SplitModel) -> Site | None:
    """The site that an SAE's files state; None if they state none.

    Raises:
        TiltmeterError: the model has no such site.
    """
    name, hook_name = sae.about.name, sae.about.hook_name
    if hook_name is None:
        return None
    try:
        return parse_site(site_name(hook_name), model.n_layers)
    except TiltmeterError:
        raise TiltmeterError(
            f"The SAE {name} belongs to {hook_name}, which is not a site of {model.name}; it has "
            f"{describe_sites(model.n_layers)}."
        ) from None


def _check_site(sae: Loaded, model: SplitModel, site: Site) -> None:
    own = own_site(sae, model)
    if own is not None and not is_same_site(own, site):
        raise TiltmeterError(
            f"The SAE {sae.about.name} belongs to {own.name}, not to {site.name}; use it there, or give an SAE of this "
            "site."
        )


def _check_width(sae: Loaded, model: SplitModel, site: Site) -> None:
    width = model.activation(torch.zeros(1, 1, dtype=torch.long), site).shape[-1]
    RowsAtSite(sae, site, partial(model.centre, site=site)).check_width(width)


def _canonical_model(name: str | None) -> str | None:
    """The canonical name of a known model; None for a directory, or a model that may have several names."""
    if name is None or name in EMBEDDED:
        return name
    if name[:1] in "/.~" or name.count("/") > 1 or user_path(name).exists():
        return None
    short = name.lower().rpartition("/")[2].removesuffix("-pt").replace("gpt2-small", "gpt2")
    return short if _CERTAIN.fullmatch(short) else None
