"""Studies: the same inside for every paper; measured, judged and published, on a model and on its controls."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from small_saes import save_sae
from sweep_cases import command, refusal, save_model, save_tokens
from tiltmeter import studies
from tiltmeter.analysis import estimates
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.reports.stored_claims import stored_rows
from tiltmeter.runs.run_directory import read_manifest
from tiltmeter.studies import STUDIES, report
from tiltmeter.studies.claims import judge
from tiltmeter.studies.results import NotMeasured, Results
from tiltmeter.studies.study import Subject
from tiltmeter.studies.subject import corresponding_layer
from tiny_models import tiny

SEQUENCES = 32


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_claim_has_one_topic_and_every_topic_figures(study):
    placed = [name for topic in study.topics for name in topic.claims]
    assert sorted(placed) == sorted(claim.name for claim in study.claims)
    assert all(set(topic.figures) <= study.figures.keys() and topic.figures for topic in study.topics)
    assert set(study.headlines) <= set(placed) and len(study.headlines) == 5


@pytest.fixture(autouse=True, scope="module")
def hardly_any_draws():
    """How sure the numbers are is not looked at."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimates, "RESAMPLES", 9)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tokens = save_tokens(folder / "tokens.npy", sequences=SEQUENCES)
    return ["--model", save_model(folder / "model"), "--tokens", tokens, "--sequence-length", 8]


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """Lee & Heimersheim's baselines on a tiny model, with their control."""
    folder = tmp_path_factory.mktemp("runs") / "lee"
    done = command("reproduce", "lee2024", "--quick", "--figure", 1, *inputs, "--out", folder)
    assert done.status == 0, done.err
    return folder, done


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_every_study_has_the_same_inside(study):
    folder = Path(studies.__file__).parent / study.name
    files = {"__init__.py", "claims.py", "estimands.py", "experiments.py"}
    assert files <= {file.name for file in folder.iterdir()}
    assert (folder / "figures" / "__init__.py").is_file()
    assert {"nano", "gpt2"} <= study.presets.keys()
    for figure in study.figures.values():
        assert figure.title.startswith(study.citation.split(",")[0])
        assert figure.caption.endswith(".")
        assert figure.needs
    for claim in study.claims:
        assert claim.sentence.endswith(".") and claim.source
    assert len({claim.name for claim in study.claims}) == len(study.claims)


def test_the_documentation_lists_every_study_once():
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+?), \*", text, flags=re.MULTILINE)
    assert sorted(rows) == sorted((study.name, study.citation.split(",")[0]) for study in STUDIES.values())


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_nothing_measured_means_nothing_claimed(study):
    assert {verdict.word for verdict in judge(study.claims, Results({}, {}))} == {"not tested"}


@pytest.mark.parametrize(
    ("part", "layers", "layer"), [(0.5, 12, 6), (0.5, 6, 3), (1 / 12, 12, 1), (1 / 12, 6, 1), (0.5, 1, 0)]
)
def test_the_papers_layer_in_another_model(part, layers, layer):
    assert corresponding_layer(part, layers) == layer


def test_a_study_leaves_a_run_for_each_experiment_and_column(run):
    folder, _ = run
    manifest = read_manifest(folder)
    assert manifest["record"]["purpose"] == "study"
    assert manifest["identity"]["layer"] == 2
    experiments = json.loads((folder / "experiments.json").read_text())
    assert experiments["model"]["directions"] == experiments["control/initialised-0"]["directions"] == ""
    assert "omit --figure" in experiments["model"]["directions-early"]
    assert "No SAE" in experiments["model"]["errors"]
    for column in ("model", "control/initialised-0"):
        assert (folder / column / "directions" / "curves.nc").is_file()
    names = [
        read_manifest(folder / column / "directions")["record"]["model"]["name"]
        for column in ("model", "control/initialised-0")
    ]
    assert read_manifest(folder / "control" / "initialised-0" / "directions")["record"]["model"]["revision"] == (
        "initialised, seed 0"
    )
    assert names[1] == f"{names[0]}, initialised"
    assert not (folder / "model" / "directions-early").exists()


def test_claims_are_judged_on_both(run):
    folder, done = run
    rows = {row["name"]: row for row in json.loads((folder / "claims.json").read_text())}
    assert len(rows) == len(STUDIES["lee2024"].claims)
    tested = rows["real-difference-above-mixture"]
    assert tested["verdict"] in ("supported", "contradicted", "inconclusive")
    assert tested["initialised"] in ("supported", "contradicted", "inconclusive")
    assert tested["published"] == ""  # the paper's numbers are of another model
    assert rows["errors-plateau"]["verdict"] == "not tested"
    assert "No SAE at blocks.2.hook_resid_pre was given" in rows["errors-plateau"]["note"]
    assert f"{len(rows)} claims: " in done.out
    again = command("claims", folder)
    assert again.status == 0
    assert again.out.strip() in done.out


def test_figures_tables_and_report_are_there(run):
    folder, done = run
    for file in (
        "figures/figure-1.png",
        "figures/figure-1.svg",
        "figures/figure-1.pdf",
        "tables/figure-1.csv",
        "tables/figure-1.tex",
        "claims.tex",
    ):
        assert (folder / file).stat().st_size > 0
    page = (folder / "report.html").read_text()
    assert f"report:  {folder}/report.html" in done.out
    order = [page.index(f'<section id="{name}"') for name in ("answer", "claims", "figures")]
    assert order == sorted(order)
    assert 'href="#figure-1">Figure 1 on LessWrong, 1a on arXiv: difference and mixture</a>' in page
    assert "Not drawn: errors: No SAE" in page


def test_the_same_command_measures_nothing_again(run, inputs):
    folder, _ = run
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("shards/*")}
    claims = (folder / "claims.json").read_bytes()
    assert command("reproduce", "lee2024", "--quick", "--figure", 1, *inputs, "--out", folder).status == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("shards/*")} == before
    assert (folder / "claims.json").read_bytes() == claims


def copied(run, place, but=()):
    """A copy of a study's run, without some of its files."""
    shutil.copytree(run, place, ignore=shutil.ignore_patterns(*but))
    return place


def test_more_figures_go_into_the_same_folder(run, inputs, tmp_path):
    more = copied(run[0], tmp_path / "run")
    given = ["--quick", "--control", "none", "--figure", "S1", *inputs, "--out", more]
    assert command("reproduce", "lee2024", *given).status == 0
    assert (more / "model" / "directions-early" / "curves.nc").is_file()
    assert not (more / "control" / "initialised-0" / "directions-early").exists()
    assert (more / "figures" / "figure-1.svg").exists() and (more / "figures" / "figure-S1.svg").exists()


def test_a_folder_holds_one_configuration(run, inputs):
    folder, _ = run
    out = ["--figure", 1, "--control", "none", *inputs, "--out", folder]
    before = {name: (folder / name).read_bytes() for name in ("manifest.json", "experiments.json", "claims.json")}
    assert "(layer is 2 there, 1 here)" in refusal("reproduce", "lee2024", "--quick", "--layer", 1, *out)
    assert '(size is "quick" there, "default" here)' in refusal("reproduce", "lee2024", *out)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_control_can_be_added_later(run, inputs, tmp_path):
    folder = copied(run[0], tmp_path / "run", but=("control", "claims.*", "report.html"))
    out = ["lee2024", "--quick", "--figure", 1, *inputs, "--out", folder]
    assert command("reproduce", *out, "--control", "none").status == 0
    measured = {path: path.stat().st_mtime_ns for path in folder.rglob("model/**/shards/*")}
    assert measured and "no control" in (folder / "report.html").read_text()
    assert command("reproduce", *out, "--control", "shuffled", "--control-seeds", 2).status == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model/**/shards/*")} == measured
    seeds = [
        xr.load_dataset(folder / f"control/shuffled-{seed}/directions/curves.nc", engine="scipy") for seed in (0, 1)
    ]
    assert not seeds[0].equals(seeds[1])
    assert "the same experiments on controls: shuffled (2 seeds)." in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        ("lee2024", "The early layer, 1, does not come before layer 0, which is studied."),
        ("heimersheim2024", "The last layer, 0, is the one that is studied."),
    ],
)
def test_a_model_of_one_layer_has_no_other_layers(study, reason):
    subject = Subject(LoadedModel(SplitModel(tiny("gpt2", n_layer=1)), None, {}), 0, ())
    found = STUDIES[study].experiments(subject, "quick").values()
    assert reason in [one.reason for one in found if isinstance(one, NotMeasured)]


DAMAGE = [b"", b"null", b"[]", b"{}", b"3", b'"x"', b'{"model": 3}', b'[{"claim": 1}]', b"[" * 100_000, b"\xff\x00"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_claims_are_judged_again(run, damage, monkeypatch):
    folder, done = run
    rows = [row._replace(claim="Judged again.") for row in stored_rows(folder)]
    monkeypatch.setattr(report, "claims_of", lambda _: rows)
    assert command("claims", folder).out.strip() in done.out, "undamaged, they are not"
    whole = (folder / "claims.json").read_bytes()
    (folder / "claims.json").write_bytes(damage)
    again = command("claims", folder)
    (folder / "claims.json").write_bytes(whole)
    assert again.status == 0 and "Judged again." in again.out


@pytest.mark.parametrize("file", ["experiments.json", "manifest.json", "model/directions/curves.nc"])
def test_damaged_files_are_named(run, file):
    folder, _ = run
    whole = (folder / file).read_bytes()
    for damage in [whole[: len(whole) // 2], *DAMAGE]:
        if (file, damage) == ("experiments.json", b"{}"):
            continue  # it says that nothing was measured
        (folder / file).write_bytes(damage)
        error = command("report", folder)
        (folder / file).write_bytes(whole)
        assert error.status == 2 and str(folder / file) in error.err and error.err.count("\n") == 1


def test_a_report_is_drawn_again_from_what_is_stored(run, tmp_path):
    folder = copied(run[0], tmp_path / "run", but=("report.html", "figure-2.png"))
    assert command("report", folder).status == 0
    assert (folder / "report.html").is_file() and (folder / "figures" / "figure-2.png").is_file()


def test_an_experiment_of_a_study_is_a_sweep_too(run):
    folder, _ = run
    assert command("report", folder / "model" / "directions").status == 0
    assert (folder / "model" / "directions" / "report.html").is_file()


def test_your_own_saes(inputs, tmp_path):
    local = [save_sae(tmp_path / f"local-l0-{l0}", seed=l0, kind="local") for l0 in (5, 9)]
    e2e = save_sae(tmp_path / "e2e-l0-4", seed=4, kind="e2e")
    given = [part for sae in (*local, e2e) for part in ("--sae", sae)]
    run = tmp_path / "run"
    done = command("reproduce", "lee2024", "--quick", "--figure", 5, *inputs, *given, "--layer", 1, "--out", run)
    assert done.status == 0, done.err
    svg = (run / "figures" / "figure-5.svg").read_text(encoding="utf-8")
    assert ">local SAEs<" in svg and ">e2e SAEs<" in svg
    assert re.findall(">(local|e2e) SAE, L0", svg) == ["local", "local", "e2e"]
    assert "sae-error:" not in svg
    rows = {row["name"]: row for row in json.loads((run / "claims.json").read_text())}
    assert rows["errors-local-sparser-stronger"]["verdict"] != "not tested"
    assert "A quick run trains no SAEs" in rows["errors-local-sparser-stronger"]["note"]


def test_what_cannot_be_measured_does_not_keep_the_rest_from_it(inputs, tmp_path):
    dead, run = save_sae(tmp_path / "dead", seed=1, kind="local", bias=-1e6), tmp_path / "run"
    given = ["lee2024", "--quick", "--figure", 5, "--figure", 7, *inputs, "--layer", 1, "--sae", dead]
    done = command("reproduce", *given, "--control", "none", "--out", run)
    assert done.status == 2
    assert "model/features: " in done.err.splitlines()[-1] and f"The report, {run}/report.html" in done.err
    told = command("claims", run)
    assert told.status == 0 and "It could not be measured: " in told.out
    assert (run / "figures" / "figure-5.svg").is_file() and not (run / "figures" / "figure-7.svg").exists()


def test_a_study_of_which_nothing_was_measured_leaves_nothing(inputs, tmp_path, monkeypatch):
    def refuse(*_):
        raise TiltmeterError("nothing can be measured")

    monkeypatch.setattr("tiltmeter.studies.study.run_sweep", refuse)
    out = ("--out", tmp_path / "runs" / "run")
    done = command("reproduce", "lee2024", "--quick", "--figure", 1, *inputs, *out)
    assert done.status == 2 and "nothing can be measured" in done.err
    assert [*tmp_path.iterdir()] == []


def test_a_figure_of_which_nothing_can_be_measured_is_refused(inputs, tmp_path):
    sentence = "Figure 5 cannot be drawn. No SAE at blocks.2.hook_resid_pre was given."
    given = ["lee2024", "--figure", 1, "--figure", 5, *inputs, "--out", tmp_path / "run"]
    assert sentence in refusal("reproduce", *given)
    assert not (tmp_path / "run").exists()


def test_what_a_folder_of_all_lacks_is_said(run, tmp_path):
    folder, _ = run
    shutil.copytree(folder, tmp_path / "all" / "lee2024")
    manifest = json.loads((folder / "manifest.json").read_text())
    both = {"lee2024": manifest["identity"], "gurnee2024": manifest["identity"]}
    (tmp_path / "all" / "manifest.json").write_text(
        json.dumps(manifest | {"identity": both, "record": {"purpose": "studies"}})
    )
    assert "gurnee2024 is not here; repeat the command" in command("claims", tmp_path / "all").out
    assert command("report", tmp_path / "all").status == 0
    assert "gurnee2024 is not here; repeat the command" in (tmp_path / "all" / "report.html").read_text()


def test_the_folder_of_all_is_of_all(run, inputs, tmp_path):
    folder, _ = run
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    assert "is a run of lee2024, not of all" in refusal("reproduce", "all", "--quick", *inputs, "--out", folder)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    assert "not empty and not a run" in refusal("reproduce", "all", "--quick", *inputs, "--out", tmp_path / "foreign")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lee2025"], "'lee2025' is not a study (did you mean lee2024?); choose from heimersheim2024"),
        (["lee2024", "--figure", "9"], "lee2024 has no figure '9'; choose from 1"),
        (["all", "--figure", "1"], "--figure needs one study"),
        (["lee2024", "--layer", "3"], "Layer 3 was asked for"),
        (["lee2024", "--layer", "-1"], "Layer -1 was asked for"),
        (["lee2024", "--size", "huge"], "--size was 'huge'; choose from quick, default, paper"),
        (
            ["lee2024", "--control", "shuffle"],
            "--control was 'shuffle' (did you mean shuffled?); choose from initialised, ",
        ),
        (["lee2024", "--control-seeds", "0"], "--control-seeds"),
        (["lee2024", "--preset", "gpt2"], "Give --preset or --model, not both"),
        (["lee2024", "--size", "paper", "--quick"], "Both --quick and --size paper were given"),
        (["lee2024", "--bos-before", "line"], "--bos-before was 'line'; choose from document, sequence, both"),
        (["lee2024", "--sequence-length", "0"], "expected at least 1"),
        (["lee2024", "--model", "/no/where"], "There is no model '/no/where': expected nano, an existing directory"),
        (["lee2024", "--sequence-length", "128"], "no whole sequence of 128 tokens, but sequences of 8"),
        (["lee2024", "--sae", "nowhere/at-all/here"], "nowhere/at-all/here"),
    ],
)
def test_wrong_input(inputs, tmp_path, arguments, sentence):
    given = [part for part in inputs if "--sequence-length" not in arguments or part not in ("--sequence-length", 8)]
    assert sentence in refusal("reproduce", *arguments[:1], *given, *arguments[1:], "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_saes_are_read_before_a_model_is_loaded(tmp_path):
    (model := tmp_path / "model").mkdir()
    given = ["--model", model, "--tokens", save_tokens(tmp_path / "tokens.npy")]
    save_file({"W_enc": torch.ones(3, 4)}, wrong := tmp_path / "wrong.safetensors")
    assert "is not an SAE of a known format" in refusal("reproduce", "lee2024", *given, "--sae", wrong)
    assert "There is no SAE" in refusal("reproduce", "lee2024", *given, "--sae", tmp_path / "nowhere")
    weights = {"W_enc": torch.ones(3, 4), "b_enc": torch.ones(4), "W_dec": torch.ones(4, 3), "b_dec": torch.ones(3)}
    save_file(weights | {"W_skip": torch.ones(3, 3)}, transcoder := tmp_path / "transcoder.safetensors")
    assert "only its decoder rows are used" in refusal("reproduce", "lee2024", *given, "--sae", transcoder)
    assert "has no config.json" in refusal("reproduce", "lee2024", *given, "--sae", "nano:local-3-l0-12")


def test_wrong_input_without_a_model(tmp_path):
    assert "--preset was 'gpt3' (did you mean gpt2?)" in refusal("reproduce", "lee2024", "--preset", "gpt3")
    model = save_model(tmp_path / "model")
    assert "No tokens were named" in refusal("reproduce", "lee2024", "--model", model)


def test_claims_of_what_is_no_study(run, tmp_path):
    folder, _ = run
    assert "is not a run" in refusal("claims", tmp_path)
    assert "is not the run of a study" in refusal("claims", folder / "model" / "directions")


def test_a_study_cut_short_is_published_as_far_as_it_got(run, tmp_path):
    folder, _ = run
    copy = tmp_path / "copy"
    for file in folder.rglob("*"):
        if file.is_file() and "control" not in file.parts and file.name != "report.html":
            (copy / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (copy / file.relative_to(folder)).write_bytes(file.read_bytes())
    (copy / "model" / "directions" / "curves.nc").unlink()
    (copy / "claims.json").unlink()
    done = command("claims", copy)
    assert done.status == 0
    assert "It has not finished; repeat the command" in done.out
    rows = [json.loads(line) for line in command("claims", copy, "--json").out.splitlines()]
    assert {row["verdict"] for row in rows if "mixture" in row["name"]} == {"not tested"}
