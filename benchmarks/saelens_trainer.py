"""SAELens's trainer with the same SAE, batch size, dtype and data as tiltmeter's, for the SAE training benchmark.

Everything else is SAELens's own: its Adam and gradient clipping, its firing counts, its schedulers, and in the pipeline
its activation buffer, which shuffles the tokens of several batches.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.training.trainable_sae import TrainableSAE

BUFFER = 64
"""Sequences in SAELens's buffer, as in its tutorial; its default, 20, is fewer than a batch of 4096 tokens."""


def library() -> ModuleType:
    """The `sae_lens` package.

    Raises:
        TiltmeterError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other packages warn about each other
            import sae_lens
    except ImportError:
        raise TiltmeterError(
            "For this benchmark the 'sae_lens' package is needed: pip install 'tiltmeter[sae-lens]'."
        ) from None
    return sae_lens


def sae(dictionary: TrainableSAE, sparsity: float) -> Any:
    """SAELens's standard training SAE with the same weights, its decoder rows normalised.

    Its loss is a sum over dimensions and tiltmeter's a mean, so at the same coefficient the loss is d_in times as large
    and the optimum is the same. SAELens does not constrain the norms of the decoder's rows; it multiplies each latent's
    L1 term by its row's norm.
    """
    latents, width = dictionary.W_dec.shape
    lens = library()
    config = lens.StandardTrainingSAEConfig(
        d_in=width,
        d_sae=latents,
        dtype=str(dictionary.W_dec.dtype).removeprefix("torch."),
        device=str(dictionary.W_dec.device),
        apply_b_dec_to_input=False,
        normalize_activations="none",
        l1_coefficient=sparsity,
    )
    made = lens.StandardTrainingSAE(config)
    with torch.no_grad():
        for name, value in dictionary.named_parameters():
            getattr(made, name).copy_(dictionary.rows if name == "W_dec" else value)
    return made


def constrain_rows(made: Any) -> None:
    """Constrain the decoder's rows to unit norm, as tiltmeter does: both then minimise the same function."""
    torch.nn.utils.parametrize.register_parametrization(made, "W_dec", _UnitRows())


class _UnitRows(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.normalize(rows, dim=-1)


def runner_config(made: Any, site: Site, ids: Int[Tensor, "sequence position"], batch: int, rate: float) -> Any:
    """The configuration of a SAELens run on these tokens, without logging and checkpoints."""
    lens = library()
    return lens.LanguageModelSAERunnerConfig(
        sae=made.cfg,
        hook_name=site.name,
        dataset_path="given",
        context_size=ids.shape[1],
        training_tokens=10**9,
        store_batch_size_prompts=batch,
        n_batches_in_buffer=max(BUFFER, 2 * batch),
        train_batch_size_tokens=batch * ids.shape[1],
        prepend_bos=False,
        lr=rate,
        device=made.cfg.device,
        dtype=made.cfg.dtype,
        checkpoint_path=None,
        output_path=None,
        verbose=False,
        logger=lens.LoggingConfig(log_to_wandb=False),
    )


def trainer(made: Any, config: Any, data: Any) -> Any:
    """SAELens's trainer for this SAE."""
    library()
    from sae_lens.training.sae_trainer import SAETrainer

    return SAETrainer(cfg=config.to_sae_trainer_config(), sae=made, data_provider=data)


def step(trainer: Any, x: Float[Tensor, "token d_site"]) -> Any:
    """One iteration of the loop of `SAETrainer.fit`, without logging."""
    trainer.maybe_reset_sparsity()
    output = trainer.step(x)
    trainer.n_training_steps += 1
    return output


def store(model: SplitModel, config: Any, ids: Int[Tensor, "sequence position"]) -> Any:
    """SAELens's activation store for these tokens, with a TransformerLens model of the same weights."""
    library()
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore

    data = Dataset.from_dict({"tokens": ids.tolist()})
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # SAELens warns that the data set has fewer rows than tokens, as every data set has
        return ActivationsStore.from_config(_hooked(model), config, override_dataset=data)


def _hooked(model: SplitModel) -> Any:
    """The same GPT-2 in TransformerLens, whose residual stream is centred, made without network access."""
    from transformer_lens import HookedTransformer
    from transformer_lens.loading_from_pretrained import get_pretrained_model_config
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    hf = model.hf
    settings = hf.config.to_dict() | {"n_ctx": hf.config.n_positions, "architectures": ["GPT2LMHeadModel"]}
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(settings))
        config = get_pretrained_model_config(directory, dtype=hf.dtype, device=str(model.device))
        hooked = HookedTransformer(config)  # while the folder exists, because it looks for a tokenizer there
    weights = convert_gpt2_weights(hf, config)
    hooked.load_and_process_state_dict(weights, fold_ln=False, center_unembed=False, fold_value_biases=False)
    return hooked.eval().requires_grad_(False)
