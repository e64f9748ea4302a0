"""What a study would take: a `StudyForecast`, and how it is put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from tiltmeter.sweeps.dry_run import largest
from tiltmeter.sweeps.forecast import Forecast, duration, size


@dataclass(frozen=True)
class StudyForecast:
    """What a study would measure, exactly, and what it would take, estimated from one run of each kind."""

    study: str
    size: str
    figures: tuple[str, ...]
    columns: tuple[str, ...]
    """The model, and its controls."""
    saes: int
    """SAEs of the model that are used."""
    kinds: tuple[Forecast, ...]
    """For the sweeps of one kind each: they differ in the layer, the SAE or the column alone."""
    sweeps: int
    others: tuple[str, ...]
    """Experiments that are no sweeps, by column and name; they are in no estimate."""
    left_out: int
    """Experiments of the model that are not run."""
    trainings: int
    """Control SAEs that are trained, each on so many tokens (`training_tokens`) and so long (`training_seconds`)."""
    training_tokens: int
    training_seconds: float
    trainings_done: int
    weights: int
    """Bytes of a control's weights, which are in memory beside the model's; 0 without controls."""
    on_device: bool
    """Whether they are in the memory of a device."""

    @property
    def seconds(self) -> float:
        """Time of the whole study, after the model is loaded."""
        return sum(one.seconds for one in self.kinds) + self.trainings * self.training_seconds

    @property
    def seconds_left(self) -> float:
        """The same without what is stored already."""
        to_train = self.trainings - self.trainings_done
        return sum(one.seconds_left for one in self.kinds) + to_train * self.training_seconds

    @property
    def perturbed_tokens(self) -> int:
        """Perturbed tokens of all sweeps: sequences × perturbed positions × directions × points."""
        return sum(one.perturbed_tokens for one in self.kinds)

    @property
    def disk(self) -> int:
        """Size of the sweeps' run directories in bytes, without figures."""
        return sum(one.disk for one in self.kinds)

    @property
    def memory(self) -> int | None:
        """Peak memory of the process in bytes; None where the system does not say."""
        return self._peak([one.memory for one in self.kinds], 0 if self.on_device else self.weights)

    @property
    def device_memory(self) -> int | None:
        """Peak memory on the GPU in bytes; None for a model on the CPU."""
        return self._peak([one.device_memory for one in self.kinds], self.weights if self.on_device else 0)

    @staticmethod
    def _peak(found: Sequence[int | None], more: int) -> int | None:
        most = largest(found)
        return None if most is None else most + more

    @property
    def shards(self) -> tuple[int, int]:
        """Shards that are stored already, and all."""
        return sum(one.shards_done for one in self.kinds), sum(one.shards for one in self.kinds)

    def to_json(self) -> dict[str, Any]:
        """All fields, and what follows from them, as plain values."""
        derived = ("seconds", "seconds_left", "perturbed_tokens", "memory", "device_memory", "disk")
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        kinds = [one.to_json() for one in self.kinds]
        return {**own, "kinds": kinds, **{name: getattr(self, name) for name in derived}}

    def __str__(self) -> str:
        """A table of these, with remarks."""
        done, shards = self.shards
        passes = [
            f"{sum(one.statistics_passes for one in self.kinds):,} for statistics",
            f"{sum(one.clean_passes for one in self.kinds):,} clean",
            f"{sum(one.perturbed_passes for one in self.kinds):,} perturbed",
        ]
        rows = {
            "study": f"{self.study}, size {self.size}: figures {', '.join(self.figures)}",
            "columns": ", ".join(self.columns),
            "SAEs": self._saes,
            "runs": self._runs,
            "perturbed": f"{self.perturbed_tokens:,} tokens",
            "passes": ", ".join(passes),
            "time": f"{duration(self.seconds)} after loading the model{self._parts}",
            "memory": self._memory,
            "disk": f"{size(self.disk)}, without figures",
            "stored": f"{done} of {shards} shards are done, {self.trainings_done} of {self.trainings} control SAEs; "
            f"{duration(self.seconds_left)} are left"
            if done or self.trainings_done
            else "",
        }
        return "\n".join([*(f"{name:<11}{text}" for name, text in rows.items() if text), *self.remarks])

    @property
    def _saes(self) -> str:
        trained = f"; {self.trainings} are trained on controls, on {self.training_tokens:,} tokens each"
        return f"{self.saes} of the model are used{trained if self.trainings else ''}"

    @property
    def _runs(self) -> str:
        others = f"; experiments that are no sweeps: {len(self.others)}" if self.others else ""
        left_out = f"; not run on the model: {self.left_out}" if self.left_out else ""
        return f"{self.sweeps} sweeps, {len(self.kinds)} of which differ in kind{others}{left_out}"

    @property
    def _parts(self) -> str:
        parts = [f"sweeps {duration(sum(one.seconds for one in self.kinds))}"]
        if self.trainings:
            parts.append(f"control SAEs {duration(self.trainings * self.training_seconds)}")
        return f": {', '.join(parts)}" if len(parts) > 1 else ""

    @property
    def _memory(self) -> str:
        parts = [] if self.memory is None else [f"{size(self.memory)} at the peak"]
        parts += [] if self.device_memory is None else [f"{size(self.device_memory)} on the device"]
        return ", ".join(parts)

    @property
    def remarks(self) -> Sequence[str]:
        """What these numbers rest on, and what they leave out."""
        found = [
            "Time, memory and disk are estimates: a few batches of one sweep of each kind were tried on the model, and "
            "the other sweeps of the kind, at other layers and on controls, are taken to need as much."
        ]
        if self.trainings:
            found.append("The time of control SAEs is that of a few steps of one training, for each.")
        if self.others:
            found.append(
                f"Not in the estimates: experiments that are no sweeps ({', '.join(self.others[:3])}"
                f"{' …' if len(self.others) > 3 else ''}), figures and claims."
            )
        return found
