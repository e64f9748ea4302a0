"""Small SAEs with random weights, at a site of the small models or in a space of their own."""

import torch

from tiltmeter.saes.at_site import AtSite
from tiltmeter.saes.sae import About, LinearSAE
from tiltmeter.sites import Site

SITE = Site(1, "resid_pre")


def centre(x):
    return x - x.mean(-1, keepdim=True)


def as_it_is(x):
    return x


def random_sae(width, latents, seed=0, name="A", bias=-1.0, scale=1.0, dtype=torch.float64, **changes):
    """A ReLU SAE that fires more rarely the lower `bias`, for activations of about this `scale`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weights = {
        "W_enc": draw(width, latents) / width**0.5,
        "b_enc": scale * (bias + 0.1 * draw(latents)),
        "W_dec": draw(latents, width) / width**0.5,
        "b_dec": 0.1 * scale * draw(width) + 0.3 * scale,
        "input_bias": 0.1 * scale * draw(width),
    }
    return LinearSAE(About(name, "standard", "0" * 64), **(weights | changes))


def at(sae, centre=centre, site=SITE):
    return AtSite(sae, site, centre)
