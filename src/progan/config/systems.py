"""The older systems of the field, and the mark on an option that says which of them had it."""

from __future__ import annotations

from pydantic.config import JsonDict

SYSTEMS = {
    "TF1": "the authors' TensorFlow code, tkarras/progressive_growing_of_gans",
    "Theano": "the authors' Theano code, which made the paper's results",
    "pro_gan": "akanimax/pro_gan_pytorch",
    "BMSG": "akanimax/BMSG-GAN",
    "nashory": "nashory/pggan-pytorch",
    "GAN Zoo": "facebookresearch/pytorch_GAN_zoo",
    "rosinality": "rosinality/progressive-gan-pytorch",
    "pengge": "github-pengge/PyTorch-progressive_growing_of_gans",
    "TF2": "matt-roz/progressive_growing_of_gans_tensorflow_2",
    "Flax": "n2cholas/progan-flax",
    "s4tf": "t-ae/progan-s4tf",
    "Morph": "AugustDS/progressive_morphing_gan",
    "DiffAugment": "mit-han-lab/data-efficient-gans",
    "ADA": "NVlabs/stylegan2-ada-pytorch",
    "R3GAN": "brownvc/R3GAN, read from copies of it",
}
"""Short name -> what it is."""

SEEN = "x-seen-in"
"""Key of the mark in a field's JSON schema."""


def seen(*systems: str) -> JsonDict:
    """Return the mark of an option that these systems had, or did in a way of their own; none: it is new.

    Raises:
        KeyError: for a name that `SYSTEMS` does not explain.
    """
    for name in systems:
        SYSTEMS[name]
    return {SEEN: list(systems)}
