"""Right and spoilt SAEs, and what the load check says of them: the table of docs/saes.md.

    python scripts/sae_traps.py

Each SAE of nano is used as it is and spoilt in ways that happen when files are moved or used at another place. What its
files state of L0 and explained variance is taken away, as it is where weights are alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

import tiltmeter as tm
from tiltmeter.models.sites import STREAM, Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.load_check import check_on_load
from tiltmeter.saes.loading import list_embedded
from tiltmeter.saes.sae import LinearSAE

TOKENS = 2048

Spoilt = tuple[LinearSAE, SplitModel, Site] | None
Spoil = Callable[[LinearSAE, SplitModel, Site], Spoilt]


def other_convention(sae: LinearSAE, model: SplitModel, site: Site) -> Spoilt:
    """b_dec subtracted where it is not, and the reverse."""
    other = torch.zeros_like(sae.b_dec) if bool(sae.input_bias.any()) else sae.b_dec
    return replace(sae, input_bias=other), model, site


def another_layer(sae: LinearSAE, model: SplitModel, site: Site) -> Spoilt:
    """Used one layer later, or earlier in the last layer."""
    return sae, model, site._replace(layer=site.layer + (1 if site.layer + 1 < model.n_layers else -1))


def raw_stream(sae: LinearSAE, model: SplitModel, site: Site) -> Spoilt:
    """Used in the raw residual stream."""
    return (sae, model.measured_in("raw"), site) if site.kind in STREAM else None


def unscaled(sae: LinearSAE, model: SplitModel, site: Site) -> Spoilt:
    """Trained on activations scaled to a mean norm of √d, and used on those that are not."""
    x = model.activation(_tokens()[:8], site)
    factor = x.shape[-1] ** 0.5 / float(x.norm(dim=-1).mean())
    scaled = replace(sae, b_enc=sae.b_enc * factor, b_dec=sae.b_dec * factor, input_bias=sae.input_bias * factor)
    return scaled, model, site


SPOILT: Mapping[str, tuple[Spoil, str]] = {
    "b_dec in the other convention": (other_convention, "b_dec"),
    "one layer off": (another_layer, "it belongs to"),
    "raw stream for centred": (raw_stream, "expects the centred stream"),
    "scale of activations left out": (unscaled, "scaled to a mean norm"),
}
"""Each way to spoil an SAE, and the words by which its cause is named."""


def _tokens() -> torch.Tensor:
    return tm.load_model("nano").load_tokens("nano", at_most=8).ids


def said(sae: LinearSAE, model: SplitModel, site: Site, tokens: tm.TokenSet) -> str:
    """What the load check says."""
    about = replace(sae.about, l0=None, explained_variance=None, kind=None, processing=None)
    at = SAEAtSite(replace(sae, about=about), site, partial(model.centre, site=site))
    return " ".join(check_on_load(model, at, tokens, TOKENS).warnings)


def main() -> None:
    """Print the table."""
    loaded = tm.load_model("nano")
    tokens, model = loaded.load_tokens("nano", at_most=64), loaded.model.measured_in("centred")
    names = [*list_embedded()]
    counts = {"intact": [0, 0, 0], **{kind: [0, 0, 0] for kind in SPOILT}}
    for name in names:
        sae = tm.load_sae(name)
        assert isinstance(sae, LinearSAE)
        site = model.site(str(sae.about.hook_name))
        ways: dict[str, tuple[Spoilt, str]] = {"intact": ((sae, model, site), "Likely cause")}
        ways |= {kind: (spoil(sae, model, site), words) for kind, (spoil, words) in SPOILT.items()}
        for kind, (spoilt, words) in ways.items():
            if spoilt is not None:
                text = said(*spoilt, tokens)
                counts[kind][0] += 1
                counts[kind][1] += bool(text)
                counts[kind][2] += words in text
    print("| | SAEs | warned of | cause named |\n|---|---|---|---|")
    for kind, (number, warned, named) in counts.items():
        print(f"| {kind} | {number} | {warned} | {named} |")


if __name__ == "__main__":
    main()
