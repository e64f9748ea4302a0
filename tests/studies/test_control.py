"""The controls: models that have learned nothing."""

import json
import math
import socket
from copy import deepcopy

import pytest
import torch

import tiltmeter as tm
from sweep_cases import save_model, token_set
from tiltmeter.models.clean_run import LateActivations
from tiltmeter.models.fingerprint import fingerprint
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.self_check import check_split
from tiltmeter.studies.control import initialised, shuffled
from tiny_models import FAMILIES, random_tokens, tiny

ATTENTIONS = [(family, attention) for family, parts in FAMILIES.items() for attention in parts.attentions]


def loaded_tiny(family="gpt2", attention="eager", dtype=torch.float64):
    return tm.LoadedModel(tm.SplitModel(tiny(family, attention, dtype), family), None, {"precision": "as it is"})


def weights(loaded):
    return loaded.model.hf.state_dict()


def same_bytes(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def nano():
    return tm.load_model("nano")


@pytest.fixture(scope="module")
def control(nano):
    return initialised(nano)


@pytest.fixture(scope="module")
def tokens(nano):
    return nano.load_tokens("nano", at_most=232)


@pytest.fixture(scope="module")
def held_out(tokens):
    return tokens.first(8)


@pytest.mark.parametrize(("family", "attention"), ATTENTIONS)
def test_everything_but_the_weights_is_the_original_s(family, attention):
    loaded = loaded_tiny(family, attention)
    hf, original = initialised(loaded).model.hf, loaded.model.hf
    assert type(hf) is type(original) and not hf.training
    assert hf.config._attn_implementation == original.config._attn_implementation == attention
    own, theirs = dict(hf.named_parameters()), dict(original.named_parameters())
    assert [(name, p.shape, p.dtype) for name, p in own.items()] == [(n, p.shape, p.dtype) for n, p in theirs.items()]
    assert not any(p.requires_grad for p in own.values())
    assert not any(torch.equal(p, theirs[name]) for name, p in own.items())  # tiny models have random norms, too
    buffers = dict(original.named_buffers())
    assert dict(hf.named_buffers()).keys() == buffers.keys()
    for name, buffer in hf.named_buffers():
        assert torch.equal(buffer, buffers[name]) and buffer.dtype == buffers[name].dtype
        assert buffer.data_ptr() != buffers[name].data_ptr()
    tied = [m.get_input_embeddings().weight is m.get_output_embeddings().weight for m in (hf, original)]
    assert tied == [original.config.tie_word_embeddings] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_its_class_initialises_it(family):
    hf = initialised(loaded_tiny(family)).model.hf
    spread = hf.config.initializer_range
    assert float(hf.get_input_embeddings().weight.std()) == pytest.approx(spread, rel=0.1)
    norms = [p for name, p in hf.named_parameters() if "norm" in name or "ln_" in name]
    assert norms and all(len(set(p.tolist())) == 1 for p in norms)


@pytest.mark.parametrize("make", [initialised, shuffled])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_can_be_split_and_resumed(family, make):
    model, tokens = make(loaded_tiny(family)).model, random_tokens()
    for name in ("resid_pre:1", "attn_out:1", "mlp_out:0", "z:2"):
        clean = model.start(tokens, model.site(name))
        check_split(model, clean)
        assert torch.isfinite(model.logits(clean.late.final[0])).all()
        again = torch.stack([clean.late.final, model.resume(clean, clean.activation).final])
        kl = compute_readouts(
            model, clean, LateActivations(again - clean.late.final, {}), [Readout("kl")], range(tokens.shape[1])
        )["kl"]
        assert not kl[0].any() and kl[1].max() < 1e-20


def test_gpt2_writes_to_the_stream_with_smaller_weights():
    """The closed form in transformers' GPT-2: 0.02, and 0.02 / sqrt(2 layers) where a block writes to the stream."""
    loaded = loaded_tiny()
    spread, layers = loaded.model.hf.config.initializer_range, loaded.model.n_layers
    for name, matrix in initialised(loaded).model.hf.named_parameters():
        if matrix.ndim == 2:
            expected = spread / math.sqrt(2 * layers) if "c_proj" in name else spread
            assert float(matrix.std()) == pytest.approx(expected, rel=0.1), name


@pytest.mark.parametrize("family", FAMILIES)
def test_shuffled_weights_are_the_same_numbers_in_another_order(family):
    loaded = loaded_tiny(family)
    hf, original = shuffled(loaded).model.hf, loaded.model.hf
    theirs = dict(original.named_parameters())
    assert [name for name, _ in hf.named_parameters()] == list(theirs)
    for name, own in hf.named_parameters():
        assert own.shape == theirs[name].shape and own.data_ptr() != theirs[name].data_ptr()
        assert torch.equal(own.flatten().sort().values, theirs[name].flatten().sort().values), name
        assert not torch.equal(own, theirs[name]), name  # tiny models have random norms, too
    buffers = dict(original.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in hf.named_buffers())
    tied = [m.get_input_embeddings().weight is m.get_output_embeddings().weight for m in (hf, original)]
    assert tied[0] == tied[1] == original.config.tie_word_embeddings


def test_a_shuffle_keeps_no_structure():
    """Rows of a rank-one matrix are parallel; after the shuffle of its entries they are not (the negative control)."""
    loaded = tm.LoadedModel(tm.SplitModel(deepcopy(tiny("gpt2")), "a copy"), None, {})
    matrix = loaded.model.hf.get_input_embeddings().weight
    rows, columns = matrix.shape
    matrix.data = torch.outer(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns)).double()

    def first_share(rows):
        squares = torch.linalg.svdvals(rows) ** 2
        return float(squares[0] / squares.sum())

    assert first_share(matrix) > 0.99 > 0.5 > first_share(shuffled(loaded).model.hf.get_input_embeddings().weight)


def test_quantised_weights_are_not_shuffled():
    loaded = tm.LoadedModel(tm.SplitModel(deepcopy(tiny("gpt2")), "a copy"), None, {})
    loaded.model.hf.lm_head.packed = torch.nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(tm.TiltmeterError, match=r"lm_head.packed holds quantised weights \(torch.uint8\), which"):
        shuffled(loaded)


@pytest.mark.parametrize("make", [initialised, shuffled])
def test_a_seed_is_a_model(make):
    loaded = loaded_tiny()
    one, again, other = (make(loaded, seed) for seed in (3, 3, 4))
    assert same_bytes(weights(one), weights(again)) and one.facts == again.facts
    assert not same_bytes(weights(one), weights(other)) and one.facts["sha256"] != other.facts["sha256"]
    for seed in (-1, 2**63):
        with pytest.raises(tm.TiltmeterError, match=f"^The seed of a control is {seed}; expected 0 to"):
            make(loaded, seed)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_in_double_precision_it_is_the_same_model(family):
    single, double = (initialised(loaded_tiny(family, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    assert {value.dtype for value in weights(single).values()} == {torch.float32}
    assert same_bytes({name: value.double() for name, value in weights(single).items()}, weights(double))


@pytest.mark.parametrize("make", [initialised, shuffled])
def test_random_state_and_defaults_neither_change_nor_matter(make):
    loaded, seen = loaded_tiny("neox-parallel"), []
    try:
        for seed, dtype in ((5, torch.float32), (6, torch.float64)):
            torch.manual_seed(seed)
            torch.set_default_dtype(dtype)
            before = torch.get_rng_state()
            seen.append(weights(make(loaded)))
            assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert same_bytes(*seen)


def test_of_a_model_from_the_disk_in_double_precision(tmp_path):
    loaded = tm.load_model(str(save_model(tmp_path, "gemma2")), precision="float64")
    original, config = loaded.model.hf, loaded.model.hf.config.to_dict()
    hf = initialised(loaded).model.hf
    own, theirs = dict(hf.named_buffers()), dict(original.named_buffers())
    assert {buffer.dtype for buffer in theirs.values()} == {torch.float32, torch.float64}  # angles, and a scale
    assert same_bytes(own, theirs) and all(own[name].dtype == theirs[name].dtype for name in own)
    assert original.config.to_dict() == config


@pytest.mark.parametrize("make", [initialised, shuffled])
def test_the_original_stays_as_it_is_and_no_hub_is_asked(make, nano, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    before = {name: value.clone() for name, value in weights(nano).items()}
    config = nano.model.hf.config.to_dict()
    make(nano, 1)
    assert same_bytes(before, weights(nano)) and nano.model.hf.config.to_dict() == config


def test_a_run_says_what_it_was_made_from(tmp_path):
    loaded = tm.load_model(str(save_model(tmp_path / "model")))
    control, tokens = initialised(loaded, 2), token_set()
    sweep = tm.Sweep(site="resid_pre:1", path=tm.Straight(lengths=(0, 1)), sequences=4)
    tm.run_sweep(sweep, control, tokens, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    name = f"{loaded.model.name}, initialised"
    assert control.model.name == name
    assert manifest["record"]["model"] == {"name": name, "revision": "initialised, seed 2"}
    changed = {"name", "revision", "sha256"}
    own = {key: value for key, value in control.facts.items() if key not in ("name", "revision")}
    assert manifest["identity"]["model"] == own | fingerprint(control.model)
    assert own["sha256"] == fingerprint(control.model)["sha256"]
    assert {key for key in loaded.facts if loaded.facts[key] != control.facts[key]} == changed
    with pytest.raises(tm.TiltmeterError, match=r"another configuration.*sha256"):
        tm.run_sweep(sweep, loaded, tokens, tmp_path / "run")


def test_it_predicts_nothing(nano, control, held_out):
    def loss(loaded):
        logits = loaded.model.hf(input_ids=held_out.ids).logits[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), held_out.ids[:, 1:].flatten()))

    uniform = math.log(nano.model.vocabulary)
    assert loss(control) == pytest.approx(uniform, abs=0.05)  # 8.338 and 8.318
    assert loss(nano) < 0.5 * uniform


def test_what_moves_a_model_by_nats_hardly_moves_an_initialised_one(nano, control, held_out, tmp_path):
    path = tm.Straight(lengths=(1,), unit="pair-distance")
    sweep = tm.Sweep(site="resid_pre:3", directions=("real-mixture",), path=path, sequences=4)
    kl = [float(tm.run_sweep(sweep, one, held_out, tmp_path / one.model.name)["kl"].mean()) for one in (nano, control)]
    assert kl[0] > 1 > 0.1 > kl[1] > 0  # 3.7 and 0.022
