"""The table of formats in docs/saes.md is made here: each row names the tests that compare what is read.

`python tests/saes/test_format_table.py` prints it.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Row(NamedTuple):
    format: str
    read: str
    checked: str
    tests: tuple[str, ...]
    """FILE::NAME of the tests, without test_."""


ROWS = (
    Row(
        "SAELens, any version",
        "`cfg.json` and `sae_weights.safetensors`: standard, gated, topk, jumprelu; batchtopk and matryoshka, checkpoints included; layer_norm, constant_norm_rescale and folded scales",
        "`sae_lens`",
        (
            "saelens::a_folder_gives_what_saelens_gives",
            "saelens::a_folder_from_before_version_6",
            "saelens::a_checkpoint_is_what_it_is_saved_as_when_finished",
            "saelens::each_tokens_mean_and_scale_come_back",
        ),
    ),
    Row(
        "sparsify (EleutherAI)",
        "`cfg.json` and `sae.safetensors`",
        "`eai-sparsify` 1.3.3, naive lines",
        ("libraries::sparsify", "formats::sparsify"),
    ),
    Row(
        "dictionary_learning",
        "`config.json` and `ae.pt`: AutoEncoder, AutoEncoderNew, Gated, JumpRelu, TopK, BatchTopK, Matryoshka",
        "`dictionary-learning` 0.1.0, naive lines",
        ("libraries::dictionary_learning", "formats::dictionary_learning"),
    ),
    Row(
        "OpenAI",
        "`.pt`, version 1 (ReLU) and version 5 (top-k, each token normalised)",
        "naive lines",
        ("formats::openai_version_1", "formats::openai_version_5_normalises_each_token"),
    ),
    Row(
        "Gemma Scope, Gemma Scope 2",
        "`params.npz`; `params.safetensors` and `config.json`",
        "naive lines",
        ("formats::gemma_scope", "formats::gemma_scope_2"),
    ),
    Row(
        "Llama Scope, R1-Distill, llamascopium (OpenMOSS)",
        "`hyperparams.json` or `config.json`, and `.safetensors`. Thresholds of Llama Scope are compared as in OpenMOSS's library; SAELens multiplies them by the scale of the activations once more",
        "naive lines",
        ("formats::llama_scope", "formats::what_openmoss_writes_since"),
    ),
    Row(
        "Braun et al. 2024",
        "`final_config.yaml` and `samples_N.pt`; `FILE#blocks.6.hook_resid_pre` where a file holds several",
        "naive lines",
        ("braun2024::a_file_gives_what_their_sae_gives", "braun2024::one_of_several_hook_points_is_named"),
    ),
    Row(
        "Kissane & Krzyzanowski, Nanda", "`NAME.pt` and `NAME_cfg.json`", "naive lines", ("formats::kissane_and_nanda",)
    ),
    Row(
        "Bussmann",
        "`sae.pt` and `config.json`: vanilla and topk",
        "naive lines",
        ("formats::bussmann_top_k_does_not_use_its_encoder_bias",),
    ),
    Row(
        "Goodfire, DeepSeek-R1, Qwen-Scope",
        "the published files, by their names",
        "naive lines",
        ("formats::goodfire", "formats::deepseek_r1", "formats::qwen_scope"),
    ),
    Row(
        "SAEBench's custom classes",
        "the weights of ReLU, top-k, batch-top-k, JumpReLU and gated ones, as `.pt` or `.safetensors`; the object itself",
        "naive lines",
        ("saebench::saved_weights_and_an_option", "saebench::an_object_says_all_but_its_convention_which_is_compared"),
    ),
    Row(
        "weights alone",
        "`.safetensors`, `.npz`, `.pt`, under the names of any of these formats, or `W_e b_e W_d b_d`",
        "naive lines",
        ("formats::weights_alone_in_any_kind_of_file",),
    ),
)


def table():
    head = "| format | what is read | checked against |\n|---|---|---|\n"
    return head + "".join(f"| {row.format} | {row.read} | {row.checked} |\n" for row in ROWS)


def functions(file):
    """The functions of a test file, with their source."""
    text = (ROOT / "tests" / "saes" / f"test_{file}.py").read_text()
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(text, node) for node in found}


def test_the_page_has_the_table():
    assert table() in (ROOT / "docs" / "saes.md").read_text()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.format)
def test_each_row_has_tests_that_compare(row):
    for name in row.tests:
        file, _, function = name.partition("::")
        source = functions(file)[f"test_{function}"]
        assert "assert" in source
    libraries = {"saelens": "sae_lens", "libraries": "`"}
    for name in row.tests:
        assert libraries.get(name.partition("::")[0], "naive lines") in row.checked


if __name__ == "__main__":
    print(table(), end="")
