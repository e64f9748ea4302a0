"""Wrong input is refused before torch is imported, with the nearest name; and only what would be refused later, too."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import catalogue as written
from sweep_cases import command, refusal, save_model
from tiltmeter.cli import catalogue
from tiltmeter.cli.early.headers import Stored, stored_arrays
from tiltmeter.cli.early.model_facts import ModelFacts, model_facts
from tiltmeter.cli.early.names import check_directions, check_readouts, check_saes
from tiltmeter.cli.early.out import check_out
from tiltmeter.cli.early.tokens import TokenFacts, check_positions, token_facts
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.loading import load_model
from tiltmeter.runs.run_directory import open_run

NANO = ModelFacts(6, 128)


def refused(check, *arguments):
    with pytest.raises(TiltmeterError) as raised:
        check(*arguments)
    return str(raised.value)


def test_the_catalogue_is_what_the_code_defines():
    assert catalogue.FILE.read_text(encoding="utf-8") == written.text(), "run python scripts/catalogue.py"


def test_every_subject_can_be_listed():
    assert all(catalogue.subject(one) for one in catalogue.SUBJECTS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("reel-mixture", "real-mixture"),
        ("Isotropic", "isotropic"),
        ("isotropic:3", "isotropic"),
        ("steer.npy", "along:steer.npy"),
        ("vectors/steer", "along:vectors/steer"),
        ("sae-eror", "sae-error"),
    ],
)
def test_misspelt_directions(name, meant):
    sentence = refused(check_directions, [name], "resid_pre:3", [], NANO)
    assert sentence == (f"{name!r} is not a direction (did you mean {meant}?); tiltmeter list directions shows all.")


def test_misspelt_readouts_and_saes():
    assert "did you mean kl?" in refused(check_readouts, ["kll"], "resid_pre:3", NANO)
    assert "did you mean l2@resid_post:5?" in refused(check_readouts, ["l1@resid_post:5"], "resid_pre:3", NANO)
    assert "did you mean nano:e2e-3-l0-4?" in refused(check_saes, ["nano:e2e-3-lo-4"])
    assert "did you mean nano:e2e-3-l0-4?" in refused(check_saes, ["e2e-3-l0-4"])
    check_saes(["nano:e2e-*", "owner/repo:folder", "gpt2-small-res-jb:blocks.6.hook_resid_pre"])
    check_readouts(["kl", "l2@blocks.5.hook_resid_post"], "resid_pre:3", NANO)


def test_readouts_before_the_site():
    said = "blocks.1.hook_resid_post comes before blocks.3.hook_resid_pre; read a later site"
    for sites in ("resid_pre:3", "resid_pre:1,resid_pre:3"):
        assert said in refused(check_readouts, ["kl", "l2@resid_post:1"], sites, ModelFacts())
    check_readouts(["l2@resid_post:1"], "resid_pre:*", NANO)


def test_files_of_tokens_that_are_none(tmp_path):
    for name, ids, said in (
        ("a.npy", np.zeros((0, 4), int), r"shape (0, 4); expected [sequence, position]"),
        ("b.npy", np.zeros(4, int), "shape (4,); expected [sequence, position]"),
        ("c.npy", np.zeros((2, 4)), "holds floating-point numbers; expected integer token ids"),
        ("d.npy", np.array([[1], [2, 3]], object), "is not a plain NumPy array, and pickled objects are never loaded"),
    ):
        np.save(tmp_path / name, ids)
        assert said in refused(token_facts, str(tmp_path / name), "nano", None)
    (tmp_path / "empty.txt").touch()
    assert "is an empty file" in refused(token_facts, str(tmp_path / "empty.txt"), "nano", None)


def test_files_of_vectors_that_are_none(tmp_path):
    (tmp_path / "steer.npy").write_text("1 2 3")
    said = "is not a .npy file that can be read"
    assert said in refused(check_directions, [f"along:{tmp_path}/steer.npy"], "resid_pre:3", [], NANO)


def test_files_that_hold_no_sae(tmp_path):
    save_file({"model.embed_tokens.weight": np.ones(3)}, tmp_path / "model.safetensors")
    np.savez(tmp_path / "steer.npz", layer_1=np.ones(3))
    torch.save({"state_dict": {"lm_head.weight": torch.ones(3)}}, tmp_path / "probe.pt")
    assert "it has lm_head.weight, state_dict; expected" in refused(check_saes, [str(tmp_path / "probe.pt")])
    (tmp_path / "probe.pt").unlink()
    (tmp_path / "sae.txt").write_text("W_enc")
    for name in ("model.safetensors", "steer.npz"):
        assert "is not an SAE of a known format: it has " in refused(check_saes, [str(tmp_path / name)])
    assert "it has layer_1, model.embed_tokens.weight; expected" in refused(check_saes, [str(tmp_path)])
    assert "weights are read from .bin, .ckpt, .npz" in refused(check_saes, [str(tmp_path / "sae.txt")])
    for damaged in (tmp_path / "a.pt", tmp_path / "a.npz"):
        damaged.write_bytes(b"PK\3\4" + bytes(60))
        check_saes([str(damaged)])
        damaged.unlink()
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    check_saes([str(tmp_path / "model.safetensors")])  # whoever reads it says what is wrong
    save_file({"W_enc": np.ones((3, 4))}, tmp_path / "model.safetensors")
    check_saes([str(tmp_path / "model.safetensors"), str(tmp_path)])


def test_misspelt_studies_and_figures():
    assert "(did you mean lee2024?)" in refusal("reproduce", "le2024")
    assert "(did you mean L2-1?)" in refusal("reproduce", "lee2024", "--figure", "L21")
    assert "(did you mean quick?)" in refusal("reproduce", "lee2024", "--size", "quik")
    assert "'e2e+sd' (did you mean e2e+ds?)" in refusal(
        "train-sae", "--kind", "e2e+sd", "--site", "resid_pre:3", "--sparsity", 1
    )


def test_misspelt_options_and_commands():
    assert "--lengths" in command("sweep", "--lenghts", "0,1").err.splitlines()[-1]
    assert "Did you mean 'sweep'?" in command("swep").err


def test_a_near_file_is_named(tmp_path):
    np.save(tmp_path / "steer.npy", np.ones(128))
    assert f"did you mean {tmp_path}/steer.npy?" in refused(
        check_directions, [f"along:{tmp_path}/stear.npy"], "resid_pre:3", [], NANO
    )


def test_widths_of_vectors(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((3, 64), np.float32))
    save_file({"a": np.ones(64), "b": np.ones(128)}, tmp_path / "v.safetensors")
    check = [f"along:{tmp_path}/v.npy#1"], "resid_pre:3", []
    assert "width 64, but those at blocks.3.hook_resid_pre have width 128" in refused(check_directions, *check, NANO)
    check_directions(*check, ModelFacts())
    check_directions(check[0], "z:3", [], NANO)
    check_directions([f"along:{tmp_path}/v.safetensors#b"], "resid_pre:3", [], NANO)


def test_headers(tmp_path):
    arrays = {"ids": np.ones((2, 3), np.int32), "x": np.ones(4, np.float16), "mask": np.ones(2, bool)}
    save_file(arrays, tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", arrays["ids"])
    shapes = {"ids": Stored((2, 3), "int"), "x": Stored((4,), "float"), "mask": Stored((2,), "other")}
    assert stored_arrays(tmp_path / "a.safetensors") == shapes
    assert stored_arrays(tmp_path / "a.npy") == {"": shapes["ids"]}
    np.savez(tmp_path / "a.npz", **arrays)
    assert stored_arrays(tmp_path / "a.npz") == shapes
    for damaged in (b"", b"\xff" * 20, b"\x02" + b"\0" * 7 + b"[]"):
        (tmp_path / "a.safetensors").write_bytes(damaged)
        assert stored_arrays(tmp_path / "a.safetensors") == {}


def test_the_shape_of_a_model_is_that_of_its_files(tmp_path):
    loaded = load_model("nano").model
    assert model_facts("nano") == (loaded.n_layers, loaded.hf.config.hidden_size)
    assert model_facts(str(save_model(tmp_path))).layers == 3
    assert model_facts("owner/model") == ModelFacts()


def test_tokens_and_positions(tmp_path):
    np.save(tmp_path / "ids.npy", np.ones((5, 8), int))
    assert token_facts(f"{tmp_path}/ids.npy", "m", None) == TokenFacts(5, 8)
    assert token_facts(f"{tmp_path}/ids.npy", "m", 4) == TokenFacts(5, 4)
    assert token_facts("owner/dataset:train", "m", 16) == TokenFacts(None, 16)
    assert "but sequences of 8" in refused(token_facts, f"{tmp_path}/ids.npy", "m", 9)
    check_positions("7", 8)
    assert "positions 0 to 7" in refused(check_positions, "8", 8)
    check_positions("8", None)


def test_the_directory_of_a_run_of_another_kind(tmp_path):
    with open_run(tmp_path / "run", {"sweep": {}, "crossings": {}}, lambda: {"purpose": "crossings"}) as run:
        pass
    check_out(tmp_path / "run", "sweep")  # nothing is stored there yet
    with open_run(tmp_path / "run", {"sweep": {}, "crossings": {}}, lambda: {"purpose": "crossings"}) as run:
        run.save("shard-0", {"x": np.ones(2)})
    check_out(tmp_path / "run", "crossings")
    assert "is a run of crossings, not of sweep" in refused(check_out, tmp_path / "run", "sweep")


def test_lists():
    assert [line.split()[0] for line in command("list", "readouts").out.splitlines()] == [
        "kl", "js", "loss", "logit-diff:A,B", "prob:TOKEN", "top1", "rank", "entropy", "l2@SITE", "cos@SITE",
    ]  # fmt: skip
    assert command("list", "saes", "nano:e2e-3-*").out.count("\n") == 4
    assert command("list", "figures", "Supplementary").out.count("lee2024 --figure S") == 3
    assert "did you mean directions?" in refusal("list", "direction")
    assert "tiltmeter list sites shows all" in refusal("list", "sites", "nowhere")
    assert '{"subject": "sites", "name": "blocks.L.hook_resid_pre", "meaning"' in command("list", "sites", "--json").out
