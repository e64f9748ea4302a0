"""Padding is not text: rows are read by their masks, and rows that look padded are said."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

import tiltmeter as tm
from tiltmeter.models.split_model import SplitModel
from tiny_models import random_tokens, tiny
from token_cases import assert_sentence, load, make_tokenizer, write_jsonl

ROWS = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
PAD = 3


def padded(rows, left, right):
    """Rows and masks with padding written around each."""
    ids = [[PAD] * left + row + [PAD] * right for row in rows]
    return ids, [[0] * left + [1] * len(row) + [0] * right for row in rows]


def stored(folder, kind, ids, masks, mask_type=int):
    path = folder / f"rows.{kind}"
    masks = [[mask_type(one) for one in mask] for mask in masks]
    table = {"input_ids": ids, "attention_mask": masks}
    if kind == "jsonl":
        write_jsonl(path, *({"input_ids": row, "attention_mask": mask} for row, mask in zip(ids, masks, strict=True)))
    elif kind == "parquet":
        pq.write_table(pa.table({"id": list(range(len(ids))), **table}), path, row_group_size=2)
    elif kind == "safetensors":
        save_file({name: np.array(values) for name, values in table.items()}, path)
    else:
        pytest.importorskip("datasets").Dataset.from_dict(table).save_to_disk(path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "safetensors", "saved"])
@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (2, 1), (0, 0)])
def test_masked_positions_are_left_out(tmp_path, kind, left, right, caplog):
    path = stored(tmp_path, kind, *padded(ROWS, left, right))
    tokens = load(path, make_tokenizer(pad_token="$"))
    assert tokens.ids.tolist() == ROWS
    assert tokens.facts["mask"] == "attention_mask: positions where it is 0 were left out"
    assert tokens.facts["column"] == "input_ids"
    assert load(path, column="input_ids").ids.tolist() == ROWS
    assert not caplog.text


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "safetensors"])
@pytest.mark.parametrize("mask_type", [bool, float])
def test_masks_of_other_types(tmp_path, kind, mask_type):
    path = stored(tmp_path, kind, *padded(ROWS, 1, 2), mask_type)
    assert load(path).ids.tolist() == ROWS


def test_rows_are_cut_and_dropped_by_their_tokens(tmp_path):
    rows = [[1, 2, 3, 4], [5, 6], [], [7, 8, 9]]
    ids = [row + [PAD] * (6 - len(row)) for row in rows]
    masks = [[1] * len(row) + [0] * (6 - len(row)) for row in rows]
    path = stored(tmp_path, "jsonl", ids, masks)
    tokens = load(path, length=3)
    assert tokens.ids.tolist() == [row[:3] for row in rows if len(row) >= 3]
    assert (tokens.facts["rows_dropped_as_shorter"], tokens.facts["rows_cut_as_longer"]) == ("2", "1")
    assert_sentence("differ in length", path)
    begun = load(path, make_tokenizer(bos_token="!"), length=3, bos_before="sequence")
    assert begun.ids.tolist() == [[33, 1, 2], [33, 5, 6], [33, 7, 8]]


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        ([1, 1, 0, 1], r"masked positions between its tokens \(attention_mask is 0 at 2\)"),
        ([0, 1, 0, 1], r"is 0 at 2\)"),
        ([1, 1, 1], "as many 0 and 1"),
        ([1, 1, 1, 2], "as many 0 and 1"),
        ([1, 1, 1, None], "as many 0 and 1"),
        (["1", "1", "0", "0"], "as many 0 and 1"),
        ([[1, 1, 1, 1]], "as many 0 and 1"),
        ([1, [1], 1, 1], "as many 0 and 1"),
        (1, "as many 0 and 1"),
        (None, "as many 0 and 1"),
    ],
)
def test_masks_that_are_none_are_refused(tmp_path, mask, sentence):
    good = {"input_ids": ROWS[1], "attention_mask": [1] * 4}
    file = write_jsonl(tmp_path / "a.jsonl", good, {"input_ids": ROWS[0], "attention_mask": mask})
    assert assert_sentence(sentence, file).startswith(f"Sequence 1 of {str(file)!r} has")


def test_masks_of_other_rows_are_refused(tmp_path):
    save_file({"ids": np.array(ROWS), "attention_mask": np.ones((3, 3), int)}, tmp_path / "a.safetensors")
    assert_sentence(r"has shape \(3, 3\), but the token ids \(3, 4\)", tmp_path / "a.safetensors")
    file = write_jsonl(tmp_path / "a.jsonl", {"input_ids": ROWS[0], "attention_mask": [1] * 4}, {"input_ids": ROWS[1]})
    assert_sentence("Line 2 .*no column 'attention_mask'", file)


def test_a_mask_beside_text_is_not_used(tmp_path):
    file = write_jsonl(tmp_path / "a.jsonl", {"text": "abcd", "attention_mask": [1, 0]})
    assert load(file, make_tokenizer(), length=4).ids.tolist() == [[97, 98, 99, 100]]


@pytest.mark.parametrize(
    ("special", "rows", "warned"),
    [
        ({"pad_token": "!"}, [[5, 6, 7, 33], [5, 6, 7, 8]], (1, 33)),  # its own token: one is enough, anywhere
        ({"pad_token": "!"}, [[5, 33, 6, 7], [5, 6, 7, 8]], (1, 33)),
        ({"pad_token": "!", "eos_token": "!"}, [[5, 6, 7, 33], [5, 6, 7, 8]], None),
        ({"pad_token": "!", "eos_token": "!"}, [[5, 6, 33, 33], [5, 6, 7, 8]], (1, 33)),
        ({"pad_token": "!", "bos_token": "!"}, [[33, 6, 7, 8], [33, 6, 7, 9]], None),
        ({"pad_token": "!", "bos_token": "!"}, [[33, 33, 7, 8], [33, 6, 7, 9]], (1, 33)),
        (None, [[5, 9, 9, 9, 9], [6, 7, 9, 9, 9]], None),
        (None, [[5, 9, 9, 9, 9], [6, 9, 9, 9, 9], [1, 2, 3, 4, 5]], (2, 9)),
        (None, [[9, 9, 9, 9, 4], [9, 9, 9, 9, 5]], (2, 9)),
        (None, [[9, 9, 9, 9, 4], [8, 8, 8, 8, 5]], None),
        ({}, [[5, 0, 0, 0, 0], [6, 0, 0, 0, 0]], (2, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "jsonl"])
def test_rows_that_look_padded_are_said(tmp_path, caplog, special, rows, warned, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, np.array(rows))
    else:
        write_jsonl(path, *({"tokens": row} for row in rows))
    assert load(path, None if special is None else make_tokenizer(**special)).ids.tolist() == rows
    if warned is None:
        assert "padded" not in caplog.text
    else:
        assert f"{warned[0]} of the {len(rows)} sequences" in caplog.text
        assert f"look padded with token {warned[1]}," in caplog.text and "attention_mask" in caplog.text


def test_text_is_not_searched_for_padding(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("x" * 40)
    load(tmp_path / "a.txt", make_tokenizer(), length=8)
    assert "padded" not in caplog.text


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_sweep_over_padded_rows_is_one_over_their_tokens(tmp_path, side):
    """The mean KL is that of a loop over whole passes of each row alone."""
    rows = random_tokens(3, 8, seed=4).clamp(min=4).tolist()
    np.save(tmp_path / "v.npy", np.random.default_rng(1).standard_normal(32))
    path = stored(tmp_path, "jsonl", *padded(rows, 4 * (side == "left"), 4 * (side == "right")))
    hf = tiny("llama")
    loaded = tm.LoadedModel(SplitModel(hf, "mine"), None, {})
    sweep = tm.Sweep(
        site="mlp_out:1", directions=(f"along:{tmp_path}/v.npy",), path=tm.Straight(lengths=(1.0,)), sequences=3
    )
    found = tm.run_sweep(sweep, loaded, loaded.load_tokens(str(path)), tmp_path / "run")
    assert found.kl.values.ravel() == pytest.approx([mean_kl(hf, row, np.load(tmp_path / "v.npy")) for row in rows])


@torch.no_grad()
def mean_kl(hf, row, direction):
    push = torch.tensor(direction / np.linalg.norm(direction))
    clean = hf(input_ids=torch.tensor([row])).logits.log_softmax(-1)
    handle = hf.model.layers[1].mlp.register_forward_hook(lambda _, __, out: out + push)
    moved = hf(input_ids=torch.tensor([row])).logits.log_softmax(-1)
    handle.remove()
    return float((clean.exp() * (clean - moved)).sum(-1).mean())
