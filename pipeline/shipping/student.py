"""Opens a trained student from its folder alone, by the `model.json` beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from pipeline.errors import DataError
from pipeline.experiment.model_file import Architecture, ModelFile
from pipeline.experiment.run_folder import STUDENT
from pipeline.models import Network, WithReusedHead, build_network
from pipeline.models.kinds import kind_of
from pipeline.models.preprocessing import as_input_size
from pipeline.models.reused import HEAD_FILE, load_trained


@dataclass(frozen=True)
class ShippedStudent:
    """Holds a trained student: what its folder says of it, and the network, on the CPU, in evaluation mode."""

    folder: Path
    model: ModelFile
    network: Network | WithReusedHead

    @classmethod
    def open(cls, folder: Path, code: str | None = None) -> Self:
        """Read the description of a student, and load its network.

        Args:
            folder: of the weights.
            code: the module of the user's own that the folder may run, `package.module:factory`: a folder may come from
                anywhere, so it cannot name code alone.

        Raises DataError if the folder is not one of a student, or names other code; ModelError if the weights do not
        fit.
        """
        model = ModelFile.read(folder)
        said = model.network
        if getattr(kind_of(said.model), "RUNS_CODE", False) and code != said.model:
            raise DataError(
                "the student is built by code that you did not name, and that is not run",
                where=folder,
                expected=f"--code {code}" if code else None,
                got=f"model: {said.model}, options: {dict(said.options)}",
                fix=f"pass --code {said.model}, if you trust the folder and know what that code does",
            )
        if said.reused_head and not (folder / HEAD_FILE).exists():
            fix = f"copy {HEAD_FILE} from where the student was trained"
            raise DataError("the student's classifier is missing", where=folder, expected=HEAD_FILE, fix=fix)
        network = build_network(
            said.model,
            said.num_classes,
            weights=folder / STUDENT,
            input_size=as_input_size(said.input_size),
            mean=said.mean,
            std=said.std,
            interpolation=said.interpolation,
            options=said.options,
            blocks=said.blocks,
            head=said.head,
        )
        network.keep_taps([])
        trained = load_trained(network, folder) if said.reused_head else network
        trained.to(memory_format=torch.channels_last)  # as in the evaluation
        return cls(folder, model, trained.eval().requires_grad_(False))

    def require_classifier(self, what: str) -> None:
        """Raise DataError if the student has no classifier.

        Args:
            what: cannot be done then, for the message.
        """
        if not self.model.network.num_classes:
            raise DataError(
                f"the student has no classifier, so {what}",
                where=self.folder,
                fix="train one with a classifier (without `head: none`), or use its embedding from Python: "
                "build_network, then network(images).embedding",
            )

    def require_pixels(self, pixels: torch.Tensor) -> None:
        """Raise ModelError if views have other channels than the network takes.

        Args:
            pixels: uint8 [B, C, H, W].
        """
        self.own.pixels.require(pixels.shape[1])

    @property
    def own(self) -> Network:
        """Return the network, without a reused classifier around it."""
        return self.network.network if isinstance(self.network, WithReusedHead) else self.network

    @property
    def described(self) -> Architecture:
        """Return how the network is built, as its folder says."""
        return self.model.network

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute logits float32 [B, K] of views uint8 [B, C, H, W], as `evaluate` does.

        Args:
            pixels: such as it sees.
        """
        with torch.inference_mode():
            found: torch.Tensor = self.network(pixels).logits
            return found.float()
