"""The command line: what it prints, and that wrong input ends with one sentence and status 2."""

import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiltmeter
from forked import until
from sweep_cases import command, refusal, save_model, save_tokens, start
from tiltmeter.analysis import curves
from tiltmeter.cli import parsing
from tiltmeter.cli.output import OutputOptions
from tiltmeter.perturb.registry import DIRECTIONS
from tiltmeter.runs import extras
from tiltmeter.runs.run_directory import open_run, read_manifest
from tiny_models import VOCABULARY, WIDTH

GIVEN = {"--site": "resid_pre:1", "--direction": "isotropic", "--lengths": "0,1"}
GIVEN_SAE = ("--site", "resid_pre:1", "--sparsity", 1)
FILES = ("report.html", "figures/sweep.png", "figures/sweep.svg", "curves.nc", "summary.csv", "summary.parquet")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return save_tokens(tmp_path_factory.mktemp("tokens") / "tokens.npy", sequences=6)


@pytest.fixture
def sweep(model, tokens, tmp_path):
    """Arguments of a sweep that works, changed by options (None: without that one)."""

    def arguments(options=None, *more):
        given = {"--model": model, "--tokens": tokens, "--out": tmp_path / "run"} | GIVEN | (options or {})
        return ["sweep", *(part for name, value in given.items() if value is not None for part in (name, value)), *more]

    return arguments


def save(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def damaged(model, folder, edit):
    """The same model with its weights edited."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "command_line",
    [
        ("sweep", "--direction", "isotropic", "--lengths", "0,1"),
        ("crossings", "--direction", "isotropic", "--lengths", "0:5:1", "--threshold", "0.001"),
        ("compare", "v.npy", "--draws", "3", "--budget", "0.001"),
    ],
)
def test_a_dry_run_prints_what_a_run_would_take_and_writes_nothing(command_line, model, tokens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.arange(WIDTH, dtype=np.float32))
    given = ("--site", "resid_pre:1", "--model", model, "--tokens", tokens, "--dry-run")
    done = command(*command_line, *given, "--json")
    assert done.status == 0, done
    found = json.loads(done.out)
    assert found["sequences"] == 6 and found["seconds"] > 0 and found["disk"] > 0
    if command_line[0] == "sweep":
        assert "statistics of 6 sequences" in command(*command_line, *given).out
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_a_dry_run_of_a_study_prints_what_it_would_take_and_writes_nothing(model, tokens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tiltmeter.studies.dry_run._forecasts", lambda *_: ())  # nothing is tried
    given = ("--model", model, "--tokens", tokens, "--sequence-length", "8", "--quick")
    done = command("reproduce", "lee2024", "--figure", "1", *given, "--dry-run", "--json")
    assert done.status == 0, done
    found = json.loads(done.out)
    assert found["study"] == "lee2024" and found["figures"] == ["1"] and found["sweeps"] == 2
    assert found["columns"] == ["model", "control/initialised-0"] and found["out"].startswith("runs/lee2024-")
    assert [*tmp_path.iterdir()] == []


def test_a_sweep_prints_where_everything_is(sweep, tmp_path):
    done = command(*sweep({"--readout": "l2@resid_post:2"}, "--readout", "kl", "--direction", "real-mixture"))
    assert done.status == 0, done
    assert "6 sequences of 8 are measured at resid_pre:1; 6 serve the statistics" in done.err
    assert f"report:  {tmp_path}/run/report.html" in done.out
    assert f"figures: {tmp_path}/run/figures" in done.out
    assert "pair distance: " in done.out
    found = curves.load(tmp_path / "run" / "curves.nc")
    assert [*found.direction.values] == ["isotropic", "real-mixture"]
    assert curves.readout_names(found) == ["l2@blocks.2.hook_resid_post", "kl", "length"]
    shown = float(done.out.split("real-mixture")[1].split("[")[0])
    assert shown == pytest.approx(float(found["l2@blocks.2.hook_resid_post"][1, 1].mean()), rel=6e-3)
    told = command("show", tmp_path / "run")
    assert told.status == 0, told
    assert "along:   isotropic, real-mixture" in told.out and "6 sequences, 6 for the statistics" in told.out
    first, *rows = map(json.loads, command("show", tmp_path / "run", "--json").out.splitlines())
    assert first["kind"] == "sweep" and first["finished"]
    assert [one["mean"] for one in rows if one["readout"] == "kl"] == pytest.approx(
        found.kl.mean("sequence").values.ravel()
    )
    for file in FILES:
        assert (tmp_path / "run" / file).stat().st_size > 0


@pytest.fixture
def own_log(monkeypatch):
    """What --quiet and --verbose set ends with the test."""
    log = logging.getLogger("tiltmeter")
    before = log.level
    monkeypatch.setenv("TQDM_DISABLE", "")
    yield
    log.setLevel(before)


def test_a_quiet_sweep_prints_json_alone(sweep, tmp_path, own_log):
    done = command(*sweep({}, "--quiet", "--json"))
    assert done.status == 0
    assert [line for line in done.err.splitlines() if line and "Loading weights" not in line] == []
    first, *rows = map(json.loads, done.out.splitlines())
    assert first["run"] == str(tmp_path / "run") and first["report"].endswith("report.html")
    assert {row["readout"] for row in rows} == {"kl", "length"} and all(row["n"] == 6 for row in rows)


def test_a_verbose_command_says_when(own_log, caplog):
    OutputOptions(verbose=True).begin()
    OutputOptions(verbose=True).say("model: nano")
    assert "model: nano (" in caplog.text and "s since the start" in caplog.text
    assert "Both --quiet and --verbose" in refusal("train-sae", "--kind", "e2e", *GIVEN_SAE, "--quiet", "--verbose")


def test_every_option_reaches_the_sweep(sweep, tmp_path):
    options = {
        "--lengths": "0:1:0.25",
        "--unit": "norm",
        "--positions": "2+3",
        "--bos-statistics": "in",
        "--bos-perturbation": "out",
        "--bos-average": "out",
        "--sequences": 5,
        "--statistics-sequences": 4,
        "--sequence-length": 7,
        "--precision": "float64",
        "--seed": 3,
    }
    assert command(*sweep(options, "--keep-positions")).status == 0
    manifest = read_manifest(tmp_path / "run")
    asked = manifest["identity"]["sweep"]
    assert asked["path"] == {"kind": "straight", "lengths": [0.0, 0.25, 0.5, 0.75, 1.0], "unit": "norm"}
    assert asked["bos"] == {"statistics": "in", "perturbation": "out", "average": "out"}
    wanted = {"positions": "2+3", "sequences": 5, "statistics_sequences": 4, "seed": 3, "keep_positions": True}
    wanted["site"] = "blocks.1.hook_resid_pre"
    assert {name: asked[name] for name in wanted} == wanted
    assert manifest["identity"]["model"]["precision"] == "float64"
    assert curves.load(tmp_path / "run" / "curves.nc").sizes["position"] == 4
    assert manifest["record"]["tokens"]["shape"] == [5, 7]
    again = command("sweep", "--config", tmp_path / "run" / "manifest.json", "--out", tmp_path / "again")
    assert again.status == 0 and "are not those of the run" not in again.err, again
    assert read_manifest(tmp_path / "again")["identity"] == manifest["identity"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0,1.5, 3", [0, 1.5, 3]),
        ("0:1:0.1", [k / 10 for k in range(11)]),
        ("5:5:1", [5]),
        ("2:0:-1", [2, 1, 0]),
        ("0:1:0.4", [0, 0.4, 0.8]),
        ("1e2", [100]),
    ],
)
def test_numbers(text, numbers):
    assert parsing.numbers(text) == pytest.approx(numbers)


def test_a_sweep_without_matplotlib_has_its_numbers(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "matplotlib")
    done = command(*sweep())
    assert done.status == 0, done
    assert "pip install 'tiltmeter[report]'" in done.out and "KL(clean" in done.out
    assert (tmp_path / "run" / "summary.csv").is_file() and not (tmp_path / "run" / "report.html").exists()


def test_several_sites(sweep, tmp_path):
    done = command(*sweep({"--site": "resid_pre:1,mlp_out:2"}))
    assert done.status == 0, done
    assert command(*sweep({"--site": "resid_pre:1,mlp_out:2"})).out == done.out
    for name in ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out"):
        assert f"{name}  (pair distance " in done.out
        assert (tmp_path / "run" / name / "report.html").is_file()
    told = command("show", tmp_path / "run").out
    assert told.index("blocks.1.hook_resid_pre (centred)") < told.index("blocks.2.hook_mlp_out (centred)")
    facts = [json.loads(line) for line in command("show", tmp_path / "run", "--json").out.splitlines()]
    assert [one["run"].rpartition("/")[2] for one in facts if "run" in one] == [
        "blocks.1.hook_resid_pre",
        "blocks.2.hook_mlp_out",
    ]


def test_vectors_are_compared(model, tokens, tmp_path):
    mine, out = save(tmp_path / "mine.npy", np.eye(WIDTH)[0]), tmp_path / "compared"
    inputs = ("--model", model, "--tokens", tokens, "--out", out, "--sequences", 4, "--seed", 1)
    options = ("--site", "resid_pre:1", "--draws", 3, "--baseline", "isotropic", "--lengths", "0.5,1", "--budget", 0.1)
    done = command("compare", mine, *inputs, *options)
    assert done.status == 0, done
    assert "mine" in done.out and f"report:  {out}/report.html" in done.out
    asked = read_manifest(out)["identity"]
    assert (asked["compare"]["vectors"], asked["compare"]["budgets"]) == (["mine"], [0.1])
    assert (asked["sweep"]["positions"], asked["sweep"]["seed"], asked["sweep"]["sequences"]) == ("last", 1, 4)
    assert "at length 1 pair distances" in command("show", out).out
    assert "is a run of compare, not of sweep" in refusal(
        "sweep", "--site", "resid_pre:1", "--direction", "zero", "--lengths", 1, *inputs
    )


def test_angles(sweep, tmp_path):
    assert command(*sweep({"--lengths": None, "--angles": "0:180:90"})).status == 0
    assert [*curves.load(tmp_path / "run" / "curves.nc").step.values] == [0, 90, 180]


def test_list_names_everything():
    done = command("list")
    figures = command("list", "figures")
    assert done.status == 0
    names = ["nano", "blocks.L.hook_resid_pre", "attn.hook_z", *DIRECTIONS, "along:FILE", "kl", "js", "l2@SITE"]
    assert [name for name in [*names, "cos@SITE", "loss", "lee2024"] if name not in done.out] == []
    assert "lee2024 --figure 1" in figures.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"--model": "no/such-model"}, "'no/such-model' could not be loaded: it is not an embedded model (nano)"),
        ({"--model": "~nobody-here/model"}, "cannot be looked up"),
        ({"--model": "m" * 300}, "File name too long"),
        ({"--revision": "main"}, "is not a model on the hub"),
        ({"--site": "resid_pre:3"}, "has layers 0 to 2"),
        (
            {"--site": "hook_embeds"},
            "'hook_embeds' is not a site (did you mean hook_embed?); tiltmeter list sites shows all",
        ),
        ({"--direction": "sideways"}, "'sideways' is not a direction; tiltmeter list directions shows all"),
        ({"--direction": "along:absent.npy"}, "absent.npy is not a file"),
        ({"--direction": "along:~nobody-here/v.npy"}, "cannot be looked up"),
        ({"--readout": "perplexity"}, "'perplexity' is not a readout; tiltmeter list readouts shows all"),
        ({"--readout": "l2@resid_pre:0"}, "comes before blocks.1.hook_resid_pre; read a later site"),
        ({"--tokens": "absent.npy"}, "There is no token file 'absent.npy'"),
        ({"--tokens": "nano"}, "there is no tokenizer"),
        ({"--tokens": None}, "No tokens were named"),
        ({"--column": "text"}, "has no columns"),
        ({"--sequence-length": "0"}, "--sequence-length was 0, expected at least 1"),
        ({"--sequence-length": "16"}, "no whole sequence of 16 tokens, but sequences of 8"),
        ({"--sequences": "0"}, "--sequences was 0, expected at least 1"),
        ({"--statistics-sequences": "-1"}, "--statistics-sequences was -1"),
        ({"--sequences": "7"}, "7 sequences were requested"),
        ({"--lengths": "-1"}, "a length is -1.0; lengths must be finite and not negative"),
        ({"--lengths": "1,nan"}, "a length is nan"),
        ({"--lengths": "0,inf"}, "a length is inf"),
        ({"--lengths": "0,1,0"}, "a step is listed twice"),
        ({"--lengths": "one"}, "'one' was not understood"),
        ({"--lengths": "0:5"}, "'0:5' was not understood"),
        ({"--lengths": "0:5:0"}, "'0:5:0' was not understood"),
        ({"--lengths": "0:5:-1"}, "'0:5:-1' was not understood"),
        ({"--lengths": "0:1e9:1e-9"}, "was not understood"),
        ({"--lengths": "1e300"}, "kl along isotropic is not finite at step 1e+300"),
        ({"--lengths": None}, "Give one of --lengths, --angles and --substitute"),
        ({"--angles": "0,90"}, "Give one of --lengths, --angles and --substitute"),
        ({"--lengths": None, "--angles": "0,181"}, "an angle is 181.0"),
        ({"--unit": "miles"}, "--unit was 'miles'; choose from absolute, norm, target, pair-distance"),
        ({"--positions": "first"}, "Positions 'first' were not understood"),
        ({"--positions": "8"}, "Position 8 was asked for, but the sequences have 8 tokens"),
        ({"--positions": "6+2"}, "Position 8 was asked for"),
        ({"--bos-statistics": "maybe"}, "--bos-statistics was 'maybe'; choose from in, out"),
        ({"--bos-perturbation": "no"}, "--bos-perturbation was 'no'"),
        ({"--bos-average": ""}, "--bos-average was ''"),
        (
            {"--precision": "float16"},
            "--precision was 'float16' (did you mean float64?); choose from auto, float32, float64",
        ),
        ({"--device": "abacus"}, "The device 'abacus' cannot be used here"),
        ({"--device": "meta"}, "The device 'meta' cannot be used here"),
        ({"--out": "/dev/null"}, "/dev/null cannot be used"),
        ({"--out": "/dev/null/below"}, "/dev/null/below cannot be used"),
        ({"--out": "/proc/nowhere"}, "/proc/nowhere cannot be used"),
    ],
    ids=lambda value: " ".join(f"{k} {v}"[:30] for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_wrong_input_to_a_sweep(sweep, options, sentence):
    assert sentence in refusal(*sweep(options))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.full((3, 8), VOCABULARY), f"go up to {VOCABULARY} but the model's vocabulary has {VOCABULARY} tokens"),
        (np.full((3, 8), -1), "go down to -1"),
        (np.ones((3, 17), int), "have 17 tokens but the model's context is 16"),
        (np.ones((0, 8), int), "an array of shape (0, 8); expected [sequence, position]"),
        (np.ones((5, 1), int), "sequences"),
        (np.full((3, 8), np.nan), "holds floating-point numbers"),
        (np.array([[1, None]], object), "pickle"),
    ],
)
def test_wrong_tokens(sweep, tmp_path, rows, sentence):
    assert sentence in refusal(*sweep({"--tokens": save(tmp_path / "rows.npy", rows)}))


@pytest.mark.parametrize(
    ("vector", "sentence"),
    [
        (
            np.ones(WIDTH - 1),
            f"has vectors of width {WIDTH - 1}, but those at blocks.1.hook_resid_pre have width {WIDTH}",
        ),
        (np.full(WIDTH, np.nan), "contains NaN or an infinity"),
        (np.zeros(WIDTH), "is zero"),
        (np.array([1, None], object), "holds Python objects, which are never loaded"),
    ],
)
def test_wrong_vectors(sweep, tmp_path, vector, sentence):
    assert sentence in refusal(*sweep({"--direction": f"along:{save(tmp_path / 'v.npy', vector)}"}))


class Bomb:
    """Something that must not be unpickled."""

    def __reduce__(self):
        return (os.abort, ())


@pytest.mark.parametrize("name", ["bomb.pt", "bomb.bin", "bomb.pkl", "bomb.npy"])
def test_pickles_are_never_loaded(sweep, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    refusal(*sweep({"--tokens": path}))
    refusal(*sweep({"--direction": f"along:{path}"}))


def test_models_that_are_pickles_or_have_no_weights(sweep, model, tmp_path):
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    assert "no weights" in refusal(*sweep({"--model": tmp_path}))
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "pytorch_model.bin, a pickle" in refusal(*sweep({"--model": tmp_path}))


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("transformer.wpe.weight", "activations at blocks.1.hook_resid_pre are not finite"),
        ("transformer.ln_f.bias", "are not finite on these tokens; check its weights."),
    ],
)
def test_weights_that_are_not_finite(sweep, model, tmp_path, part, sentence):
    def edit(weights):
        weights[part].flatten()[0] = torch.nan

    assert command(*sweep({"--model": damaged(model, tmp_path / "sound", lambda weights: None)})).status == 0
    found = refusal(*sweep({"--model": damaged(model, tmp_path / "model", edit), "--out": tmp_path / "other"}))
    assert sentence in found
    left = part == "transformer.ln_f.bias"  # the statistics of the site are sound, and stored
    assert (tmp_path / "other").exists() == left


def test_the_directory_of_another_run_is_refused(sweep, tmp_path, monkeypatch):
    assert command(*sweep()).status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    monkeypatch.setattr("tiltmeter.models.loading.load_model", None)  # it is not loaded
    sentence = refusal(*sweep({"--lengths": "0,2"}))
    monkeypatch.undo()
    assert "is a run of another configuration (sweep.path.lengths.1 is 1.0 there, 2.0 here" in sentence
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert command(*sweep()).status == 0


@pytest.fixture
def not_loaded(monkeypatch):
    """No model is loaded."""
    monkeypatch.setattr("tiltmeter.models.loading.load_model", lambda *_, **__: pytest.fail("the model was loaded"))


def test_the_directory_of_another_run_is_refused_before_the_model_is_loaded(model, tokens, tmp_path, not_loaded):
    np.save(tmp_path / "v.npy", np.arange(WIDTH, dtype=np.float32))
    given = ("--site", "resid_pre:1", "--model", model, "--tokens", tokens, "--out", tmp_path / "run")
    search = ("crossings", *given, "--direction", "isotropic", "--lengths", "0:5:1", "--threshold", "0.001")
    for kind, arguments in (("crossings", search), ("compare", ("compare", tmp_path / "v.npy", *given))):
        with open_run(tmp_path / "run", {kind: {}}, dict) as run:
            run.save("shard-00000", {"kl": np.zeros(1)})
        assert "is a run of another configuration" in refusal(*arguments)
        shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("options", [{"--site": "module:transformer.h.1.mpl"}, {"--readout": "l2@module:lm_haed"}])
def test_a_misspelt_module_is_refused_before_the_model_is_loaded(sweep, not_loaded, options):
    assert "(did you mean" in refusal(*sweep(options))


def test_a_device_that_is_not_there_is_refused_before_the_model_is_loaded(sweep, not_loaded):
    assert "The device 'cuda:99' cannot be used here" in refusal(*sweep({"--device": "cuda:99"}))


def test_a_directory_that_is_no_run_is_left_alone(sweep, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    assert "is not empty and not a run" in refusal(*sweep())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_report_of_what_is_no_finished_run(sweep, tmp_path):
    assert "is not a run" in refusal("report", tmp_path)
    assert "is not a run" in refusal("report", tmp_path / "absent")
    assert "cannot be looked up" in refusal("report", "~nobody-here/run")
    refusal(*sweep({"--lengths": "1e300"}))
    assert "is a run that has not finished; repeat its command" in refusal("report", tmp_path / "run")
    (tmp_path / "run" / "curves.nc").write_bytes(b"CDF garbage")
    assert "not a complete NetCDF file of curves" in refusal("report", tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text("{")
    assert "is damaged" in refusal("report", tmp_path / "run")


@pytest.mark.parametrize(
    "arguments", [["sweep", "--nonsense"], ["nonsense"], ["reproduce"], ["sweep", "--seed", "one"]]
)
def test_wrong_usage(arguments):
    done = command(*arguments)
    assert done.status == 2
    assert "Traceback" not in done.err
    assert "Usage" in done.err


@pytest.mark.parametrize(
    "options",
    [
        {"--positions": "last", "--readout": "loss"},
        {"--lengths": "0"},
    ],
)
def test_a_sweep_with_an_empty_readout_still_has_a_report(sweep, tmp_path, options):
    assert command(*sweep(options)).status == 0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("options", [{"--bos-average": "out"}, {"--bos-perturbation": "out"}])
def test_a_sweep_that_measures_nothing_says_so(sweep, options):
    done = command(*sweep({"--positions": "0"} | options))
    assert done.status == 2
    assert "Nothing was measured" in done.err


def test_a_run_that_failed_before_it_measured_may_begin_again(sweep, tmp_path):
    one = save_tokens(tmp_path / "one.npy", sequences=1, length=2)
    assert "at least two tokens" in command(*sweep({"--tokens": one})).err
    assert command(*sweep({"--lengths": "0,1"})).status == 0


def test_default_folders_differ_with_the_configuration(model, tokens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = ("sweep", "--model", model, "--tokens", tokens, "--site", "resid_pre:1", "--direction", "isotropic")
    for lengths in ("0,1", "0,2", "0,1"):
        assert command(*sweep, "--lengths", lengths).status == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_differences_that_are_carried(sweep, tmp_path):
    """Far below what two float32 runs can tell apart, KL still grows with the square of the length."""
    options = {"--lengths": "0.000001,0.00001", "--readout": "kl"}
    kl = {}
    for precision in ("float32", "float32-difference"):
        out = {"--precision": precision, "--out": tmp_path / precision}
        assert command(*sweep(options | out)).status == 0
        kl[precision] = curves.load(tmp_path / precision / "curves.nc").kl.mean("sequence").values
    ratios = {precision: values[:, 1] / values[:, 0] for precision, values in kl.items()}
    assert np.abs(ratios["float32-difference"] / 100 - 1).max() < 1e-3
    assert np.abs(ratios["float32"] / 100 - 1).max() > 1e-2


def test_interrupted_it_says_how_to_go_on(sweep, tmp_path, model):
    tokens = save_tokens(tmp_path / "many.npy", sequences=400, length=12)
    # Far more work than is done before the signal comes.
    options = {"--tokens": tokens, "--sequences": 400, "--lengths": "0:50:0.5"}
    with start(*sweep(options)) as process:
        until(lambda: list((tmp_path / "run").glob("shards/shard-*")) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    # Where the signal came inside an eval, Python ends by the signal itself; a shell shows 130 either way.
    assert process.returncode in (130, -signal.SIGINT), err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == ("tiltmeter: interrupted; the same command goes on from where it last saved.")


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(flag):
    assert command(flag).out == f"tiltmeter {tiltmeter.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["sweep"], ["list"]])
def test_help_in_short(arguments):
    assert command(*arguments, "-h").out == command(*arguments, "--help").out != ""


def test_the_shell_is_offered_options_and_commands(monkeypatch):
    for typed, offered in (("sweep --sta", "--statistics-sequences"), ("cross", "crossings")):
        monkeypatch.setenv("_TILTMETER_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"tiltmeter {typed}")
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
        assert offered in command().out.split()


def test_the_shell_sees_one_sentence_and_status_2():
    given = ["sweep", "--site", "resid_pre:1", "--direction", "isotropic"]
    done = subprocess.run([sys.executable, "-m", "tiltmeter", *given], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "tiltmeter: Give one of --lengths, --angles and --substitute, and only one.\n"
