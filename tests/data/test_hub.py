"""Token sequences from data sets: a hub of one data set stands for the real one, which tests never reach."""

import sys
from types import SimpleNamespace

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiltmeter.errors import TiltmeterError
from token_cases import IDS, ascii_ids, assert_sentence, load, make_tokenizer


@pytest.fixture
def hub(monkeypatch):
    """Put a hub of one data set in place of the real one; `hub.calls` says what was asked of it."""
    datasets = pytest.importorskip("datasets")
    hub = SimpleNamespace(dataset=datasets.Dataset.from_dict({"input_ids": IDS.tolist()}), calls=[])

    def load_dataset(repository, **options):
        hub.calls.append((repository, options))
        return hub.dataset

    monkeypatch.setattr(huggingface_hub, "dataset_info", lambda name, revision, timeout: SimpleNamespace(sha="c0ffee"))
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return hub


@pytest.mark.parametrize("stream", [False, True])
def test_a_data_set_is_streamed_at_a_recorded_commit(hub, stream):
    hub.dataset = hub.dataset.to_iterable_dataset() if stream else hub.dataset
    tokens = load("owner/data", at_most=3)
    assert tokens.ids.tolist() == IDS[:3].tolist()
    assert hub.calls == [("owner/data", {"split": "train", "revision": "c0ffee", "streaming": True})]
    facts = {"dataset": "owner/data", "split": "train", "revision": "c0ffee", "column": "input_ids", "rows_read": "3"}
    assert facts.items() <= tokens.facts.items()


def test_a_split_is_named_after_a_colon(hub):
    assert load("owner/data:validation").facts["split"] == "validation"
    assert hub.calls[0][1]["split"] == "validation"


@pytest.mark.parametrize("column", ["tokens", "text"])
def test_a_stream_is_read_no_further_than_needed(hub, column):
    import datasets

    def rows():
        for index in range(500):
            assert index < 200, "read too far"
            yield {"tokens": [index, 1, 2], "text": f"abcdef{index}"}

    hub.dataset = datasets.IterableDataset.from_generator(rows)
    tokens = load("owner/data", make_tokenizer(), at_most=5, length=3, column=column)
    assert len(tokens.ids) == 5


def test_a_data_set_of_parquet_files_is_read_by_the_real_library(hub, monkeypatch, tmp_path):
    import datasets

    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"text": ["abcdefg", "hi"]}), tmp_path / "data" / "train-0.parquet")
    monkeypatch.undo()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "dataset_info", lambda name, revision, timeout: SimpleNamespace(sha="c0ffee"))
    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split, **_: real(str(tmp_path / "data"), split=split, streaming=True)
    )
    tokens = load("owner/data", make_tokenizer(), length=3)
    assert sorted(tokens.ids.tolist()) == [ascii_ids("abc"), ascii_ids("def")]
    with pytest.raises(TiltmeterError, match="split"):
        load("owner/data:nosuch", make_tokenizer(), length=3)


def test_a_saved_data_set_of_several_splits_is_read_at_train(tmp_path):
    datasets = pytest.importorskip("datasets")
    splits = {
        "test": datasets.Dataset.from_dict({"tokens": [[9, 9]]}),
        "train": datasets.Dataset.from_dict({"tokens": [[1, 2]]}),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").ids.tolist() == [[1, 2]]
    assert load(tmp_path / "saved" / "test").ids.tolist() == [[9, 9]]


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub, monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("no route to host\nand many more lines")

    monkeypatch.setattr(huggingface_hub, "dataset_info", fail)
    assert_sentence("could not be read \\(no route to host\\)", "owner/data")


@pytest.mark.parametrize("typed", [False, True])
def test_a_stream_that_breaks_is_one_sentence(hub, typed):
    import datasets

    def rows():
        yield {"tokens": [1, 2]}
        raise OSError("connection reset")

    features = datasets.Features({"tokens": datasets.List(datasets.Value("int64"))}) if typed else None
    hub.dataset = datasets.IterableDataset.from_generator(rows, features=features)
    assert_sentence("could not be read \\(connection reset\\)", "owner/data")


def test_without_the_datasets_package_the_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert_sentence("pip install 'tiltmeter\\[datasets\\]'", "owner/data")
