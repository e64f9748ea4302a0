"""Token sequences from Hugging Face data sets: on the hub, or in a folder that `datasets` saved.

A data set on the hub is streamed: only the rows that are used are downloaded. A branch is first resolved to a commit,
which is then read and recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub

from tiltmeter.data.packing import TokenSource
from tiltmeter.data.tables import table_source
from tiltmeter.errors import TiltmeterError

DEFAULT_SPLIT = "train"

Table = Any
"""A `datasets.Dataset` or `IterableDataset`; the package is optional, so its types cannot be imported here."""

HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(:(?P<split>\w[\w.]*))?")
"""`owner/dataset` or `owner/dataset:split`."""


def hub_source(name: str, column: str | None, revision: str | None) -> TokenSource:
    """Open `owner/dataset`, or of `owner/dataset:split` (default: train), as a stream.

    `column` defaults to the first of `tokens`, `input_ids`, `text`, `content`; `revision` (a branch, tag or commit) to
    the main branch. Raises `TiltmeterError` if the hub cannot be reached or has no such data set.
    """
    match = HUB_NAME.fullmatch(name)
    assert match is not None, "the caller matched it"
    repository, split = match["repository"], match["split"] or DEFAULT_SPLIT
    datasets = _library(name)
    try:
        commit = huggingface_hub.dataset_info(repository, revision=revision, timeout=30).sha
        dataset = datasets.load_dataset(repository, split=split, revision=commit, streaming=True)
    except Exception as error:  # the hub, the network and every file format raise errors of their own
        raise _unreadable(name, error) from error
    facts = {"dataset": repository, "split": split, "revision": str(commit)}
    return dataset_source(name, dataset, column, facts)


def saved_source(name: str, folder: Path, column: str | None) -> TokenSource:
    """Open a folder written by `datasets.Dataset.save_to_disk`.

    A folder with several splits is read at its `train` split; each split's own subfolder can be named instead.
    Raises `TiltmeterError` if the folder is anything else, or is damaged.
    """
    if not any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
        raise TiltmeterError(
            f"The folder {name!r} is not one that datasets.save_to_disk wrote: "
            "name a file in it, or save the data set so."
        )
    datasets = _library(name)
    if (folder / "dataset_dict.json").is_file():
        folder = folder / DEFAULT_SPLIT
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # as above
        raise _unreadable(name, error) from error
    return dataset_source(name, dataset, column, {"dataset": name})


def dataset_source(name: str, dataset: Table, column: str | None, facts: dict[str, str]) -> TokenSource:
    """Open a data set that is in memory or a stream; `column` as for `hub_source`."""
    dataset = dataset.with_format(None)

    def read(chosen: Sequence[str]) -> Iterator[Sequence[object]]:
        try:
            for row in dataset.select_columns(list(chosen)):
                yield [row[one] for one in chosen]
        except Exception as error:  # as above: a stream may fail while it is read
            raise _unreadable(name, error) from error

    return table_source(name, _columns(name, dataset), column, read, facts)


def _columns(name: str, dataset: Table) -> list[str]:
    """The column names; a stream without a schema has none until its first row is read."""
    if dataset.column_names is not None:
        return list(dataset.column_names)
    try:
        return list(next(iter(dataset), {}))
    except Exception as error:  # as above
        raise _unreadable(name, error) from error


def _library(name: str) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise TiltmeterError(
            f"To read the data set {name!r} the 'datasets' package is needed: pip install 'tiltmeter[datasets]'."
        ) from error
    return datasets


def _unreadable(name: str, error: Exception) -> TiltmeterError:
    reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return TiltmeterError(
        f"The data set {name!r} could not be read ({reason}): "
        "check its name, split, revision and the network, or give a local file."
    )
