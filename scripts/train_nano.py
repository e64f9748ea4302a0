"""Train nano, the model that ships with tiltmeter, on the source text of the standard library.

    python scripts/train_nano.py --out nano-training

1. Split the standard library into a training and a held-out side (`tiltmeter.data.stdlib`).
2. Train a byte-level BPE tokenizer on the training side.
3. Train a GPT-2 on random windows of the training side: Muon on the matrices of the blocks, AdamW on the rest, a short
   warm-up, then a linear decay to zero. The same command resumes from the last checkpoint.
4. Save the model in half precision as an ordinary Hugging Face directory.

`scripts/nano_card.py` then measures the saved model and writes its card.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from tiltmeter.data import stdlib

BOUNDARY = "<|endoftext|>"
CONTEXT = 128
VOCABULARY = 4096


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose token 0 marks the start of a module."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOUNDARY],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOUNDARY,
        eos_token=BOUNDARY,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """Encode all texts as one stream of token ids, with the boundary token before each."""
    encoded = tokenizer.backend_tokenizer.encode_batch(texts)
    boundary = tokenizer.bos_token_id
    return np.concatenate([np.array([boundary, *item.ids], dtype=np.uint16) for item in encoded])


def new_model(seed: int) -> GPT2LMHeadModel:
    """Build a GPT-2 of 1.7 million parameters: 3.5 megabytes in half precision."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=128,
        n_layer=6,
        n_head=4,
        activation_function="gelu_pytorch_tanh",  # GPT-2's GELU, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    model.set_attn_implementation("eager")  # the faster one for training at this size
    return model


def optimizers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Use Muon for the matrices of the blocks (Jordan et al. 2024), and AdamW for embeddings, biases and norms."""
    blocks = [p for name, p in model.named_parameters() if ".h." in name and p.ndim == 2]
    rest = [p for name, p in model.named_parameters() if not (".h." in name and p.ndim == 2)]
    return [
        torch.optim.Muon(blocks, lr=0.02, momentum=0.95, weight_decay=0.05, adjust_lr_fn="original"),
        torch.optim.AdamW(rest, lr=0.004, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the schedule's factor: linear warm-up over the first 1 %, constant to 40 %, then linear to zero."""
    progress = step / steps
    return min(1.0, progress / 0.01 + 1e-3, (1.0 - progress) / 0.6)


def batch(stream: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw random windows of the stream, [size, CONTEXT + 1]."""
    starts = torch.randint(0, len(stream) - CONTEXT - 1, (size,), generator=generator)
    return stream[starts[:, None] + torch.arange(CONTEXT + 1)]


def loss_of(model: GPT2LMHeadModel, windows: torch.Tensor) -> torch.Tensor:
    """Compute the mean next-token cross-entropy in nats."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel, stream: torch.Tensor, sequences: int = 512) -> float:
    """Compute the mean loss over evenly spaced windows of the held-out stream."""
    starts = torch.linspace(0, len(stream) - CONTEXT - 2, sequences).long()
    windows = stream[starts[:, None] + torch.arange(CONTEXT + 1)]
    return float(np.mean([loss_of(model, part).item() for part in windows.split(64)]))


def train(model: GPT2LMHeadModel, streams: dict[str, torch.Tensor], args: argparse.Namespace) -> None:
    """Train up to `args.steps`, resuming from the checkpoint if there is one."""
    optims = optimizers(model)
    base_rates = [[group["lr"] for group in o.param_groups] for o in optims]
    checkpoint, log, first = args.out / "checkpoint.pt", args.out / "log.jsonl", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optimizers"], strict=True):
            optim.load_state_dict(saved)
        first = state["step"]
    began = time.time() - (json.loads(log.read_text().splitlines()[-1])["seconds"] if first else 0.0)
    for step in range(first, args.steps):
        factor = learning_rate_factor(step, args.steps)
        for optim, rates in zip(optims, base_rates, strict=True):
            for group, rate in zip(optim.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)  # addressed, so that resuming is exact
        loss = 0.0
        for part in batch(streams["train"], args.batch, generator).split(16):  # small enough for the cache
            with torch.autocast("cpu", torch.bfloat16):
                mean = loss_of(model, part) * len(part) / args.batch
            mean.backward()
            loss += mean.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            record = {
                "step": step + 1,
                "tokens": (step + 1) * args.batch * CONTEXT,
                "train": loss,
                "held_out": held_out_loss(model, streams["held-out"]),
                "seconds": time.time() - began,
            }
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(record, flush=True)
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optims], "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)


def main() -> None:
    """Run the four steps of the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, the log and the model")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=64, help="sequences of 128 tokens per step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations and checkpoints")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    texts = {which: [text for _, text in stdlib.texts(which)] for which in ("train", "held-out")}
    tokenizer = train_tokenizer(texts["train"])
    streams = {which: torch.from_numpy(encode(tokenizer, t).astype(np.int64)) for which, t in texts.items()}
    print({which: len(stream) for which, stream in streams.items()}, flush=True)
    model = new_model(args.seed)
    print(f"{model.num_parameters():,} parameters, uniform loss {math.log(VOCABULARY):.2f}", flush=True)
    train(model, streams, args)

    folder = args.out / "model"
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"saved {folder}", flush=True)


if __name__ == "__main__":
    main()
