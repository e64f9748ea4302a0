"""The error of a transcoder against plain hooks on the whole model, in float64."""

import pytest
import torch

from small_saes import LATENTS
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.sources import Context
from tiltmeter.perturb.transcoder_directions import TRANSCODER_DIRECTIONS
from tiltmeter.runs.rng import Address
from tiltmeter.saes.formats.decoders import transcoder
from tiltmeter.saes.formats.encoders import Encoder, with_encoder
from tiltmeter.saes.formats.linear import Facts
from tiltmeter.saes.names import dictionary_at_site
from tiny_models import FAMILIES, WIDTH, block, full_pass, random_tokens, tiny

SITE, TOKENS, POSITIONS, K = Site(1, "mlp_out"), random_tokens(), torch.arange(3, 9), 5


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) / shape[0] ** 0.5


ENC, ROWS, SKIP, B_ENC, B_DEC = (
    draw(WIDTH, LATENTS),
    draw(LATENTS, WIDTH),
    draw(WIDTH, WIDTH),
    draw(LATENTS),
    draw(WIDTH),
)


def naive(u):
    """A top-k transcoder with a skip connection, in float64."""
    pre = (u @ ENC.double() + B_ENC.double()).relu()
    kept = pre.topk(K)
    latents = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values)
    return latents @ ROWS.double() + B_DEC.double() + u @ SKIP.double()


@pytest.mark.parametrize("stream", ["centred", "raw"])
@pytest.mark.parametrize("family", ["gpt2", "neox-parallel", "llama", "gemma2"])
def test_the_error_is_the_transcoders_output_minus_the_mlps(family, stream):
    hf, seen = tiny(family), []
    model = SplitModel(hf).measured_in(stream)
    rows = transcoder("T", ROWS, None, Facts(hook_name=SITE.name))
    found = with_encoder(rows, Encoder("mlp.hook_in", ENC, B_ENC, B_DEC, k=K, W_skip=SKIP))
    at = dictionary_at_site(found.to(torch.device("cpu"), torch.float64), model, SITE)
    x = model.activation(TOKENS, SITE)[:, POSITIONS]
    address = Address(0, "transcoder-error:T", torch.arange(len(TOKENS)), POSITIONS)
    context = Context(x, address, lambda: x, lambda: torch.ones(x.shape[:2], dtype=torch.bool), TOKENS)
    vector = TRANSCODER_DIRECTIONS["transcoder-error"].build(at).vector(context)

    handle = block(family, hf, 1).mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    written = full_pass(family, hf, TOKENS, [(1, "mlp_out")]).seen[1, "mlp_out"]
    handle.remove()
    expected = (naive(seen[0]) - written)[:, POSITIONS]
    if stream == "centred" and FAMILIES[family].layer_norm:
        expected = expected - expected.mean(-1, keepdim=True)
    torch.testing.assert_close(vector, expected, rtol=1e-9, atol=1e-9)
