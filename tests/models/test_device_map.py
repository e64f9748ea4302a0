"""A model that accelerate spread over devices is the same function, and is identified by the weights that run."""

from copy import deepcopy

import pytest
import torch

import tiltmeter as tm
from sweep_cases import save_model, token_set
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.fingerprint import fingerprint, model_sha256
from tiltmeter.models.split_model import SplitModel
from tiltmeter.studies.control import initialised
from tiny_models import FAMILIES, LAYERS, full_pass, random_tokens, tiny

accelerate = pytest.importorskip("accelerate")
OUTSIDE = {"gpt2": ("wte", "wpe", "ln_f"), "llama": ("embed_tokens", "norm", "rotary_emb")}


def spread(family, folder, disk=(1,), first="cpu"):
    """The small model with some of its blocks on the disk."""
    trunk, blocks = FAMILIES[family].trunk, FAMILIES[family].blocks
    places = {f"{trunk}.{part}": "cpu" for part in OUTSIDE[family]} | {"lm_head": "cpu"}
    places[f"{trunk}.{OUTSIDE[family][0]}"] = first
    places |= {f"{trunk}.{blocks}.{i}": "disk" if i in disk else "cpu" for i in range(LAYERS)}
    return accelerate.dispatch_model(deepcopy(tiny(family)), places, main_device="cpu", offload_dir=str(folder))


@pytest.mark.parametrize("family", OUTSIDE)
@pytest.mark.parametrize("disk", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("name", ["resid_pre:1", "mlp_out:1", "z:0"])
def test_a_block_on_the_disk_changes_no_number(family, disk, name, tmp_path):
    """The oracle is a whole pass of the model in memory, with the activation edited by a plain hook."""
    model = SplitModel(spread(family, tmp_path, disk)).measured_in("raw")
    assert any(parameter.is_meta for parameter in model.hf.parameters())
    site, tokens = model.site(name), random_tokens()
    clean = model.start(tokens, site)
    change = torch.randn(clean.activation.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    final = clean.late.final + model.changes(clean, change[None]).final[0]
    whole = full_pass(family, tiny(family), tokens, edits={(site.layer, site.kind): lambda x: x + change})
    torch.testing.assert_close(model.logits(final.flatten(0, 1)), whole.logits.flatten(0, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [SplitModel, ExactModel])
def test_a_sweep_of_it_gives_the_same_numbers(kind, tmp_path):
    sweep = tm.Sweep(site="resid_pre:1", path=tm.Straight(lengths=(0.0, 1.0)), sequences=4)
    found = []
    for index, hf in enumerate((deepcopy(tiny("llama")), spread("llama", tmp_path / "disk"))):
        loaded = tm.LoadedModel(kind(hf, "mine"), None, {})
        found.append(tm.run_sweep(sweep, loaded, token_set(), tmp_path / str(index)).kl.values)
    assert found[0].max() > 1e-3
    assert found[1] == pytest.approx(found[0], rel=1e-9, abs=1e-15)


def test_weights_on_the_disk_are_hashed(tmp_path):
    hf = deepcopy(tiny("llama"))
    one, again = (SplitModel(spread("llama", tmp_path / name)) for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(again) == fingerprint(one)
    assert model_sha256(one.hf) == model_sha256(hf)
    file = next((tmp_path / "two").glob("*layers.1.mlp.up_proj.weight*"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(SplitModel(again.hf))["sha256"] != fingerprint(one)["sha256"]


def test_what_cannot_run_is_refused(tmp_path):
    with pytest.raises(tm.TiltmeterError, match=r"mine has model\.embed_tokens\.weight outside memory"):
        SplitModel(spread("llama", tmp_path / "a", first="disk"), "mine")
    with torch.device("meta"):
        empty = type(tiny("llama"))(tiny("llama").config)
    with pytest.raises(tm.TiltmeterError, match="outside memory"):
        SplitModel(empty, "mine")
    with pytest.raises(tm.TiltmeterError, match="no control can be made of it"):
        initialised(tm.LoadedModel(SplitModel(spread("llama", tmp_path / "b")), None, {}))


def test_the_device_auto(tmp_path):
    folder = save_model(tmp_path / "model")
    one, spread_out = (tm.load_model(str(folder), device=device) for device in ("cpu", "auto"))
    assert spread_out.facts["sha256"] == one.facts["sha256"] and spread_out.facts["device"] == "auto"
    clean = [m.model.start(random_tokens(), m.model.site("resid_pre:1")).late.final.cpu() for m in (one, spread_out)]
    torch.testing.assert_close(*clean)
