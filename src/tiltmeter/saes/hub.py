"""SAEs in repositories of the Hugging Face hub: which files make up an SAE, and downloading those alone.

A repository may hold thousands of SAEs. Its files are listed first, and a folder that does not hold exactly one SAE is
refused before anything is downloaded. Without a connection, files that were downloaded earlier are used.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats import (
    braun2024,
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    lm_saes,
    saelens_folder,
    sparsify,
    temporal,
)
from tiltmeter.saes.formats.tensors import SUFFIXES

NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[^:]+))?:(?P<path>.*)")
"""`OWNER/REPO:PATH`, `OWNER/REPO@REVISION:PATH`; `OWNER/REPO:` and `OWNER/REPO:.` are the whole repository."""

WEIGHTS = (
    saelens_folder.FILE,
    sparsify.FILE,
    dictionary_learning.FILE,
    "sae.pt",
    temporal.FILE,
    *gemma_scope.FILES,
    lm_saes.FILES[0],
    f"sae/{saelens_folder.FILE}",
)
"""Files of weights that say by their name that the folder is an SAE. The last is a run of `tiltmeter train-sae`."""

CONFIGURATIONS = (
    saelens_folder.CONFIG,
    saelens_folder.SCALER,
    *lm_saes.CONFIGS,
    braun2024.CONFIG,
    circuit_tracer.CONFIG,
    temporal.CONFIG,
)
"""Files beside the weights that say how these are used, apart from `NAME_cfg.json`."""

_INNER = tuple(sorted({file.rpartition("/")[0] for file in WEIGHTS if "/" in file}))
_LOOKED_AT = 1000
"""Files that are listed below a folder without an SAE of its own, to name some that it has: a page of the hub's."""


class Place(NamedTuple):
    """A file or folder of a repository."""

    repository: str
    path: str
    """Empty for the whole repository."""
    revision: str = constants.DEFAULT_REVISION
    """A branch, a tag or a commit."""


class Found(NamedTuple):
    """The files of an SAE: paths in the repository, to sizes in bytes."""

    weights: dict[str, int]
    """One file; of a folder of circuit-tracer's, one for each layer."""
    configurations: dict[str, int]
    """What says how the weights are used."""


@runtime_checkable
class Tree(Protocol):
    """The files of one revision of a repository."""

    def children(self, folder: str) -> dict[str, int | None]:
        """The paths in a folder, to sizes in bytes; None for folders."""
        ...

    def below(self, folder: str) -> Iterable[str]:
        """The paths of all files below a folder."""
        ...


def place_of(name: str) -> Place | None:
    """The place that `OWNER/REPO:PATH` or `OWNER/REPO@REVISION:PATH` means; None if the name has another form."""
    if (match := NAME.fullmatch(name)) is None:
        return None
    path = "/".join(part for part in match["path"].split("/") if part not in ("", "."))
    return Place(match["repository"], path, match["revision"] or constants.DEFAULT_REVISION)


def find(place: Place, name: str) -> Found:
    """Find the files of the SAE at a place, without downloading them.

    Raises:
        TiltmeterError: nothing is there, or no SAE, or several; there is no connection and nothing was downloaded.
    """
    try:
        return _find(_Listed(place), place, name)
    except TiltmeterError:
        raise
    except Exception as error:  # the hub's, the network's and the system's are all different
        if _says_no(error):
            raise _unreadable(name, place, error) from None
        return _find_downloaded(place, name, error)


def download(place: Place, files: Mapping[str, int], name: str) -> Path:
    """Download files, unless they were downloaded before; the local folder of the repository.

    Raises:
        TiltmeterError: the hub does not give them, or the disk has too little space.
    """
    try:
        for file, size in files.items():
            _check_space(place, file, size)
            local = huggingface_hub.hf_hub_download(place.repository, file, revision=place.revision)
    except TiltmeterError:
        raise
    except Exception as error:  # as above
        raise _unreadable(name, place, error) from None
    return Path(local).parents[file.count("/")]


def _find_downloaded(place: Place, name: str, reason: Exception) -> Found:
    try:
        return _find(_Downloaded(place), place, name)
    except OSError:
        raise _unreadable(name, place, reason) from None
    except TiltmeterError as error:
        raise TiltmeterError(
            f"{str(error).rstrip('.')}; without a connection ({_reason(reason)}), only what was downloaded before is "
            f"known of {place.repository}."
        ) from None


class _Listed:
    """The files that the hub lists."""

    def __init__(self, place: Place) -> None:
        self._place, self._api = place, huggingface_hub.HfApi()
        self._api.model_info(  # fails at once without a connection, where listing tries for half a minute
            place.repository, revision=place.revision, expand=["sha"], timeout=constants.DEFAULT_ETAG_TIMEOUT
        )

    def _entries(self, folder: str, recursive: bool) -> Iterable[RepoFile | RepoFolder]:
        repository, _, revision = self._place
        return self._api.list_repo_tree(repository, folder or None, recursive=recursive, revision=revision)

    def children(self, folder: str) -> dict[str, int | None]:
        return {
            entry.path: entry.size if isinstance(entry, RepoFile) else None
            for entry in self._entries(folder, recursive=False)
        }

    def below(self, folder: str) -> Iterable[str]:
        first = islice(self._entries(folder, recursive=True), _LOOKED_AT)
        return [entry.path for entry in first if isinstance(entry, RepoFile)]


class _Downloaded:
    """The files in the cache on this machine."""

    def __init__(self, place: Place) -> None:
        repository = Path(constants.HF_HUB_CACHE) / f"models--{place.repository.replace('/', '--')}"
        branch = repository / "refs" / place.revision
        commit = branch.read_text().strip() if branch.is_file() else place.revision
        self._root = repository / "snapshots" / commit

    def children(self, folder: str) -> dict[str, int | None]:
        return {
            self._name(one): one.stat().st_size if one.is_file() else None for one in (self._root / folder).iterdir()
        }

    def below(self, folder: str) -> Iterable[str]:
        return [self._name(one) for one in sorted((self._root / folder).rglob("*")) if one.is_file()]

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _find(tree: Tree, place: Place, name: str) -> Found:
    beside = tree.children(place.path.rpartition("/")[0]) if place.path else {}
    if place.path and place.path not in beside:
        near = difflib.get_close_matches(place.path, beside, n=4, cutoff=0.3) or sorted(beside)[:4]
        raise TiltmeterError(f"{place.repository} has no {place.path!r} (for {name}); it has {', '.join(near)}.")
    if beside.get(place.path) is not None:
        if PurePosixPath(place.path).suffix.lower() not in SUFFIXES:
            raise TiltmeterError(f"{name} is no file of weights; expected {', '.join(sorted(SUFFIXES))}, or a folder.")
        return _found([place.path], place.path.rpartition("/")[0], beside)
    inside = tree.children(place.path)
    for inner in (_join(place.path, one) for one in _INNER):
        if inner in inside:
            inside |= tree.children(inner)
    if not (weights := _weights(place.path, inside)):
        raise TiltmeterError(f"{name} is not one SAE: {_what_it_has(tree, place)}.")
    return _found(weights, place.path, beside | inside)


def _weights(folder: str, inside: Iterable[str]) -> list[str]:
    """The file of weights of a folder that holds one SAE, or those of circuit-tracer's layers; empty for others."""
    inside = set(inside)
    if known := [file for file in WEIGHTS if _join(folder, file) in inside]:
        return [_join(folder, known[0])]
    direct = [path for path in inside if path.rpartition("/")[0] == folder]
    if last := braun2024.last_samples(PurePosixPath(path).name for path in direct):
        return [_join(folder, last)]
    layers = circuit_tracer.files_of_layers(PurePosixPath(path).name for path in direct)
    if layers and _join(folder, circuit_tracer.CONFIG) in inside:
        return [_join(folder, layer) for layer in layers]
    weights = [path for path in direct if PurePosixPath(path).suffix.lower() in SUFFIXES]
    return weights if len(weights) == 1 else []


def _found(weights: Sequence[str], folder: str, known: Mapping[str, int | None]) -> Found:
    """Weights, and the configurations beside them, in the folder that was asked for and one above (sparsify's)."""
    names = (*CONFIGURATIONS, f"{PurePosixPath(weights[0]).stem}_cfg.json")
    wanted = [_join(where, name) for where in (weights[0].rpartition("/")[0], folder) for name in names]
    if folder:
        wanted.append(_join(folder.rpartition("/")[0], "config.json"))
    sizes = {path: size for path, size in known.items() if size is not None}
    return Found({path: sizes[path] for path in weights}, {path: sizes[path] for path in wanted if path in sizes})


def _what_it_has(tree: Tree, place: Place) -> str:
    files = [path for path in tree.below(place.path) if PurePosixPath(path).suffix.lower() in SUFFIXES]
    if not files:
        return "no file of weights is in it; give the folder or the file of an SAE"
    saes = dict.fromkeys(_sae_of(path, place.path) for path in sorted(files))
    more = f", and {len(saes) - 3} more" if len(saes) > 3 else ""
    at = f"@{place.revision}" if place.revision != constants.DEFAULT_REVISION else ""
    return f"it has {', '.join([*saes][:3])}{more}; give one of them, as {place.repository}{at}:{next(iter(saes))}"


def _sae_of(path: str, folder: str) -> str:
    """The folder of weights that have a name of `WEIGHTS`; for others, the file."""
    for known in WEIGHTS:
        if path.endswith(f"/{known}") and (found := path.removesuffix(f"/{known}")) != folder:
            return found
    return path


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _check_space(place: Place, file: str, size: int) -> None:
    if isinstance(huggingface_hub.try_to_load_from_cache(place.repository, file, revision=place.revision), str):
        return
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(one for one in (cache, *cache.parents) if one.exists())).free
    if size > free:
        raise TiltmeterError(
            f"{file} of {place.repository} has {size / 1e9:.1f} GB, and {cache} only {free / 1e9:.1f} GB of space; "
            "make some, or set HF_HOME to a folder with more."
        )


def _says_no(error: Exception) -> bool:
    """Whether the hub answered that it has no such thing, or does not give it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status != 429


def _unreadable(name: str, place: Place, error: Exception) -> TiltmeterError:
    at = "" if place.revision == constants.DEFAULT_REVISION else f" at {place.revision}"
    if _says_no(error):
        advice = "check its name, or log in, if it is private or gated (hf auth login)"
    else:
        advice = "check the network; what was not downloaded before cannot be read without it"
    return TiltmeterError(f"{name} could not be read from {place.repository}{at}: {_reason(error)}; {advice}.")


def _reason(error: Exception) -> str:
    """The hub's own messages are longer than a line, and begin with the number of the error."""
    known = {
        GatedRepoError: "access to the repository has to be asked for",
        RepositoryNotFoundError: "there is no such repository",
        RevisionNotFoundError: "there is no such revision",
        EntryNotFoundError: "there is no such file or folder",
        OfflineModeIsEnabled: "HF_HUB_OFFLINE is set",
    }
    said = next((words for kind, words in known.items() if isinstance(error, kind)), None)
    return said or str(error).strip().partition("\n")[0].rstrip(". ")[:200] or type(error).__name__
