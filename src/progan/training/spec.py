"""What an iteration needs to know before it is made: configuration, shapes, schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from progan.config import Config, LabelForm, level_resolution
from progan.data.packed import PackedSet
from progan.training.schedule import Schedule


@dataclass(frozen=True)
class ImageSpec:
    """What the pictures decide about the networks: their channels, levels and labels.

    Label names are those of the classes, or of the entries of the label vector; empty if there are none.
    Depth is the bits of a stored value.
    """

    channels: int
    base_shape: tuple[int, int]
    max_level: int
    label_names: tuple[str, ...] = ()
    label_form: LabelForm = "class"
    depth: int = 8

    @classmethod
    def of(cls, packed: PackedSet) -> ImageSpec:
        """Return what a packed set decides."""
        return cls(
            packed.channels,
            packed.base_shape,
            packed.max_level,
            packed.label_names,
            packed.label_form,
            packed.depth,
        )

    def resolution(self, level: int) -> tuple[int, int]:
        """Return height and width of a level."""
        return level_resolution(self.base_shape, level)

    def network_arguments(self) -> dict[str, Any]:
        """Return them as the networks' constructors take them."""
        return {
            "channels": self.channels,
            "base_shape": self.base_shape,
            "max_level": self.max_level,
            "label_size": len(self.label_names),
            "label_names": self.label_names,
            "label_form": self.label_form,
        }


@dataclass(frozen=True)
class Spec:
    """What a run trains, and when: all that an iteration needs to know beside its state.

    The configuration is resolved; `pictures` is how many are trained on.
    """

    config: Config
    image: ImageSpec
    schedule: Schedule
    pictures: int


def make_spec(config: Config, image: ImageSpec, pictures: int) -> Spec:
    """Return what a run of a configuration trains.

    Args:
        config: Resolved configuration.
        image: Shapes and labels.
        pictures: Pictures that are trained on.

    Raises:
        ConfigError: if the schedule cannot be made, for example because a phase has no length.
    """
    return Spec(config, image, Schedule(config, image.max_level, pictures), pictures)
