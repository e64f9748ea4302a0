"""The training loop: batches, loss, Adam, and the checkpoints from which an interrupted training resumes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.analysis.massive import ordinary
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import allowed, boundary_mask
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.rng import Address, uniform
from tiltmeter.saes.sae import Activation, TopK
from tiltmeter.saes.training import local_gradient, losses
from tiltmeter.saes.training.config import Training
from tiltmeter.saes.training.trainable_sae import TrainableSAE


@dataclass(frozen=True)
class Task:
    """A training whose site names have been resolved in a model."""

    config: Training
    model: SplitModel
    site: Site
    downstream: tuple[Site, ...]
    """The sites H of `e2e+ds`."""
    ids: Int[Tensor, "sequence position"]
    boundary: int | None
    """ID of the token that begins a document."""
    massive_above: float = math.inf
    """Activations with larger norms are massive, and no loss counts them."""

    def counted(
        self, ids: Int[Tensor, "batch position"], x: Float[Tensor, "batch position d_site"]
    ) -> Bool[Tensor, "batch position"]:
        """The tokens of some sequences that the loss counts."""
        taken = allowed(boundary_mask(ids, self.boundary), self.config.bos)
        return (taken & ordinary(x, self.massive_above)).to(x.device)

    @property
    def steps(self) -> int:
        """Total number of optimizer steps."""
        return self.config.tokens // (self.config.batch * self.ids.shape[1])


@dataclass
class State:
    """Everything that changes during training."""

    dictionary: TrainableSAE
    optimizer: torch.optim.Adam
    idle: Float[Tensor, "latent"]
    """Number of tokens since each latent last fired."""
    step: int = 0
    recent: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Loss terms of the last step, still on the device, because reading them would force a synchronisation."""


def begin(task: Task, width: int) -> State:
    """Initialise the weights and the optimizer."""
    config = task.config
    activation = TopK(int(config.sparsity)) if config.kind == "topk" else torch.relu
    dictionary = _dictionary(config, width, activation).to(task.model.device, task.model.hf.dtype)
    optimizer = torch.optim.Adam(dictionary.parameters(), lr=config.learning_rate, fused=True)
    return State(dictionary, optimizer, torch.zeros(config.latents, device=task.model.device))


def _dictionary(config: Training, width: int, activation: Activation) -> TrainableSAE:
    try:
        return TrainableSAE(width, config.latents, activation, config.seed)
    except (RuntimeError, MemoryError):  # torch's allocator
        raise TiltmeterError(
            f"{config.latents} latents of width {width} do not fit into memory; use fewer (--latents)."
        ) from None


def learning_rate(config: Training, progress: float) -> float:
    """Return the learning rate at a fraction of training: linear over `warm_up`, then a cosine down to a tenth."""
    if progress < config.warm_up:
        return config.learning_rate * progress / config.warm_up
    falling = (progress - config.warm_up) / (1 - config.warm_up)
    return config.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * falling)))


def rows_of(task: Task, step: int) -> Int[Tensor, "batch"]:
    """Return the indices of a step's sequences. Every epoch visits all sequences in a new random order."""
    count, size = len(task.ids), task.config.batch
    begin, end = step * size, (step + 1) * size
    epochs = range(begin // count, (end - 1) // count + 1)
    order = torch.cat([_order(task.config.seed, count, epoch) for epoch in epochs])
    return order[begin - epochs[0] * count : end - epochs[0] * count]


@lru_cache(maxsize=2)  # cached: drawn once per epoch, not once per step
def _order(seed: int, count: int, epoch: int) -> Int[Tensor, "sequence"]:
    address = Address(seed, "training order", torch.arange(count), torch.zeros(1).long(), epoch)
    return uniform(address, "order", 1)[:, 0, 0].argsort()


def advance(task: Task, state: State) -> None:
    """One step."""
    config = task.config
    ids = task.ids[rows_of(task, state.step)]
    if config.kind == "local" and config.arithmetic == "float32":
        terms, active = _written_out(task, state, ids)
    else:
        terms, active = _by_graph(task, state, ids)
    update(config, state, active, learning_rate(config, (state.step + 0.5) / task.steps), ids.numel())
    state.recent = terms


def update(config: Training, state: State, active: Bool[Tensor, "latent"], rate: float, tokens: int) -> None:
    """Take one optimizer step. `active` are the latents that fired on the step's `tokens`."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    torch.nn.utils.clip_grad_norm_(state.dictionary.parameters(), config.clip)
    state.optimizer.step()
    state.idle = torch.where(active, 0.0, state.idle + tokens)
    state.step += 1


def _written_out(
    task: Task, state: State, ids: Int[Tensor, "batch position"]
) -> tuple[dict[str, Float[Tensor, ""]], Bool[Tensor, "latent"]]:
    """Compute the gradient of the local loss analytically."""
    pieces = []
    for some in ids.split(task.config.at_once):
        x = task.model.activation(some, task.site)
        pieces.append(x[task.counted(some, x)])
    terms, active = local_gradient.add_gradient(state.dictionary, task.config.sparsity, pieces, sum(map(len, pieces)))
    return {**terms, "total": weighted(task.config, terms)}, active


def _by_graph(
    task: Task, state: State, ids: Int[Tensor, "batch position"]
) -> tuple[dict[str, Float[Tensor, ""]], Bool[Tensor, "latent"]]:
    """Compute the gradient of any loss with autograd."""
    config = task.config
    active = torch.zeros_like(state.idle, dtype=torch.bool)
    sums: dict[str, Tensor] = {}
    most, tokens = int(allowed(boundary_mask(ids, task.boundary), config.bos).sum()), 0
    state.optimizer.zero_grad(set_to_none=False)
    for some in ids.split(config.at_once):
        with _arithmetic(config, task.model.device):
            terms, fired, count = loss_terms(task, state, some)
        total, tokens = weighted(config, terms), tokens + count
        (total * (count / most)).backward()
        active |= fired
        for name, value in {**terms, "total": total}.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * (count / most)
    if tokens == most:
        return sums, active
    for parameter in state.dictionary.parameters():  # massive activations do not count: the mean is over fewer tokens
        assert parameter.grad is not None
        parameter.grad.mul_(most / tokens)
    return {name: value * (most / tokens) for name, value in sums.items()}, active


def weighted(config: Training, terms: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """Sum the terms of the loss, weighted by its coefficients."""
    coefficients = config.coefficients._asdict() | {"sparsity": config.sparsity, "revive": 1 / 32}
    return torch.stack([coefficients[name] * term for name, term in terms.items()]).sum()


def loss_terms(
    task: Task, state: State, tokens: Int[Tensor, "batch position"]
) -> tuple[dict[str, Float[Tensor, ""]], Bool[Tensor, "latent"], int]:
    """Compute the unweighted loss terms on some sequences, which latents fired, and the number of counted tokens."""
    config, dictionary = task.config, state.dictionary
    if config.coefficients.kl:
        clean = task.model.start(tokens, task.site, task.downstream)
        x = clean.activation
    else:
        x = task.model.activation(tokens, task.site)
    whole, taken = x, task.counted(tokens, x)
    x = whole[taken]
    pre = dictionary.pre(x)
    latents, rows = dictionary.activation(pre), dictionary.rows
    given = latents @ rows + dictionary.b_dec
    terms: dict[str, Tensor] = {}
    if config.coefficients.reconstruction:
        terms["reconstruction"] = losses.mse(given, x)
    if config.coefficients.kl:
        late = task.model.resume(clean, whole.masked_scatter(taken[..., None], given.to(x)))
        terms["kl"] = losses.kl(task.model, clean.late.final[taken], late.final[taken])
    if config.coefficients.downstream:
        apart = [losses.mse(late.sites[h][taken], clean.late.sites[h][taken]) for h in task.downstream]
        terms["downstream"] = torch.stack(apart).mean()
    if config.kind == "topk":
        terms["revive"] = losses.revive(pre, rows, x - given, state.idle > config.dead_after)
    else:
        terms["sparsity"] = losses.sparsity(latents, x.shape[-1])
    return terms, (latents.detach() > 0).any(0), len(x)


def _arithmetic(config: Training, device: torch.device) -> contextlib.AbstractContextManager:
    if config.arithmetic == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def to_arrays(state: State) -> dict[str, np.ndarray]:
    """Convert the state to named arrays, for a checkpoint."""
    arrays = {f"weight.{name}": value.detach() for name, value in state.dictionary.named_parameters()}
    moments = state.optimizer.state_dict()["state"]
    arrays |= {f"adam.{index}.{name}": value for index, one in moments.items() for name, value in one.items()}
    arrays |= {"idle": state.idle, "step": torch.tensor(state.step)}
    return {name: value.cpu().numpy() for name, value in arrays.items()}


def restore(state: State, arrays: dict[str, np.ndarray]) -> None:
    """Load a checkpoint into a freshly initialised state."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    state.dictionary.load_state_dict(dict(_below("weight", tensors)))
    adam = state.optimizer.state_dict()
    indices = {int(name.split(".")[0]) for name, _ in _below("adam", tensors)}
    parameters = list(state.dictionary.parameters())
    adam["state"] = {index: _moments(parameters[index], dict(_below(f"adam.{index}", tensors))) for index in indices}
    state.optimizer.load_state_dict(adam)
    state.idle, state.step = tensors["idle"].to(state.idle.device), int(tensors["step"])


def _moments(parameter: Tensor, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give moments the memory layout of their parameter, as fused Adam assumes that the layouts agree."""
    return {
        name: torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        for name, value in stored.items()
    }


def _below(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            yield name.removeprefix(f"{prefix}."), value
