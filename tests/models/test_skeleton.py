"""A misspelt module is refused by a model's configuration, before its weights are read."""

import pytest

from sweep_cases import save_model
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.skeleton import refuse_missing_modules
from tiny_models import tiny


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, tmp_path_factory):
    """A model without its weights, and the directory that has its configuration alone."""
    folder = save_model(tmp_path_factory.mktemp("model"), request.param)
    (folder / "model.safetensors").write_bytes(b"")
    return tiny(request.param), str(folder)


def test_every_module_is_known(model):
    hf, folder = model
    names = [name for name, _ in hf.named_modules() if name]
    refuse_missing_modules([f"module:{name}" for name in names], folder)
    for name in names[::5]:
        with pytest.raises(TiltmeterError, match=rf"has no module '{name}x' \(did you mean"):
            refuse_missing_modules(["resid_pre:1", f" module:{name}x"], folder)


def test_what_is_not_known_is_left_to_later(model, tmp_path):
    _, folder = model
    refuse_missing_modules(["resid_pre:77", "module:*.mpl", ""], folder)
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    refuse_missing_modules(["module:x"], str(tmp_path))
