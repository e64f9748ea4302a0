"""Options from a file, from the manifest of a run, and the example that `tiltmeter init` writes."""

import json

import pytest
import typer

from sweep_cases import command, refusal
from tiltmeter.cli.config_file import read_config
from tiltmeter.cli.from_manifest import IN_PYTHON, _without_python, options_of_manifest
from tiltmeter.cli.main import app
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.paths import Straight
from tiltmeter.saes.training.config import Training
from tiltmeter.sweeps.plan import Sweep

COMMANDS = typer.main.get_command(app).commands


@pytest.fixture
def read(tmp_path):
    def read(text, name="sweep"):
        (tmp_path / "a.yaml").write_text(text)
        return read_config(tmp_path / "a.yaml", COMMANDS[name], name)

    return read


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("lengths: 1:40:5", {"lengths": "1:40:5"}),  # a number in base 60 in YAML 1.1
        ("lengths: [0, 1.5]", {"lengths": "0,1.5"}),
        ("direction: isotropic", {"direction": ["isotropic"]}),
        ("directions: [isotropic, zero]", {"direction": ["isotropic", "zero"]}),
        ("bos: {statistics: in, average: out}", {"bos_statistics": "in", "bos_average": "out"}),
        ("statistics_sequences: 3", {"statistics_sequences": "3"}),
        ("statistics-sequences: 3", {"statistics_sequences": "3"}),
        ("seed:\nout: ~\nuntil_ci: null", {}),
        ("json: true", {"as_json": "true"}),
        ("", {}),
        ('{"positions": "3,7"}', {"positions": "3,7"}),
    ],
)
def test_files(read, text, options):
    assert read(text) == options


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("direktion: zero", "'direktion', which is not an option of tiltmeter sweep (did you mean direction?)"),
        ("sites: resid_pre:3", "(did you mean site?)"),
        ("config: b.yaml", "is not an option"),
        ("a: [", "is not valid YAML"),
        ("- a", "holds no mapping"),
        ("lengths: [[0]]", "list of lists"),
        ("!!python/object/apply:os.abort []", "holds no mapping"),
        ("seed: 1\nseed: 2", "the key 'seed' twice"),
        ("direction: zero\ndirections: mean", "gives --direction twice, also as 'directions'"),
    ],
)
def test_wrong_files(read, text, sentence):
    with pytest.raises(TiltmeterError) as raised:
        read(text)
    assert sentence in str(raised.value)


def test_options_of_the_command_line_win(tmp_path):
    (tmp_path / "a.yaml").write_text("site: resid_pre:3\ndirections: [up, down]\nlengths: 0,1\nbase: clan\n")
    given = ("sweep", "--config", tmp_path / "a.yaml")
    assert "'clan' is not a base" in refusal(*given)
    assert "'up' is not a direction" in refusal(*given, "--base", "clean")
    assert "'left' is not a direction" in refusal(*given, "--base", "clean", "--direction", "left")
    assert "cannot be read" in refusal("sweep", "--config", tmp_path / "b.yaml")


@pytest.mark.parametrize("name", ["sweep", "crossings", "compare", "train-sae", "reproduce"])
def test_the_example_has_every_option(tmp_path, name):
    path = tmp_path / f"{name}.yaml"
    assert command("init", path, "--for", name).status == 0
    text = path.read_text()
    read_config(path, COMMANDS[name], name)
    everything = "\n".join(line.removeprefix("# ") for line in text.splitlines() if not line.startswith("# Options"))
    for option in COMMANDS[name].params:
        if option.name not in ("help", "config", "quiet", "verbose", "as_json"):
            assert f"\n{option.opts[0].lstrip('-')}:" in everything, option.opts
    assert "exists; name another file" in refusal("init", path)


def test_the_example_runs_as_far_as_the_model(tmp_path):
    command("init", tmp_path / "a.yaml")
    assert "There is no model './absent'" in refusal("sweep", "--config", tmp_path / "a.yaml", "--model", "./absent")


def test_arguments_are_read_from_a_file_too(tmp_path):
    command("init", path := tmp_path / "a.yaml", "--for", "compare")
    assert "steer.npy is not a file" in refusal("compare", "--config", path)
    (tmp_path / "b.yaml").write_text("study: le2024")
    assert "(did you mean lee2024?)" in refusal("reproduce", "--config", tmp_path / "b.yaml")


def test_what_only_python_sets_is_as_it_is_in_python():
    sweep = Sweep(site="resid_pre:3", path=Straight(lengths=(1,))).model_dump(mode="json")
    training = Training(kind="e2e", site="resid_pre:3", sparsity=1).model_dump(mode="json")

    def texts(value):
        if isinstance(value, dict):
            return {key: texts(one) for key, one in value.items()}
        return str(value).lower()

    assert {name: texts({**sweep, **training}[name]) for name in IN_PYTHON} == IN_PYTHON


OLDER = {"structured": {key: value for key, value in IN_PYTHON["synthesis"]["structured"].items() if key != "rows"}}
"""The synthesis of a manifest from before a parameter was added."""


@pytest.mark.parametrize("given", [{"directions": ["isotropic", "synthetic-structured-difference:A"]},
                                   {"base": "synthetic-structured:A"}])  # fmt: skip
def test_older_synthetic_activations_are_refused(given, tmp_path):
    with pytest.raises(TiltmeterError, match=r"synthesis = .*, which only Python sets"):
        _without_python({"directions": ["isotropic"], "base": "clean", "synthesis": OLDER} | given, tmp_path)


def test_how_activations_would_be_made_up_does_not_matter_where_none_are(tmp_path):
    settings = {"directions": ["isotropic"], "base": "clean", "synthesis": OLDER}
    assert _without_python(settings, tmp_path) == {"directions": ["isotropic"], "base": "clean"}


def test_another_pool_is_refused(tmp_path):
    manifest = {"format": 1, "identity": {"sweep": {"pool": "7"}, "model": {"device": "cpu", "precision": "auto"}},
                "record": {"model": {"name": "nano", "revision": "local"},
                           "tokens": {"name": "nano", "shape": ["4", "8"]}}}  # fmt: skip
    with pytest.raises(TiltmeterError, match="which only Python sets; expected 32768"):
        options_of_manifest(manifest, "sweep", tmp_path)
    with pytest.raises(TiltmeterError, match="is of a run of tiltmeter sweep, not of tiltmeter crossings"):
        options_of_manifest(manifest, "crossings", tmp_path)


def test_a_manifest_without_what_a_run_has_is_refused(tmp_path):
    for part in ({"model": {}}, {"model": {"name": "nano", "revision": "local"}}, {"model": 3}):
        with pytest.raises(TiltmeterError, match="is not a whole manifest"):
            options_of_manifest({"identity": {"sweep": {}}, "record": part}, "sweep", tmp_path)


def test_json_of_a_manifest_is_read_as_texts(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"lengths": "0,1", "keep_positions": False, "until_ci": None}))
    assert read_config(tmp_path / "a.json", COMMANDS["sweep"], "sweep") == {"lengths": "0,1", "keep_positions": "false"}
