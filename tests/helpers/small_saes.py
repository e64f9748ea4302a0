"""Small SAEs with random weights, at a site of the small models or in a space of their own."""

import torch

from tiltmeter.models.sites import Site
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.formats.saelens_export import saelens_files
from tiltmeter.saes.sae import About, LinearSAE
from tiny_models import WIDTH

LATENTS = 40

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


def identity(width):
    """[I, -I], which gives back everything."""
    one, zero = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    weights = {
        "W_enc": torch.cat([one, -one], 1),
        "W_dec": torch.cat([one, -one]),
        "b_enc": torch.zeros(2 * width).double(),
    }
    return LinearSAE(About("I", "standard", "0" * 64), **weights, b_dec=zero, input_bias=zero)


def at(sae, centre=centre, site=SITE):
    return SAEAtSite(sae, site, centre)


def save_sae(folder, seed=0, width=WIDTH, hook="blocks.1.hook_resid_pre", bias=-4.0, **changed):
    """A folder of SAELens with a small SAE at the site; `changed` are facts of its configuration."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(LATENTS, width, generator=generator), dim=-1)
    weights = {
        "W_enc": rows.T.clone(),
        "b_enc": torch.full((LATENTS,), bias),
        "W_dec": rows.clone(),
        "b_dec": torch.zeros(width),
    } | changed.pop("weights", {})
    facts = Facts(kind="local", hook_name=hook, processing="centred", prepend_bos=False) | changed
    sae = linear_sae("small", weights, Convention(apply_b_dec_to_input=False), facts)
    folder.mkdir(parents=True)
    for name, data in saelens_files(sae, {"kind": facts["kind"]}).items():
        (folder / name).write_bytes(data)
    return folder
