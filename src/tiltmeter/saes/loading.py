"""Loading SAEs and other dictionaries: embedded ones, folders, files, repositories of the hub, and releases."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.plugins import Registry
from tiltmeter.runs.user_paths import user_path
from tiltmeter.saes import hub, releases
from tiltmeter.saes.dictionary import Dictionary, Loaded, only_saes
from tiltmeter.saes.formats import act_name, circuit_tracer, gemma_scope, lm_saes, saelens_folder, temporal
from tiltmeter.saes.formats.bare import load_bare, load_bare_crosscoder
from tiltmeter.saes.formats.braun2024 import final_file, is_braun, load_braun
from tiltmeter.saes.formats.decoders import Choice, is_crosscoder, refuse_choice
from tiltmeter.saes.formats.dictionary_learning import is_dictionary_learning, load_dictionary_learning
from tiltmeter.saes.formats.options import Options, refuse_options, split_options
from tiltmeter.saes.formats.saelens_config import check_kind, current_config, metadata_of
from tiltmeter.saes.formats.sparsify import is_sparsify, load_sparsify
from tiltmeter.saes.formats.tensors import SUFFIXES, TORCH, read_json, read_tensors
from tiltmeter.saes.sae import SAE, LinearSAE

EMBEDDED_SAES: Mapping[str, Path] = {"nano": Path(__file__).parent.parent / "models" / "nano" / "saes"}
"""Folders of the SAEs that ship with tiltmeter, by model; each subfolder is one SAE."""

KINDS = (
    "a folder or file of SAELens, sparsify, dictionary_learning, Gemma Scope, Llama Scope, OpenAI or Braun et al., a "
    "file of weights, RELEASE:SAE_ID, OWNER/REPO:FOLDER or OWNER/REPO:FILE (docs/saes.md)"
)

OF_FOLDERS = frozenset(
    {
        saelens_folder.FILE,
        saelens_folder.CONFIG,
        "sae.safetensors",
        "ae.pt",
        "sae.pt",
        temporal.FILE,
        *gemma_scope.FILES,
    }
)
"""Files whose folder may say how they are used."""

READ_EARLY = 2**29
"""Bytes: SAEs below this size are read in about a second."""

_RELEASE = re.compile(r"(?P<release>\w[\w.-]*):(?P<sae>.+)")


def load_sae(name: str | Path) -> SAE:
    """Load a sparse autoencoder, in float32.

    | name | SAE |
    |---|---|
    | `nano:NAME` | one that ships with tiltmeter: see `list_embedded` |
    | a folder | of SAELens, sparsify, dictionary_learning, Gemma Scope, Llama Scope, Braun et al. and others |
    | a run directory | of `tiltmeter train-sae` |
    | a `.safetensors`, `.pt` or `.npz` file | of the same, or with weights alone: `tiltmeter.saes.formats.bare` |
    | `gpt2-small-res-jb:blocks.6.hook_resid_pre` | a release that SAELens lists, and an SAE in it |
    | `OWNER/REPO:PATH`, `OWNER/REPO@REVISION:PATH` | a folder or file of a Hugging Face repository, downloaded alone |

    What a file of weights alone does not say follows a question mark: `FILE?activation=relu&apply_b_dec_to_input=true`.
    If a `.pt` file holds SAEs at several hook points, or a folder one a layer, append one:
    `FILE#blocks.6.hook_resid_pre`, `FOLDER#layers.6`. The list of releases is in the `sae_lens` package, which is not
    imported; nothing else needs it.

    Raises:
        TiltmeterError: there is no such SAE, it cannot be read, or tiltmeter does not support its architecture; it is
            a dictionary of which only the decoder rows are used.
    """
    return only_saes(load_any(str(name)))


def load_dictionary(name: str | Path, site: str = "") -> Dictionary:
    """Load the decoder rows of a transcoder, a crosscoder or another dictionary that is no SAE, in float32.

    Args:
        name: as in `load_sae`. `NAME#5` or `NAME#blocks.5.hook_mlp_out` is the layer that is written to, where there
            are several; the number of a layer or model where a crosscoder's files do not name them.
        site: which of several it is, if the name does not say.

    Raises:
        TiltmeterError: there is none, it cannot be read, or is an SAE; it writes to several sites, and which is wanted
            is not known.
    """
    loaded = load_any(str(name), site)
    if not isinstance(loaded, Dictionary):
        raise TiltmeterError(f"{name} is an SAE; use tiltmeter.load_sae, whose result has a decoder, too.")
    return loaded


def load_any(name: str, site: str = "") -> Loaded:
    """Load an SAE or another dictionary: `load_sae` and `load_dictionary` in one.

    Raises:
        TiltmeterError: as they.
    """
    plain, options = split_options(name)
    model, colon, short = plain.partition(":")
    if colon and model in EMBEDDED_SAES:
        refuse_options(name, options)
        return saelens_folder.load_folder(_embedded(model, short), name)
    path, said = _split(plain)
    choice = Choice(said, site)
    if path.exists():
        return _load_path(path, name, choice, options)
    if (place := hub.place_of(plain.partition("#")[0])) is not None:
        return _load_place(place, name, choice, options)
    if match := _RELEASE.fullmatch(plain):
        refuse_options(name, options)
        return _load_listed(releases.listed(match["release"], match["sae"], name), name)
    raise _unknown(name)


def refuse_unknown(name: str) -> None:
    """Check that a name can be an SAE's, without loading anything. A pattern (`nano:e2e-*`) is not resolved.

    Raises:
        TiltmeterError: it is neither an embedded SAE, nor an existing file or folder, nor can it be in a repository or
            a release.
    """
    name = split_options(name).name
    model, colon, short = name.partition(":")
    if colon and model in EMBEDDED_SAES:
        if "*" not in short:
            _embedded(model, short)
    elif not (_split(name)[0].exists() or hub.place_of(name) or _RELEASE.fullmatch(name)):
        raise _unknown(name)


def read_early(name: str, site: str) -> Loaded | None:
    """Read an SAE that lies on this machine and is not huge, and look up one that is in a release.

    So a wrong one is refused before a model is loaded. What was not read is None.

    Raises:
        TiltmeterError: as `load_any`.
    """
    plain = split_options(name).name
    path = _split(plain)[0]
    files = path.rglob("*") if path.is_dir() else [path]
    if path.exists():
        if sum(file.stat().st_size for file in files if file.is_file()) < READ_EARLY:
            return load_any(name, site)
    elif plain.partition(":")[0] not in EMBEDDED_SAES and (match := _RELEASE.fullmatch(plain)):
        releases.listed(match["release"], match["sae"], name)
    return None


def list_embedded() -> dict[str, dict[str, Any]]:
    """The SAEs that ship with tiltmeter: the name that loads each, to the metadata in its `cfg.json`."""
    found = {
        f"{model}:{folder.name}": dict(metadata_of(saelens_folder.read_config(folder)))
        for model, root in EMBEDDED_SAES.items()
        for folder in (sorted(root.iterdir()) if root.is_dir() else [])
        if (folder / saelens_folder.CONFIG).is_file()
    }
    return dict(sorted(found.items(), key=lambda one: (one[0].partition("-l0-")[0], one[1].get("l0") or 0.0)))


def _embedded(model: str, short: str) -> Path:
    if f"{model}:{short}" not in list_embedded():
        raise TiltmeterError(f"There is no embedded SAE {model}:{short}; embedded are {_names()}.")
    return EMBEDDED_SAES[model] / short


def _unknown(name: str) -> TiltmeterError:
    return TiltmeterError(f"There is no SAE {name!r}: expected {KINDS}; embedded are {_names()}.")


def _names() -> str:
    return ", ".join(list_embedded()) or "none"


def _split(name: str) -> tuple[Path, str]:
    """Split PATH#HOOK_POINT. A file whose own name contains a # is that file."""
    if not name.strip():  # as a path it would be the current folder
        raise _unknown(name)
    if (path := user_path(name)).exists():
        return path, ""
    file, _, chosen = name.partition("#")
    return user_path(file), chosen


def _load_place(place: hub.Place, name: str, choice: Choice, options: Options) -> Loaded:
    """The SAE at a place of a repository; as the list of releases says, if it is in one."""
    if options == Options() and not choice.said and (entry := releases.listed_at(place, name)) is not None:
        return _load_listed(entry, name)
    return _load_path(_fetch(place, name, choice), name, choice, options)


def _load_listed(entry: releases.Listed, name: str) -> Loaded:
    path = _fetch(entry.place, name, Choice())
    if entry.loader == releases.SAELENS:
        found: Loaded = saelens_folder.load_folder(path, name, entry.overrides, entry.scale)
    elif entry.loader == releases.CIRCUIT_TRACER:
        found = circuit_tracer.load_layer(path, name, circuit_tracer.HOOKS)
    else:
        found = _load_path(path, name, Choice(), Options())
    assert isinstance(found, (LinearSAE, Dictionary)), "so are those of all formats"
    return replace(found, about=replace(found.about, **entry.facts(found.about)))


def _fetch(place: hub.Place, name: str, choice: Choice) -> Path:
    """The local path of a folder or file of a repository, with the weights and configurations that it needs."""
    found, folder = hub.find(place, name), Path()
    if found.configurations:
        folder = hub.download(place, found.configurations, name) / place.path
        _refuse_early(folder, found, name)
    weights = found.weights
    if len(weights) > 1:
        weights = {file: weights[file] for file in circuit_tracer.needed(folder, weights, name, choice)}
    return hub.download(place, weights, name) / place.path


def _refuse_early(folder: Path, found: hub.Found, name: str) -> None:
    """Refuse what is no SAE by its configuration, before gigabytes are downloaded."""
    file = Path(next(iter(found.weights))).name
    if file == saelens_folder.FILE and (folder / saelens_folder.CONFIG).is_file():
        check_kind(name, current_config(name, saelens_folder.read_config(folder)))
    config = folder / "config.json"
    if file == "model.safetensors" and config.is_file() and "model_type" in read_json(config, name):
        raise TiltmeterError(f"{name} has the weights of a language model; expected {KINDS}.")


class Format(NamedTuple):
    """A format of SAEs that another package reads."""

    is_of: Callable[[Path], bool]
    """Whether a file or folder is of this format."""
    load: Callable[[Path, str], LinearSAE]
    """Reads the SAE there, which is called by the second argument."""


FORMATS: MutableMapping[str, Format] = Registry("tiltmeter.sae_formats", {})
"""Formats of other packages (`tiltmeter.sae_formats`); tiltmeter's own are tried after them."""


def _load_path(path: Path, name: str, choice: Choice, options: Options) -> Loaded:
    for one in FORMATS.values():
        if one.is_of(path):
            refuse_options(name, options)
            return one.load(path, name)
    return (_load_folder if path.is_dir() else _load_file)(path, name, choice, options)


def _load_folder(path: Path, name: str, choice: Choice, options: Options) -> Loaded:
    if choice.said and (path / choice.said).is_dir():  # a run with one SAE a layer
        return _load_folder(path / choice.said, name, choice._replace(said=""), options)
    if final_file(path) is not None:
        refuse_options(name, options)
        return load_braun(path, name, choice.said)
    if (loaded := _by_configuration(path, name, choice)) is not None:
        refuse_options(name, options)
        return loaded
    if (path / "sae").is_dir():  # what `tiltmeter train-sae` leaves
        return _load_folder(path / "sae", name, choice, options)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if len(files) == 1:
        return _load_file(files[0], name, choice, options)
    raise TiltmeterError(f"The folder {name} is not an SAE: {_what_it_has(path, files)}; expected {KINDS}.")


def _by_configuration(path: Path, name: str, choice: Choice) -> Loaded | None:
    """The SAE of a folder whose configuration one of the libraries wrote; None if there is none."""
    if circuit_tracer.is_circuit_tracer(path):
        return circuit_tracer.load_circuit_tracer(path, name, choice)
    if lm_saes.writes_to_several(path):
        return lm_saes.load_layers(path, name, choice)
    if is_dictionary_learning(path):
        return load_dictionary_learning(path, name, choice)
    loaded = _of_one_site(path, name)
    if loaded is not None:
        refuse_choice(name, choice)
    return loaded


def _of_one_site(path: Path, name: str) -> Loaded | None:
    if is_sparsify(path):
        return load_sparsify(path, name)
    if (path / saelens_folder.CONFIG).is_file():
        return saelens_folder.load_folder(path, name)
    if found := lm_saes.files_of(path):
        return lm_saes.load_lm_saes(*found, name)
    if file := gemma_scope.weights_of(path):
        return gemma_scope.load_gemma_scope(file, name)
    if temporal.is_temporal(path):
        return temporal.load_temporal(path, name)
    if (file := path / "sae.pt").is_file() and (beside := act_name.configuration_of(file)):
        return act_name.load_act_name(file, beside, name)
    return None


def _what_it_has(path: Path, files: Sequence[Path]) -> str:
    if files:
        return f"it has {len(files)} files of weights ({', '.join(file.name for file in files[:4])}); give one of them"
    inner = sorted(one.name for one in path.iterdir() if one.is_dir() and any(one.iterdir()))
    if inner:
        return f"it has folders ({', '.join(inner[:4])}); give one of them, as {path.name}#{inner[0]}"
    if (path / "config.json").is_file():
        return "it has a config.json and no weights"
    return "it has no weights"


def _load_file(path: Path, name: str, choice: Choice, options: Options) -> Loaded:
    if path.name in OF_FOLDERS and (loaded := _by_configuration(path.parent, name, choice)) is not None:
        refuse_options(name, options)
        return loaded  # the configuration beside it says how the weights are used
    if circuit_tracer.is_one_of_a_set(path):
        refuse_choice(name, choice)
        refuse_options(name, options)
        return circuit_tracer.load_layer(path, name)
    if path.suffix.lower() not in SUFFIXES:
        raise TiltmeterError(f"The file {name} is not an SAE: expected {KINDS}.")
    stored = read_tensors(path, name)
    if path.suffix in TORCH and is_braun(stored.tensors):
        refuse_options(name, options)
        return load_braun(path, name, choice.said)
    if is_crosscoder(stored.tensors):
        return load_bare_crosscoder(stored, name, choice, options)
    refuse_choice(name, choice)
    if path.name == gemma_scope.FILES[0]:
        refuse_options(name, options)
        return gemma_scope.load_gemma_scope(path, name)
    if path.suffix in TORCH and (beside := act_name.configuration_of(path)):
        refuse_options(name, options)
        return act_name.load_act_name(path, beside, name)
    return load_bare(path, stored, name, options)
