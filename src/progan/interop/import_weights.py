"""Weights of others as networks of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from progan.errors import CheckpointError
from progan.interop.recognise import recognise
from progan.interop.systems.layers import Foreign
from progan.models.loading import build_network
from progan.models.network import Network
from progan.system.safe_pickle import Refused

Which = Literal["Gs", "G", "D"]


def import_weights(
    path: str | Path,
    network: Which | None = None,
    *,
    like: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Network:
    """Read weights of others; nothing that a file names is imported or run.

    Args:
        path: A file of another system, told by its contents: pickles of the original code (TensorFlow or
            Theano), and what `torch.save` wrote of pytorch_GAN_zoo, pro_gan_pytorch, rosinality's
            progressive-gan-pytorch, genforce and MMagic; checkpoints of progan-flax, Keras' HDF5 files of
            matt-roz's code, and folders of varabei's. Or a dict with `config` (the arguments of
            `progan.Generator` or `Discriminator`) and `state_dict`, or a state dict of one of them alone.
        network: Which of several to take; None for Gs, the averaged generator, or else G. Of one network, it
            is only checked.
        like: What a state dict of progan alone is: a weight file, or a `config.json` of `save_pretrained`; or
            the JSON file of a training of varabei's.
        say: Told what the file is, and what is not in it and was assumed.

    Returns:
        The network, on the CPU, in evaluation mode and without gradients; `progan.save` writes it.

    Raises:
        CheckpointError: if the file cannot be read, asks for anything but numbers, holds something else, or
            has an operation that our networks have not.
        ConfigError: if `like` is needed and missing, or given and not needed.
    """
    path = Path(path)
    with _refused(path):
        foreign = recognise(path, None if like is None else Path(like))
        if say is not None:
            say(f"{path} is {foreign.describe()}")
        made = _made(foreign, _chosen(foreign, network, path), path)
    if say is not None:
        for note in foreign.notes:
            say(f"assumed: {note}")
    if network is not None and type(made).__name__[0] != network[0]:
        raise CheckpointError(f"{path} holds a {type(made).__name__}; {network} is something else")
    return made


def import_all(path: Path) -> tuple[dict[str, Network], list[str]]:
    """Read all networks of a file of another system.

    Args:
        path: As `import_weights` takes it.

    Returns:
        Those that are there by 'Gs' (the averaged generator), 'G' and 'D', on the CPU; and what is to be
        said: what the file is, and what was assumed.

    Raises:
        CheckpointError: if the file cannot be read, or has an operation that our networks have not.
        ConfigError: if it does not say which network it is of.
    """
    with _refused(path):
        foreign = recognise(path)
        networks, notes = {}, list[str]()
        for name in foreign.names:
            networks[name] = _made(foreign, name, path)
            notes += [note for note in foreign.notes if note not in notes]
    return networks, [f"{path} is {foreign.describe()}", *(f"assumed: {note}" for note in notes)]


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Add the file's name to why it is refused."""
    try:
        yield
    except Refused as error:
        raise CheckpointError(f"{path} is not imported: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None


def _made(foreign: Foreign, name: str, path: Path) -> Network:
    """Return a network of a file, whose numbers must be finite."""
    found = foreign.network(name)
    bad = next((n for n, value in found.tensors.items() if not bool(value.isfinite().all())), None)
    if bad is not None:
        raise Refused(f"{bad} holds values that are not finite")
    made: Network = build_network(found.record, found.tensors, path).place("cpu")
    return made


def _chosen(foreign: Foreign, network: Which | None, path: Path) -> str:
    """Return which network is meant.

    Raises:
        CheckpointError: if it is not there.
    """
    if network in foreign.names:
        return str(network)
    if network is None or (len(foreign.names) == 1 and foreign.names[0][0] == network[0]):
        return foreign.names[0]
    if len(foreign.names) == 1:
        kind = "Discriminator" if foreign.names[0] == "D" else "Generator"
        raise CheckpointError(f"{path} holds a {kind}; {network} is something else")
    raise CheckpointError(f"{path} holds {' and '.join(foreign.names)}, and no {network}")
