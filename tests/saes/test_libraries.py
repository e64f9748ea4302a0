"""SAEs as the formats' own libraries make and save them give here what they give there.

The libraries are not in the environment of the other tests, which they do not fit into: `make test-formats`.
"""

import json
import warnings

import pytest
import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.sae import reconstruct

D, L, K = 16, 48, 5


def library(name):
    """A module of a library; without it, the tests of its format are skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the libraries import
        return pytest.importorskip(name, reason=f"{name} is not installed: make test-formats")


def randomised(module):
    """The module with random weights, none of them left at what training begins with."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in module.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator) / 3
        weight.data = drawn.abs() if name == "threshold" else drawn
    if "threshold" in dict(module.named_buffers()):
        module.threshold.fill_(0.8)
    return module.requires_grad_(False)


def activations():
    return 2 * torch.randn(64, D, generator=torch.Generator().manual_seed(1)) + 0.5


def assert_same(name, latents, decoded):
    sae, x = load_sae(name), activations()
    assert 0 < (latents > 0).float().mean() < 0.9
    torch.testing.assert_close(sae.encode(x), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruct(sae, x), decoded, atol=1e-5, rtol=1e-5)
    return sae.about


CLASSES = {
    "AutoEncoder": ("dictionary", {}),
    "AutoEncoderNew": ("dictionary", {}),
    "GatedAutoEncoder": ("dictionary", {}),
    "JumpReluAutoEncoder": ("dictionary", {}),
    "AutoEncoderTopK": ("trainers.top_k", {"k": K}),
    "BatchTopKSAE": ("trainers.batch_top_k", {"k": K}),
    "MatryoshkaBatchTopKSAE": ("trainers.matryoshka_batch_top_k", {"k": K, "group_sizes": [16, 32]}),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_dictionary_learning(kind, tmp_path):
    module, arguments = CLASSES[kind]
    own = randomised(getattr(library(f"dictionary_learning.{module}"), kind)(D, L, **arguments))
    torch.save(own.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "layer": 3, "lm_name": "gpt2"}}))
    latents = own.encode(activations())
    about = assert_same(tmp_path, latents, own.decode(latents))
    assert (about.hook_name, about.model) == ("blocks.3.hook_resid_post", "gpt2")


@pytest.mark.parametrize("sizes", [{"num_latents": L}, {"expansion_factor": 3}])
def test_sparsify(sizes, tmp_path):
    sparsify = library("sparsify")
    own = randomised(sparsify.SparseCoder(D, sparsify.SparseCoderConfig(k=K, **sizes)))
    own.save_to_disk(tmp_path / "layers.3")
    kept = own.encode(activations())
    latents = torch.zeros(64, L).scatter(1, kept.top_indices, kept.top_acts)
    about = assert_same(tmp_path / "layers.3", latents, own.decode(kept.top_acts, kept.top_indices))
    assert about.hook_name == "blocks.3.hook_resid_post"


@pytest.mark.parametrize("settings", [{"transcode": True}, {"skip_connection": True}, {"activation": "groupmax"}])
def test_what_sparsify_also_makes_is_refused(settings, tmp_path):
    sparsify = library("sparsify")
    own = sparsify.SparseCoder(D, sparsify.SparseCoderConfig(k=K, num_latents=L, **settings))
    own.save_to_disk(tmp_path / "layers.3")
    with pytest.raises(TiltmeterError, match=r"is a transcoder|by groupmax"):
        load_sae(tmp_path / "layers.3")
