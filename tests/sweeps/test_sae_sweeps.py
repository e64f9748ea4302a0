"""Sweeps with SAEs, from the command line: what is expanded, what is kept, what is refused."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tiltmeter as tm
from small_saes import LATENTS, save_sae
from sweep_cases import command, refusal, save_model, save_tokens
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.run_directory import read_manifest
from tiltmeter.saes.latent_statistics import fit_latents
from tiltmeter.saes.load_check import check_on_load
from tiltmeter.saes.names import short_names
from tiltmeter.sweeps import records, run
from tiny_models import WIDTH


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "--model": save_model(folder / "model"),
        "--tokens": save_tokens(folder / "tokens.npy", sequences=24),
        "--site": "resid_pre:1",
        "--lengths": "0,2",
        "--sequences": 4,
    }


def flat(options):
    return [part for pair in options.items() for part in pair]


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saes")
    return save_sae(folder / "one-l0-5"), save_sae(folder / "one-l0-9", seed=1, bias=-3.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["nano:e2e-3-l0-4"], ["e2e-3-l0-4"]),
        (["runs/a/", "b"], ["a", "b"]),
        (["one:blocks.6.hook_resid_pre", "two:blocks.6.hook_resid_pre"], [None, None]),
        (["one:x/y", "z/y", "w"], [None, None, "w"]),
    ],
)
def test_the_short_name_of_an_sae_is_its_last_part_unless_two_are_alike(given, expected):
    assert short_names(given) == {short or name: name for short, name in zip(expected, given, strict=True)}


def test_an_sae_named_twice_is_refused():
    with pytest.raises(TiltmeterError, match="a is listed twice"):
        short_names(["a", "b", "a"])


def test_a_direction_of_an_sae_is_measured_for_each_and_one_for_its_own(inputs, saes, tmp_path):
    one, other = saes
    arguments = ["--direction", "sae-error", "--direction", "sae-feature:one-l0-9", "--direction", "isotropic"]
    outcome = command("sweep", *flat(inputs), "--sae", one, "--sae", other, *arguments, "--out", tmp_path / "run")
    assert outcome.status == 0, outcome.err
    curves = tm.load_curves(tmp_path / "run" / "curves.nc")
    names = ["sae-error:one-l0-5", "sae-error:one-l0-9", "sae-feature:one-l0-9", "isotropic"]
    assert curves.direction.values.tolist() == names
    assert float(curves.length.sel(step=2).min()) == pytest.approx(2, rel=1e-5)
    record = read_manifest(tmp_path / "run")["record"]["saes"]
    assert record["one-l0-5"]["hook_name"] == "blocks.1.hook_resid_pre"
    facts = json.loads(curves.attrs["saes"])
    assert facts["one-l0-5"]["l0"] < facts["one-l0-9"]["l0"]
    assert facts["one-l0-9"]["tokens"] == 24 * 7  # the budget, without position 0
    assert facts["one-l0-9"]["alive"] > 0
    assert "alive" not in facts["one-l0-5"]  # nothing asks how often its latents fire, so they are not counted


def test_the_metrics_of_the_load_check_are_in_the_manifest(inputs, saes, tmp_path):
    loaded = tm.load_model(str(inputs["--model"]))
    tokens = loaded.load_tokens(str(inputs["--tokens"]))
    wanted = tm.Sweep(
        site="resid_pre:1", directions=("sae-error",), saes=(str(saes[0]),), path=tm.Straight(lengths=(1,)), sequences=2
    )
    tm.run_sweep(wanted, loaded, tokens, tmp_path / "run")
    found = read_manifest(tmp_path / "run")["record"]["saes"]["one-l0-5"]["load_check"]
    x = loaded.model.activation(tokens.ids, loaded.model.site("resid_pre:1"))[:, 1:]
    sae = tm.load_sae(str(saes[0]))
    assert (sae.encode(x) > 0).sum(-1).double().mean() == pytest.approx(found["metrics"]["l0"], rel=1e-6)


def test_an_sae_is_checked_once(inputs, saes, tmp_path, monkeypatch):
    loaded = tm.load_model(str(inputs["--model"]))
    tokens = loaded.load_tokens(str(inputs["--tokens"]))
    wanted = {"site": "resid_pre:1", "saes": (str(saes[0]),), "path": tm.Straight(lengths=(1,)), "sequences": 2}
    asked = []
    monkeypatch.setattr(records, "check_on_load", lambda *_: asked.append(1) or check_on_load(*_))
    monkeypatch.setattr(records, "_checked", {})
    for _ in range(2):
        tm.run_sweep(tm.Sweep(directions=("sae-error",), **wanted), loaded, tokens, tmp_path / "run")
    assert asked == [1]


def test_a_killed_run_keeps_the_latents_it_has_counted(inputs, saes, tmp_path, monkeypatch):
    loaded = tm.load_model(str(inputs["--model"]))
    tokens = loaded.load_tokens(str(inputs["--tokens"]))
    wanted = tm.Sweep(
        site="resid_pre:1",
        directions=("sae-feature-active",),
        saes=tuple(map(str, saes)),
        path=tm.Straight(lengths=(1,)),
        sequences=2,
    )
    asked = []

    def dies(*given):
        asked.append(list(given[4]))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return fit_latents(*given)

    monkeypatch.setattr(run, "SAES_A_PASS", 1)
    monkeypatch.setattr(run, "fit_latents", dies)
    with pytest.raises(KeyboardInterrupt):
        tm.run_sweep(wanted, loaded, tokens, tmp_path / "run")
    tm.run_sweep(wanted, loaded, tokens, tmp_path / "run")
    assert asked == [["one-l0-5"], ["one-l0-9"], ["one-l0-9"]]


def test_saes_that_nothing_uses_are_not_measured(inputs, saes, tmp_path):
    both = ["--sae", saes[0], "--sae", saes[1]]
    outcome = command(
        "sweep", *flat(inputs), *both, "--direction", "sae-error:one-l0-9", "--out", run := tmp_path / "run"
    )
    assert outcome.status == 0, outcome.err
    assert list(read_manifest(run)["record"]["saes"]) == ["one-l0-9"]
    assert "no direction or base uses an SAE" in refusal("sweep", *flat(inputs), *both, "--direction", "isotropic")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--sae", "nano:e2e-3"), "There is no embedded SAE nano:e2e-3"),
        (("--sae", "no/such/folder"), "There is no SAE 'no/such/folder'"),
        (("--base", "clan"), "'clan' is not a base"),
    ],
)
def test_wrong_names_are_refused_before_the_model_is_loaded(options, expected, inputs, tmp_path):
    absent = inputs | {"--model": tmp_path / "absent"}
    assert expected in refusal("sweep", *flat(absent), "--direction", "isotropic", *options)


def test_a_run_goes_on_only_with_the_same_sae(inputs, saes, tmp_path):
    folder = save_sae(tmp_path / "mine")
    arguments = [*flat(inputs), "--direction", "sae-error", "--sae", folder, "--out", tmp_path / "run"]
    assert command("sweep", *arguments).status == 0
    before = (tmp_path / "run" / "curves.nc").read_bytes()
    assert command("sweep", *arguments).status == 0
    assert (tmp_path / "run" / "curves.nc").read_bytes() == before
    (folder / "sae_weights.safetensors").unlink(), (folder / "cfg.json").unlink(), folder.rmdir()
    save_sae(folder, seed=7)
    assert "saes.mine" in refusal("sweep", *arguments)


def test_the_same_saes_in_another_order_are_another_run(inputs, saes, tmp_path):
    arguments = [*flat(inputs), "--direction", "sae-error", "--out", tmp_path / "run"]
    assert command("sweep", *arguments, "--sae", saes[0], "--sae", saes[1]).status == 0
    assert "another configuration" in refusal("sweep", *arguments, "--sae", saes[1], "--sae", saes[0])


def test_substitution_reads_what_a_spliced_in_sae_does(inputs, saes, tmp_path):
    """The KL of `sae-error` at its end is that of the model with SAE(x) in the place of x, all positions at once."""
    options = {key: value for key, value in inputs.items() if key != "--lengths"}
    names = ["sae-error", "epsilon-random", "zero", "mean"]
    directions = [part for name in names for part in ("--direction", name)]
    outcome = command("sweep", *flat(options), "--substitute", "--sae", saes[0], *directions, "--out", tmp_path / "run")
    assert outcome.status == 0, outcome.err
    curves = tm.load_curves(tmp_path / "run" / "curves.nc")
    loaded = tm.load_model(str(inputs["--model"]))
    ids = loaded.load_tokens(str(inputs["--tokens"])).ids[:4]
    sae, block = tm.load_sae(str(saes[0])), loaded.model.hf.transformer.h[1]
    clean = loaded.model.hf(ids).logits.double().log_softmax(-1)

    def splice(_, args):
        x = args[0] - args[0].mean(-1, keepdim=True)
        return (sae.decode(sae.encode(x)), *args[1:])

    handle = block.register_forward_pre_hook(splice)
    spliced = loaded.model.hf(ids).logits.double().log_softmax(-1)
    handle.remove()
    expected = (clean.exp() * (clean - spliced)).sum(-1).mean(-1)
    found = curves.kl.sel(direction="sae-error:one-l0-5").to_numpy()[0]
    assert np.allclose(found, expected.numpy(), rtol=1e-3)
    lengths = curves.length.sel(direction=["sae-error:one-l0-5", "epsilon-random:one-l0-5"]).to_numpy()
    assert np.allclose(lengths[0], lengths[1], rtol=1e-5)
    assert (tmp_path / "run" / "figures" / "sweep.svg").stat().st_size > 5000


def test_a_base_is_where_the_path_begins(inputs, saes, tmp_path):
    arguments = [*flat(inputs), "--direction", "isotropic", "--sae", saes[0], "--base", "sae-reconstruction:one-l0-5"]
    assert command("sweep", *arguments, "--out", tmp_path / "run").status == 0
    curves = tm.load_curves(tmp_path / "run" / "curves.nc")
    assert float(abs(curves.kl.sel(step=0)).max()) < 1e-9
    assert float(curves.kl.sel(step=2).min()) > 1e-6
    assert curves.attrs["base"] == "sae-reconstruction:one-l0-5"


def _nan():
    weights = torch.zeros(LATENTS)
    weights[3] = torch.nan
    return {"b_enc": weights}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"width": 24}, "width 24"),
        ({"hook": "blocks.2.hook_resid_pre"}, "blocks.2.hook_resid_pre"),
        ({"bias": -1e6}, "No latent"),
        ({"bias": 1e3}, "fire somewhere in every sequence"),
        ({"processing": "raw"}, "--stream raw"),
    ],
)
def test_an_sae_that_does_not_fit_is_refused(settings, expected, inputs, tmp_path):
    folder = save_sae(tmp_path / "wrong", **settings)
    sentence = refusal("sweep", *flat(inputs), "--direction", "sae-feature", "--sae", folder, "--out", tmp_path / "run")
    assert expected in sentence


def test_nan_and_files_that_are_no_sae_are_refused(inputs, tmp_path):
    with pytest.raises(TiltmeterError, match="NaN"):
        save_sae(tmp_path / "nan", weights=_nan())
    (tmp_path / "text.txt").write_text("hello")
    for name in (tmp_path / "text.txt", inputs["--model"], tmp_path / "nothing", "no-such-release:blocks.1"):
        sentence = refusal("sweep", *flat(inputs), "--direction", "sae-error", "--sae", name)
        assert str(name) in sentence


def test_the_same_sae_by_two_names_is_refused(inputs, saes, tmp_path):
    copy = save_sae(tmp_path / "copy")
    sentence = refusal("sweep", *flat(inputs), "--direction", "sae-error", "--sae", saes[0], "--sae", copy)
    assert "The SAEs one-l0-5 and copy have the same weights" in sentence


def test_an_sae_whose_output_is_not_finite_is_refused(inputs, tmp_path):
    shapes = {"W_enc": (WIDTH, LATENTS), "W_dec": (LATENTS, WIDTH), "b_enc": (LATENTS,)}
    huge = save_sae(tmp_path / "huge", weights={name: torch.full(shape, 1e30) for name, shape in shapes.items()})
    sentence = refusal("sweep", *flat(inputs), "--direction", "sae-error", "--sae", huge, "--out", tmp_path / "run")
    assert "huge returns non-finite reconstructions of activations at blocks.1.hook_resid_pre" in sentence


def test_sweeps_of_several_kinds_of_sae_direction_have_a_panel_for_each(inputs, saes, tmp_path):
    names = ["sae-error", "isotropic", "epsilon-random"]
    directions = [part for name in names for part in ("--direction", name)]
    outcome = command("sweep", *flat(inputs), *directions, "--sae", saes[0], "--sae", saes[1], "--out", tmp_path)
    assert outcome.status == 0, outcome.err
    svg = (tmp_path / "figures" / "sweep.svg").read_text(encoding="utf-8")
    assert ">sae-error at blocks.1.hook_resid_pre<" in svg and ">epsilon-random at blocks.1.hook_resid_pre<" in svg


def test_a_direction_of_an_sae_needs_one(inputs, saes):
    assert "this run has none" in refusal("sweep", *flat(inputs), "--direction", "sae-error")
    sentence = refusal("sweep", *flat(inputs), "--direction", "sae-error:other", "--sae", saes[0])
    assert "the SAEs of this run are one-l0-5" in sentence
    assert "not a base" in refusal("sweep", *flat(inputs), "--direction", "isotropic", "--base", "clan")
    assert "no embedded SAE nano:x*" in refusal("sweep", *flat(inputs), "--direction", "sae-error", "--sae", "nano:x*")


def test_list_shows_directions_and_bases():
    outcome = command("list")
    assert outcome.status == 0
    for name in ("sae-error", "epsilon-cov-random-mixture", "synthetic-structured:SAE", "RELEASE:SAE_ID"):
        assert name in outcome.out


def save_transcoder(folder, rows, reads="blocks.1.ln2.hook_normalized", writes="blocks.1.hook_mlp_out"):
    """A folder of SAELens with a transcoder of the small model's MLP."""
    folder.mkdir()
    latents, width = rows.shape
    config = {"architecture": "transcoder", "d_in": width, "d_out": width, "d_sae": latents}
    config["metadata"] = {"hook_name": reads, "hook_name_out": writes}
    (folder / "cfg.json").write_text(json.dumps(config))
    weights = {"W_enc": torch.zeros(width, latents), "b_enc": torch.zeros(latents), "b_dec": torch.zeros(width)}
    save_file(weights | {"W_dec": rows}, folder / "sae_weights.safetensors")
    return folder


def test_a_decoder_row_of_a_transcoder_is_added_to_the_mlps_output(inputs, tmp_path, caplog):
    """With one row that has a length, nothing is left to chance, and plain hooks can do the same."""
    rows = torch.zeros(3, WIDTH)
    rows[1] = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))
    folder = save_transcoder(tmp_path / "T", rows)
    options = inputs | {"--site": "mlp_out:1", "--sae": folder, "--direction": "sae-feature"}
    outcome = command("sweep", *flat(options), "--out", tmp_path / "run")
    assert outcome.status == 0, outcome.err
    curves = tm.load_curves(tmp_path / "run" / "curves.nc")
    loaded = tm.load_model(str(inputs["--model"]))
    ids = loaded.load_tokens(str(inputs["--tokens"])).ids[:4]
    clean = loaded.model.hf(ids).logits.double().log_softmax(-1)
    row = rows[1] - rows[1].mean()
    handle = loaded.model.hf.transformer.h[1].mlp.register_forward_hook(lambda _, __, y: y + 2 * row / row.norm())
    moved = loaded.model.hf(ids).logits.double().log_softmax(-1)
    handle.remove()
    expected = (clean.exp() * (clean - moved)).sum(-1).mean(-1)
    found = curves.kl.sel(direction="sae-feature:T", step=2).to_numpy()
    assert np.allclose(found, expected.numpy(), rtol=1e-3)
    (caution,) = [one for one in json.loads(curves.attrs["cautions"]) if "T is a transcoder" in one]
    assert "drawn from all 1 (2 rows of zero length are left out)" in caution
    assert caution in caplog.text
    assert caution[:40] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    record = read_manifest(tmp_path / "run")["record"]["saes"]["T"]
    assert record["hook_name"] == "blocks.1.hook_mlp_out" and "load_check" not in record


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--direction": "sae-error"}, "sae-error:T cannot be computed: .*T is a transcoder, which reads blocks.1.ln2"),
        ({"--direction": "sae-feature-active"}, "sae-feature-active:T cannot be computed"),
        ({"--base": "sae-reconstruction:T"}, "sae-reconstruction:T cannot be computed"),
        ({"--site": "resid_pre:1"}, "belongs to blocks.1.hook_mlp_out, not to blocks.1.hook_resid_pre"),
    ],
)
def test_a_transcoder_is_refused_where_its_decoder_does_not_suffice(changed, sentence, inputs, tmp_path):
    folder = save_transcoder(tmp_path / "T", torch.ones(3, WIDTH))
    options = inputs | {"--site": "mlp_out:1", "--sae": folder, "--direction": "sae-feature"} | changed
    assert re.search(sentence, refusal("sweep", *flat(options), "--out", tmp_path / "run"))


def naive_transcoder(weights, u):
    """T(u) of a transcoder with thresholds and a skip connection."""
    pre = u @ weights["W_enc"] + weights["b_enc"]
    latents = torch.where(pre > weights["threshold"], pre, 0.0).relu()
    return latents @ weights["W_dec"] + weights["b_dec"] + u @ weights["W_skip"].T


def save_skip_transcoder(folder, reads):
    """A folder of SAELens with a transcoder that has thresholds and a skip connection, and its weights in float64."""

    def draw(*shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) / shape[0] ** 0.5

    weights = {"W_enc": draw(WIDTH, LATENTS), "b_enc": draw(LATENTS), "W_dec": draw(LATENTS, WIDTH)}
    weights |= {"b_dec": draw(WIDTH), "W_skip": draw(WIDTH, WIDTH), "threshold": draw(LATENTS).abs()}
    config = {"architecture": "jumprelu_skip_transcoder", "d_in": WIDTH, "d_out": WIDTH, "d_sae": LATENTS}
    folder.mkdir()
    hooks = {"hook_name": f"blocks.1.{reads}", "hook_name_out": "blocks.1.hook_mlp_out"}
    (folder / "cfg.json").write_text(json.dumps(config | {"metadata": hooks}))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder, {key: weight.double() for key, weight in weights.items()}


@pytest.mark.parametrize(("reads", "positions"), [("mlp.hook_in", "all"), ("ln2.hook_normalized", "3,5")])
def test_substitution_of_a_transcoder_is_the_model_with_the_transcoder_in_place_of_its_mlp(
    reads, positions, inputs, tmp_path
):
    """KL and length of `transcoder-error`, against hooks of torch on the Hugging Face model, in float64."""
    folder, weights = save_skip_transcoder(tmp_path / "T", reads)
    loaded = tm.load_model(str(inputs["--model"]), precision="float64")
    tokens = loaded.load_tokens(str(inputs["--tokens"]))
    wanted = tm.Sweep(
        site="mlp_out:1",
        directions=("transcoder-error",),
        saes=(str(folder),),
        path=tm.Substitute(),
        positions=positions,
        sequences=4,
    )
    curves = tm.run_sweep(wanted, loaded, tokens, tmp_path / "run").sel(direction="transcoder-error:T")
    ids, block = tokens.ids[:4], loaded.model.hf.transformer.h[1]
    clean = loaded.model.hf(ids).logits.log_softmax(-1)
    rows = [3, 5] if positions == "3,5" else [*range(8)]
    lengths = []

    def replace(_, args, y):
        weighted = reads == "mlp.hook_in"
        new = naive_transcoder(weights, args[0] if weighted else (args[0] - block.ln_2.bias) / block.ln_2.weight)
        change = new - y
        lengths.append((change - change.mean(-1, keepdim=True)).norm(dim=-1)[:, rows].mean(-1))
        here = torch.isin(torch.arange(8), torch.tensor(rows))[:, None]
        return torch.where(here, new, y)

    handle = block.mlp.register_forward_hook(replace)
    moved = loaded.model.hf(ids).logits.log_softmax(-1)
    handle.remove()
    expected = (clean.exp() * (clean - moved)).sum(-1)[:, rows].mean(-1)
    assert np.allclose(curves.kl.to_numpy()[0], expected.detach().numpy(), rtol=1e-6)
    assert np.allclose(curves.length.to_numpy()[0], lengths[0].detach().numpy(), rtol=1e-6)
    check = read_manifest(tmp_path / "run")["record"]["saes"]["T"]["load_check"]
    assert check["reads"] == reads and check["explained_variance"] < 0.5
    assert "The error of the transcoder" in check["warnings"][0]


def test_an_sae_has_no_transcoder_error(inputs, saes, tmp_path):
    options = inputs | {"--sae": saes[0], "--direction": "transcoder-error"}
    sentence = refusal("sweep", *flat(options), "--out", tmp_path / "run")
    assert "one-l0-5 is an SAE; expected a transcoder of an MLP" in sentence
