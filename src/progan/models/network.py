"""What both networks share: their shape, how far they have grown, and how they are described and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from progan.errors import CheckpointError

MAX_LEVEL = 20
"""Far above what any memory holds; keeps a crafted weight file from building networks for ever."""


class Network(nn.Module, PyTorchModelHubMixin, library_name="progan", tags=["progan", "gan"]):
    """Base of `Generator` and `Discriminator`.

    Args:
        channels: Channels of the images, at least 1.
        base_shape: Height and width of level 0.
        max_level: Highest level.
        label_size: Length of the label vector, 0 for none.
        level: How far it has grown; None for max_level.
        alpha: How far `level` is faded in, in [0, 1].
        label_names: A name per label, or none.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        channels: int,
        base_shape: Sequence[int],
        max_level: int,
        label_size: int,
        level: int | None,
        alpha: float,
        label_names: Sequence[str],
    ) -> None:
        super().__init__()
        if channels < 1 or max_level < 0 or label_size < 0 or len(base_shape) != 2 or min(base_shape) < 1:
            raise ValueError(
                f"channels {channels}, base_shape {tuple(base_shape)}, max_level {max_level}, "
                f"label_size {label_size}: channels and shape must be positive, the others not negative"
            )
        if max_level > MAX_LEVEL:
            raise ValueError(f"max_level {max_level}: more than {MAX_LEVEL} is not possible")
        if label_names and len(label_names) != label_size:
            raise ValueError(f"{len(label_names)} label names for {label_size} labels")
        self.channels = channels
        self.base_shape = (int(base_shape[0]), int(base_shape[1]))
        self.max_level = max_level
        self.label_size = label_size
        self.label_names = tuple(label_names)
        self._options: dict[str, Any] = {}
        self.level, self.alpha = max_level, 1.0
        self.set_growth(max_level if level is None else level, alpha)

    def resolution(self, level: int | None = None) -> tuple[int, int]:
        """Return height and width of the images of a level (None for how far it has grown)."""
        shift = self.level if level is None else level
        return self.base_shape[0] << shift, self.base_shape[1] << shift

    def set_growth(self, level: int, alpha: float = 1.0) -> None:
        """Say how far the network has grown: what a call without `level` computes.

        Raises:
            ValueError: if level is not in 0..max_level or alpha not in [0, 1].
        """
        if not 0 <= level <= self.max_level or not 0 <= alpha <= 1:
            raise ValueError(f"level {level} and alpha {alpha}: expected 0..{self.max_level} and 0..1")
        self.level, self.alpha = level, float(alpha)

    def growth(
        self, level: int | None, alpha: Tensor | float | None, like: Tensor
    ) -> tuple[int, Tensor | None]:
        """Resolve the arguments of a call: the level, and alpha as a 0-d tensor or None for 1.

        Args:
            level: As in `forward`; None takes the network's own level, and its own alpha if none is given.
            alpha: As in `forward`.
            like: A number becomes a tensor of this one's device and type.

        Raises:
            ValueError: if the level is not one of this network, or alpha is a number outside [0, 1].
        """
        if level is None:
            level = self.level
            if alpha is None and self.alpha < 1:
                alpha = self.alpha
        if not 0 <= level <= self.max_level:
            raise ValueError(f"level {level}: expected 0..{self.max_level}")
        if alpha is None or isinstance(alpha, Tensor):
            return level, alpha
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}: expected 0..1")
        return level, torch.tensor(alpha, dtype=like.dtype, device=like.device)

    def use_fused(self, fused: bool) -> Self:
        """Choose how up- and downscaling convolutions are computed; the function stays the same."""
        for block in self.modules():
            if "fused" in vars(block):
                vars(block)["fused"] = fused
        return self

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON: `type(self)(**config)` is the same network."""
        return {
            "channels": self.channels,
            "base_shape": list(self.base_shape),
            "max_level": self.max_level,
            "label_size": self.label_size,
            **self._options,
            "level": self.level,
            "alpha": self.alpha,
            "label_names": list(self.label_names),
        }

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write `config.json` and `model.safetensors` into a folder, as the Hugging Face hub expects.

        Args:
            save_directory: The folder; made if missing.
            options: Passed on to `huggingface_hub` (for example `push_to_hub=True`).

        Returns:
            What `huggingface_hub` returns: the address of the commit if pushed, else None.
        """
        return super().save_pretrained(save_directory, config=self.config(), **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a network from a local weight file, run folder or hub folder, or from the hub by its name.

        Args:
            pretrained_model_name_or_path: What exists locally is read; anything else is a name on the hub.
            options: Passed on to `huggingface_hub` for a name on the hub.

        Returns:
            The network, in evaluation mode.

        Raises:
            CheckpointError: if a local file is damaged, foreign, or holds the other kind of network.
        """
        from progan.models.weights import (
            find_weights,
            load_network,
        )  # it knows both kinds, so it imports this

        path = Path(pretrained_model_name_or_path)
        if not path.exists():
            return super().from_pretrained(str(pretrained_model_name_or_path), **options)
        network = load_network(find_weights(path))
        if not isinstance(network, cls):
            raise CheckpointError(f"{path} holds a {type(network).__name__}, not a {cls.__name__}")
        return network
