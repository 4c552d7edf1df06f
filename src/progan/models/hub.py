"""Networks as the Hugging Face hub has them: a folder with weights, their description and a model card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download

from progan.errors import CheckpointError
from progan.models import weights
from progan.models.averaged import GENERATOR_FILE
from progan.models.network import Network

FILE_SUFFIXES = frozenset(
    {".safetensors", ".pkl", ".pickle", ".pt", ".pth", ".onnx", ".pt2", ".ts", ".zip", ".npy"}
)
"""What names of files end with, and no name on the hub."""
MOST_SAID = 200
"""Characters of an error of huggingface_hub that are passed on; it gives advice of its own after them."""
HUB_OPTIONS = frozenset({"revision", "cache_dir", "force_download", "token", "local_files_only"})

CARD = """---
{{ card_data }}
---

# {{ network }} of {{ size }} images

A {{ network.lower() }} of a progressively grown GAN, trained with progan: {{ facts }}.

```python
from progan import {{ network }}

network = {{ network }}.from_pretrained("user/name")  # this repository's name
```

The method: Karras et al., *Progressive Growing of GANs for Improved Quality, Stability, and Variation*,
ICLR 2018, [arXiv:1710.10196](https://arxiv.org/abs/1710.10196).
"""
"""The model card (a Jinja template) that `save_pretrained` writes if the folder has none."""


class HubNetwork(
    Network,
    PyTorchModelHubMixin,
    library_name="progan",
    tags=["progan", "gan"],
    model_card_template=CARD,
):
    """A network that can be shared; `Generator` and `Discriminator` are."""

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write `config.json` and `model.safetensors` into a folder, as the Hugging Face hub expects.

        Args:
            save_directory: The folder; made if missing.
            options: Passed on to `huggingface_hub` (for example `push_to_hub=True`).

        Returns:
            What `huggingface_hub` returns: the address of the commit if pushed, else None.
        """
        # `push_to_hub` calls this with a `config`, too.
        return super().save_pretrained(
            save_directory, **{**options, "config": weights.describe(self)["config"]}
        )

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """Return the README.md of a hub folder, which says what the network is and how to load it."""
        height, width = self.resolution()
        facts = f"{self.channels} channels, grown to level {self.level} of {self.max_level}"
        if self.label_size:
            facts += f", labels: {', '.join(self.label_names) or self.label_size}"
        mine = {"network": type(self).__name__, "size": f"{height}x{width}", "facts": facts}
        return super().generate_model_card(*args, **{**mine, **options})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a network from a local weight file, run folder or hub folder, or from the hub by its name.

        Args:
            pretrained_model_name_or_path: What exists locally is read; anything else is a name on the hub.
            options: For a name on the hub: `revision`, `cache_dir`, `force_download`, `token` and
                `local_files_only`, which `huggingface_hub.snapshot_download` takes.

        Returns:
            The network, on the CPU and in evaluation mode, its parameters without gradients.

        Raises:
            CheckpointError: if there is no such file and no such name on the hub, the hub cannot be reached,
                or the file is damaged, foreign, or holds the other kind of network.
            TypeError: if there is an option of another name.
        """
        if unknown := options.keys() - HUB_OPTIONS:
            raise TypeError(f"from_pretrained() takes no {', '.join(sorted(unknown))}")
        name, path = str(pretrained_model_name_or_path), Path(pretrained_model_name_or_path)
        folder = path if path.exists() else download(name, **options)
        file = weights.find_weights(folder)
        record, tensors = weights.read(file)
        if (kind := weights.kind_of(record, file)) != cls.kind:
            raise CheckpointError(f"{name} holds a {kind}, not a {cls.__name__}")
        return weights.build(cls, record, tensors, file, [cls]).place("cpu")


def is_hub_name(place: str | Path) -> bool:
    """Tell whether a word names something on the Hugging Face hub: `user/name`, and nothing that is here.

    Where there is a folder `user` here, what was meant is taken for a path in it.
    """
    path = Path(place)
    if path.exists() or path.suffix in FILE_SUFFIXES or Path(path.parts[0] if path.parts else "").is_dir():
        return False
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(place), re.ASCII) is not None


def locate(place: str | Path) -> Path:
    """Return the file that holds the network that is meant.

    Args:
        place: A weight file or a checkpoint of a run; a run or hub folder; or a name on the hub, from where
            it is fetched unless it is in the cache.

    Raises:
        CheckpointError: if there is none.
    """
    return weights.find_weights(download(str(place)) if is_hub_name(place) else Path(place))


def download(name: str, **options: Any) -> Path:
    """Fetch weights and description from the Hugging Face hub.

    Args:
        name: On the hub: `user/name`.
        options: Those of `huggingface_hub.snapshot_download`.

    Returns:
        The folder that holds them, in the hub's cache.

    Raises:
        CheckpointError: if there is no such name or the hub cannot be reached.
    """
    files = ["config.json", GENERATOR_FILE, weights.HUB_FILE]
    try:
        folder = Path(snapshot_download(name, allow_patterns=files, **options))
    except Exception as error:  # their kinds depend on the version of huggingface_hub
        raise CheckpointError(
            f"{name}: no such file or folder, and it cannot be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {' '.join(str(error).split())[:MOST_SAID]})"
        ) from error
    if not any((folder / file).is_file() for file in files):
        raise CheckpointError(f"{name}, on the Hugging Face hub, holds no network of progan ({files[-1]})")
    return folder
