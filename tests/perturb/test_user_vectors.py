"""Vectors of the user's own: what is read, under which names, and what is refused without being unpickled."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb import user_vectors
from tiltmeter.perturb.names import DirectionName

VECTOR = np.array([1.0, -2.0, 0.5])
ROWS = np.arange(1.0, 13).reshape(4, 3)


def save(path, array):
    np.save(path, array)
    return path


def load_vectors(name):
    return {str(found): vector for found, vector in user_vectors.load_vectors(DirectionName.parse(name)).items()}


def refused(path, said):
    with pytest.raises(TiltmeterError, match=said) as caught:
        load_vectors(f"along:{path}")
    assert "\n" not in str(caught.value)


@pytest.fixture
def probes(tmp_path):
    """One vector, one matrix of two rows."""
    path = tmp_path / "probes.safetensors"
    save_file({"sex": torch.tensor([3.0, 4.0, 0.0]), "tense": torch.tensor([[1, 2, 3], [4, 5, 6]])}, path)
    return path


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", "<i8", "<u1"])
def test_one_vector(tmp_path, dtype):
    path = save(tmp_path / "steer.npy", np.array([1, 2, 3], dtype))
    vectors = load_vectors(f"along:{path}")
    assert list(vectors) == ["along:steer.npy"]
    assert vectors["along:steer.npy"].dtype == torch.float64
    assert vectors["along:steer.npy"].tolist() == [1, 2, 3]


def test_rows_have_numbers(tmp_path):
    path = save(tmp_path / "steer.npy", ROWS)
    vectors = load_vectors(f"along:{path}")
    assert {name: row.tolist() for name, row in vectors.items()} == {
        f"along:steer.npy#{i}": row for i, row in enumerate(ROWS.tolist())
    }


def test_tensors_have_names(probes):
    assert {name: row.tolist() for name, row in load_vectors(f"along:{probes}").items()} == {
        "along:probes.safetensors#sex": [3, 4, 0],
        "along:probes.safetensors#tense.0": [1, 2, 3],
        "along:probes.safetensors#tense.1": [4, 5, 6],
    }


def test_the_order_is_that_of_the_names(tmp_path):
    keys = ["q", "b", "z", "m", "a", "y"]
    save_file({key: torch.ones(2 + i) for i, key in enumerate(keys)}, tmp_path / "v.safetensors")
    found = list(load_vectors(f"along:{tmp_path / 'v.safetensors'}"))
    assert found == [f"along:v.safetensors#{key}" for key in sorted(keys)]


@pytest.mark.parametrize(("chosen", "value"), [("sex", [3, 4, 0]), ("tense.1", [4, 5, 6])])
def test_one_tensor_can_be_chosen(probes, chosen, value):
    vectors = load_vectors(f"along:{probes}#{chosen}")
    assert {name: row.tolist() for name, row in vectors.items()} == {f"along:probes.safetensors#{chosen}": value}


def test_one_row_can_be_chosen_even_if_another_is_damaged(tmp_path):
    path = save(tmp_path / "steer.npy", np.array([[1.0, 2], [np.nan, 1], [3, 4]]))
    assert {n: v.tolist() for n, v in load_vectors(f"along:{path}#2").items()} == {"along:steer.npy#2": [3, 4]}
    refused(path, "along:steer.npy#1 contains NaN")
    refused(f"{path}#1", "along:steer.npy#1 contains NaN")


@pytest.mark.parametrize("chosen", ["4", "-1", "03", "sex", "0.0"])
def test_a_row_that_is_not_there_is_refused(tmp_path, chosen):
    path = save(tmp_path / "steer.npy", ROWS)
    refused(f"{path}#{chosen}", rf"has no vector '{chosen}'; it has along:steer.npy#0, .*along:steer.npy#3\.")


def test_a_tensor_that_is_not_there_is_refused(probes, tmp_path):
    refused(f"{probes}#age", "has no vector 'age'; it has along:probes.safetensors#sex, ")
    refused(f"{save(tmp_path / 'steer.npy', VECTOR)}#0", r"has no vector '0'; it has along:steer.npy\.")
    refused(f"{save(tmp_path / 'many.npy', np.ones((9, 2)))}#9", r"many.npy#4, \.\.\.\.")


def test_a_file_may_have_the_sign_in_its_own_name(tmp_path):
    path = save(tmp_path / "run#3.npy", ROWS)
    assert next(iter(load_vectors(f"along:{path}"))) == "along:run#3.npy#0"
    assert {name: row.tolist() for name, row in load_vectors(f"along:{path}#1").items()} == {
        "along:run#3.npy#1": ROWS[1].tolist()
    }


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "steer.npy", ROWS)
    assert list(load_vectors("along:~/steer.npy#1")) == ["along:steer.npy#1"]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([1.0, np.nan]), "contains NaN or an infinity"),
        (np.array([[1.0, 2], [np.inf, 1]]), "steer.npy#1 contains NaN or an infinity"),
        (np.zeros(3), "is zero, which has no direction"),
        (np.array([[1.0, 0], [0, 0]]), "steer.npy#1 is zero"),
        (np.float64(3), r"shape \(\)"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\).* vectors must .* \[width\] or \[rows, width\]"),
        (np.ones(0), r"shape \(0,\)"),
        (np.ones((3, 0)), r"shape \(3, 0\)"),
        (np.ones(3, complex), "complex128"),
        (np.ones(3, bool), "bool"),
        (np.array(["a", "b"]), "could not be read as .npy"),
    ],
)
def test_what_is_no_vector_is_refused(tmp_path, array, said):
    refused(save(tmp_path / "steer.npy", array), said)


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([Bomb()], dtype=object))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Bomb()))
    torch.save({"v": Bomb()}, tmp_path / "steer.pt")
    (tmp_path / "plain").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "objects.npy", "could not be read as .npy without unpickling it")
    refused(tmp_path / "raw.npy", "could not be read as .npy without unpickling it")
    refused(tmp_path / "steer.pt", "could not be read as weights only.*does not run code from pickles")
    refused(tmp_path / "plain", "is a nameless file")


def test_damaged_and_absent_files_are_refused(tmp_path, probes):
    refused(tmp_path / "absent.npy", "absent.npy is not a file; along:FILE needs a file of vectors: .npy, .gguf, ")
    refused(tmp_path / "absent.npy#3", "absent.npy is not a file")
    refused(tmp_path, "is not a file")
    whole = save(tmp_path / "whole.npy", ROWS).read_bytes()
    huge = whole.replace(b"(4, 3), }" + b" " * 15, b"(1%s, 3), }" % (b"0" * 15))
    for number, content in enumerate([b"", whole[:6], whole[:40], whole[:-1], b"\0" * 200, huge]):
        path = tmp_path / f"damaged{number}.npy"
        path.write_bytes(content)
        refused(path, "could not be read as .npy")
    whole = probes.read_bytes()
    for content in (b"", whole[:4], whole[:60], whole[:-1], b"\xff" * 100):
        probes.write_bytes(content)
        refused(probes, "could not be read as safetensors")


@pytest.mark.parametrize("name", ["direction.{}", "model.layers.{}.steer", "{}"])
def test_of_a_vector_a_layer_one_must_be_named(name, tmp_path):
    """As repeng, llama.cpp and steering-vectors store them: all at once would be perturbed along at one site."""
    vectors = {name.format(layer): torch.full((3,), float(layer)) for layer in (4, 5, 16)}
    save_file(vectors, tmp_path / "steer.safetensors")
    refused(tmp_path / "steer.safetensors", "has a vector for each of 3 layers, .* name the one of this site")
    chosen = name.format(16)
    (found,) = load_vectors(f"along:{tmp_path / 'steer.safetensors'}#{chosen}").values()
    assert found.tolist() == [16.0] * 3


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("direction.{}", "resid_post:5"),
        ("direction.{}", "blocks.6.hook_resid_pre"),
        ("model.layers.{}", "resid_pre:6"),
        ("blocks.{}.hook_resid_pre", "resid_pre:5"),
        ("layers.{}.mlp", "mlp_out:5"),
    ],
)
def test_of_a_vector_a_layer_the_sites_own_is_taken(name, site, tmp_path):
    save_file(
        {name.format(layer): torch.full((3,), float(layer)) for layer in (4, 5, 16)}, tmp_path / "steer.safetensors"
    )
    direction = DirectionName.parse(f"along:{tmp_path / 'steer.safetensors'}")
    (found,) = user_vectors.load_vectors(direction, site).items()
    assert str(found[0]) == f"along:steer.safetensors#{name.format(5)}" and found[1].tolist() == [5.0] * 3
    for other in ("attn_out:5", "resid_pre:9"):
        with pytest.raises(TiltmeterError, match=rf"none is known to belong to {other}; name the one"):
            user_vectors.load_vectors(direction, other)
    assert len(load_vectors(f"{direction}#*")) == 3


def test_vectors_in_files_of_torch_and_numpy(tmp_path):
    torch.save({"a": torch.ones(3), "b": 2 * torch.ones(2, 3)}, tmp_path / "steer.pt")
    torch.save(3 * torch.ones(3), tmp_path / "alone.pt")
    np.savez(tmp_path / "steer.npz", a=np.ones(3), b=2 * np.ones((2, 3)))
    for file in ("steer.pt", "steer.npz"):
        found = load_vectors(f"along:{tmp_path / file}")
        assert [str(name).partition("#")[2] for name in found] == ["a", "b.0", "b.1"]
        assert [float(vector[0]) for vector in found.values()] == [1, 2, 2]
    (alone,) = load_vectors(f"along:{tmp_path / 'alone.pt'}").values()
    assert alone.tolist() == [3.0] * 3


def test_a_control_vector_in_gguf(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "control.gguf", "controlvector")
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", np.full(3, layer, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (found,) = load_vectors(f"along:{tmp_path / 'control.gguf'}#direction.2").values()
    assert found.tolist() == [2.0] * 3


def test_a_file_of_nothing_is_refused(tmp_path):
    save_file({}, tmp_path / "empty.safetensors")
    refused(tmp_path / "empty.safetensors", "contains no vectors; give a file with at least one")


def test_names_that_clash_are_refused(tmp_path):
    save_file({"a": torch.ones(2, 3), "a.1": torch.ones(3)}, tmp_path / "clash.safetensors")
    refused(tmp_path / "clash.safetensors", "two vectors that would both be called along:clash.safetensors#a.1")
