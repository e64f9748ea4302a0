"""Braun et al.'s files give what their SAE gives, written here in a few lines."""

import pickle

import pytest
import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.braun2024 import load_braun
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.sae import reconstruct

HOOK, D_IN, D_SAE = "blocks.6.hook_resid_pre", 16, 40


def parts(seed=0, hook=HOOK, d_in=D_IN):
    """A state dict as their training leaves it; the decoder's columns have any length."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"encoder.0.weight": (D_SAE, d_in), "encoder.0.bias": (D_SAE,)}
    shapes |= {"decoder.weight": (d_in, D_SAE), "decoder.bias": (d_in,)}
    key = hook.replace(".", "-")
    return {f"{key}.{part}": torch.randn(shape, generator=generator) for part, shape in shapes.items()}


def naive(state, x):
    """Latents and reconstruction of one activation, number by number."""
    w = {key.split(".", 1)[1]: value.double() for key, value in state.items()}
    latents, decoded = [], w["decoder.bias"].clone()
    for i in range(D_SAE):
        latents.append(max(0.0, float(w["encoder.0.weight"][i] @ x.double() + w["encoder.0.bias"][i])))
        column = w["decoder.weight"][:, i]
        decoded += latents[i] * column / column.square().sum().sqrt()
    return torch.tensor(latents), decoded.float()


def test_a_file_gives_what_their_sae_gives(tmp_path):
    torch.save(parts(), tmp_path / "samples_100.pt")
    sae, x = load_sae(str(tmp_path / "samples_100.pt")), torch.randn(4, D_IN) * 3
    for row in x:
        latents, decoded = naive(parts(), row)
        torch.testing.assert_close(sae.encode(row), latents, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(reconstruct(sae, row), decoded, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sae.decoder.norm(dim=-1), torch.ones(D_SAE))
    assert (parts()["blocks-6-hook_resid_pre.decoder.weight"].norm(dim=0) > 2).all()  # what is stored is longer


def test_a_run_is_read_at_its_last_samples(tmp_path):
    for n in (9000, 100000, 20000):
        torch.save(parts(seed=n), tmp_path / f"samples_{n}.pt")
    (tmp_path / "final_config.yaml").write_text("tlens_model_name: gpt2-small\nsaes:\n  coeff: 1.0e-3\n")
    sae = load_sae(str(tmp_path))
    torch.testing.assert_close(sae.encode(torch.ones(D_IN)), naive(parts(seed=100000), torch.ones(D_IN))[0])
    about = sae.about
    assert (about.hook_name, about.model, about.processing, about.prepend_bos) == (HOOK, "gpt2-small", "centred", False)
    assert (about.architecture, about.l0) == ("standard", None)


def test_one_of_several_hook_points_is_named(tmp_path):
    other = "blocks.10.hook_resid_pre"
    file = tmp_path / "samples_5.pt"
    torch.save(parts(0) | parts(1, other), file)
    for name in (f"{file}#{other}", f"{tmp_path}#{other}"):
        sae = load_sae(name)
        assert (sae.about.hook_name, sae.about.name) == (other, name)
        torch.testing.assert_close(sae.encode(torch.ones(D_IN)), naive(parts(1, other), torch.ones(D_IN))[0])
    with pytest.raises(TiltmeterError, match=rf"has SAEs at {other}, {HOOK}, several; name one: FILE#{other}"):
        load_sae(str(file))
    with pytest.raises(TiltmeterError, match=r"has SAEs at .*, none at blocks.2"):
        load_sae(f"{file}#blocks.2")


def test_half_precision_is_normalised_in_float32(tmp_path):
    torch.save({key: value.bfloat16() for key, value in parts().items()}, tmp_path / "sae.pt")
    sae = load_sae(str(tmp_path / "sae.pt"))
    torch.testing.assert_close(sae.decoder.norm(dim=-1), torch.ones(D_SAE))


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save(parts() | {"more": Code()}, tmp_path / "sae.pt")
    with pytest.raises(
        TiltmeterError, match=r"could not be read as weights only.*does not run code from pickles"
    ) as refused:
        load_sae(str(tmp_path / "sae.pt"))
    assert "weights_only" not in str(refused.value)  # torch's own advice
    assert "must not run" not in capsys.readouterr().out
    torch.load(tmp_path / "sae.pt", weights_only=False)
    assert "must not run" in capsys.readouterr().out


def write_text(path):
    path.write_text("hello")


def write_pickle(path):
    path.write_bytes(pickle.dumps(Code()))


def without(part):
    return lambda path: torch.save({k: v for k, v in parts().items() if not k.endswith(part)}, path)


def with_shape(part, *shape):
    return lambda path: torch.save(parts() | {f"blocks-6-hook_resid_pre.{part}": torch.ones(shape)}, path)


def with_nan(path):
    state = parts()
    state["blocks-6-hook_resid_pre.decoder.weight"][0, 0] = float("nan")
    torch.save(state, path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (write_text, "could not be read as weights only"),
        (write_pickle, "could not be read as weights only"),
        (lambda path: path.write_bytes(b""), "could not be read as weights only"),
        (
            lambda path: torch.save({"lm_head.weight": torch.ones(2)}, path),
            r"not an SAE of (Braun et al\.|a known format).*lm_head",
        ),
        (
            lambda path: torch.save([1, 2], path),
            r"not an SAE of (Braun et al\..*no weights|a known format: it has no tensors)",
        ),
        (without("decoder.bias"), "not an SAE of Braun et al.: expected HOOK.encoder"),
        (with_nan, "NaN or an infinity in W_dec"),
        (with_shape("encoder.0.weight", 3), r"do not fit together: W_enc \[3\]"),
        (with_shape("decoder.bias", 3), r"do not fit together.*b_dec \[3\]"),
    ],
)
def test_what_is_no_such_file(write, sentence, tmp_path):
    write(tmp_path / "samples_1.pt")
    for name in (tmp_path, tmp_path / "samples_1.pt"):
        with pytest.raises(TiltmeterError, match=sentence):
            load_sae(str(name))


def test_a_configuration_that_is_no_yaml(tmp_path):
    torch.save(parts(), tmp_path / "samples_1.pt")
    (tmp_path / "final_config.yaml").write_text("a: [1\nb")
    with pytest.raises(TiltmeterError, match="could not be read as YAML"):
        load_sae(str(tmp_path))


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("  out_to_in: {coeff: 1.0}\n  logits_kl: {coeff: 0.0}\n", "local"),
        ("  out_to_in: {coeff: 1.0}\n  logits_kl: null\n", "local"),
        ("  out_to_in: {coeff: 0.0}\n  logits_kl: {coeff: 1.0}\n  in_to_orig: null\n", "e2e"),
        ("  logits_kl: {coeff: 0.5}\n  in_to_orig: {hook_positions: [a], total_coeff: 2.5}\n", "e2e+ds"),
    ],
)
def test_what_it_was_trained_for_is_read_off_its_loss(loss, kind, tmp_path):
    torch.save(parts(), tmp_path / "samples_1.pt")
    assert load_braun(tmp_path, "run").about.kind is None
    (tmp_path / "final_config.yaml").write_text(f"tlens_model_name: gpt2-small\nloss:\n{loss}")
    assert load_braun(tmp_path, "run").about.kind == kind
