"""Pickles of the original code, of either framework: (G, D, Gs), or one network."""

from __future__ import annotations

from collections.abc import Sequence

from progan.errors import shown
from progan.interop.systems import tensorflow, theano
from progan.interop.systems.layers import Foreign, Network
from progan.system.safe_pickle import Instance, Refused

TRIPLE = ("G", "D", "Gs")
"""What its training saves, in this order; Gs is the averaged generator."""
ORDER = ("Gs", "G", "D")


def matches(found: object) -> bool:
    """Tell whether an unpickled object is one of its networks, or three."""
    networks = _networks(found)
    return bool(networks) and all(tensorflow.matches(one) or theano.matches(one) for one in networks)


def _networks(found: object) -> Sequence[object]:
    if isinstance(found, tuple | list):
        return found if len(found) == len(TRIPLE) else ()
    return (found,)


class Checkpoint(Foreign):
    """A pickle.

    Args:
        found: As unpickled.
        budget: Bytes of the file.
    """

    def __init__(self, found: object, budget: int) -> None:
        networks = [one for one in _networks(found) if isinstance(one, Instance)]
        self._budget = budget
        self._module = "Theano" if theano.matches(networks[0]) else "TensorFlow"
        names = TRIPLE if len(networks) == len(TRIPLE) else (_kind(networks[0]),)
        self._networks = dict(zip(names, networks, strict=True))
        self.names = [name for name in ORDER if name in self._networks]

    def describe(self) -> str:
        """Return what it is, in words."""
        held = "G, D and Gs" if len(self.names) == len(TRIPLE) else f"{self.names[0]} alone"
        return f"a pickle of the original {self._module} code, with {held}"

    def network(self, name: str) -> Network:
        """Return one of its networks as ours: 'Gs', 'G' or 'D'."""
        network = self._networks[name]
        if _kind(network) != name[0]:
            raise Refused(f"its {shown(name)} is no such network")
        convert = theano.convert if theano.matches(network) else tensorflow.convert
        return convert(network, self._budget)


def _kind(network: Instance) -> str:
    return theano.kind_of(network) if theano.matches(network) else tensorflow.kind_of(network)
