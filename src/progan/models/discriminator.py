"""The discriminator of the paper (Table 2, `D_paper` of the original networks.py), for any base shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from torch import Tensor, nn

from progan.config import Conditioning, DiscriminatorOptions, Growth, LabelForm
from progan.errors import shown
from progan.models.activations import activation
from progan.models.autograd import at_least_float32
from progan.models.fused.hidden import hidden, scaled_hidden
from progan.models.hub import HubNetwork
from progan.models.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    StddevForm,
    conv2d_downscale2d,
    downscale2d,
    fade,
    fresh,
    minibatch_stddev,
    strided_down,
)
from progan.models.network import filters, is_traced, read_options


class DownBlock(nn.Module):
    """Two convolutions of a level, which lead to half the size.

    Args:
        inputs: Channels of this level.
        outputs: Channels of the level below.
        options: Kernel size, activation, and how to downscale: 'fused' pools before bias and activation (the
            original's fused_scale=True), 'separate' pools after them (Table 2), 'strided' gives the first
            convolution a stride of 2 and so computes the second at half the size (as one TensorFlow 2
            implementation does). These are different functions.
    """

    def __init__(self, inputs: int, outputs: int, options: DiscriminatorOptions) -> None:
        super().__init__()
        between = inputs if options.widening == "second" else outputs
        self.conv0 = EqualizedConv2d(inputs, between, options.kernel_size, options)
        self.conv1_down = EqualizedConv2d(between, outputs, options.kernel_size, options)
        self.activation = activation(options)
        self.downscale = options.downscale
        self.fused = True

    def forward(self, x: Tensor, alpha: Tensor | None = None) -> Tensor:
        """Map [N, in, H, W] to [N, out, H/2, W/2].

        With alpha, a 0-d tensor, what lies within the block is blended in: at 0 the block is linear up to
        half the size, and one activation follows there.
        """
        first, second = self.conv0, self.conv1_down
        out: Tensor
        match self.downscale:
            case "strided":
                large = x
                x = scaled_hidden(
                    lambda bias: strided_down(large, first.scaled_weight(), bias, kernel=first.kernel),
                    first.bias,
                    self.activation,
                    alpha,
                )
                out = hidden(second, self.activation, x)
            case "separate":
                x = hidden(first, self.activation, x, alpha)
                if alpha is None:
                    out = downscale2d(hidden(second, self.activation, x))
                else:
                    x = fresh(second, x)
                    late = downscale2d(self.activation(x.clone()))
                    out = fade(self.activation(downscale2d(x)), late, alpha)
            case "fused":
                wide, weight = hidden(first, self.activation, x, alpha), second.scaled_weight()
                kernel = second.kernel
                out = scaled_hidden(
                    lambda bias: conv2d_downscale2d(wide, weight, bias, kernel=kernel, fused=self.fused),
                    second.bias,
                    self.activation,
                )
        return out


class Discriminator(HubNetwork):
    """Scores images, at any level up to the one it was built for, and estimates or regards their labels.

    Args:
        channels: Channels of the images.
        base_shape: Height and width at level 0.
        max_level: Highest level; the full size is base_shape * 2**max_level.
        label_size: Length of the label vector; 0 for none.
        label_form: What a row of labels is: `class` (one-hot), `classes` (0 or 1 per class) or `vector`.
        conditioning: What it does with labels. `none`: nothing; there are none. `ac_gan`: it estimates them.
            `projection`: it scores images given them. None: `ac_gan` if there are labels.
        level: How far it has grown: what a call computes unless told otherwise.
        alpha: The same, of how far that level has come in.
        label_names: One name per entry of the label vector, in order; may be empty.
        growth: What alpha does: 'fade' blends the level's features with fromRGB of the halved image, 'morph'
            blends the activations of fromRGB and of the level's block in (`models/morph.py`).
        options: The choices of the architecture, described in `config.DiscriminatorOptions`, which also has
            their defaults: those of both networks (`config.NetworkOptions`) and those of the discriminator
            alone: stddev_group, downscale, dense_features and others.

    Attributes:
        options: The same, checked.
        conditioning: `none`, `ac_gan` or `projection`.

    Raises:
        ValueError: if an option is unknown, a value out of range, or values contradict each other.
    """

    kind, chosen_by = "Discriminator", "model.discriminator_class"
    options: DiscriminatorOptions

    def __init__(
        self,
        *,
        channels: int = 3,
        base_shape: Sequence[int] = (4, 4),
        max_level: int = 8,
        label_size: int = 0,
        label_form: LabelForm = "class",
        conditioning: Conditioning | None = None,
        level: int | None = None,
        alpha: float = 1.0,
        label_names: Sequence[str] = (),
        growth: Growth = "fade",
        **options: Any,
    ) -> None:
        own, read = self.take_own(options), read_options(DiscriminatorOptions, options)
        super().__init__(
            own,
            channels,
            base_shape,
            max_level,
            label_size,
            label_form,
            read,
            level,
            alpha,
            label_names,
            growth,
        )
        self.conditioning = _conditioning(conditioning, label_size)
        last, *widths = filters(read, max_level)
        last = last if read.dense_features is None else read.dense_features
        maps = read.stddev_features if read.stddev_group else 0
        self.from_rgb = nn.ModuleList(EqualizedConv2d(channels, width, 1, read) for width in widths)
        self.blocks = nn.ModuleList(
            self.make_block(i, widths[i], widths[i - 1]) for i in range(1, max_level + 1)
        )
        self.activation = activation(read)
        self.rgb_activation = self.activation if read.rgb_activation else nn.Identity()
        area, features = self.base_shape[0] * self.base_shape[1], widths[0] + maps
        self.conv = None
        if read.last_conv:
            self.conv = EqualizedConv2d(features, widths[0], read.kernel_size, read)
            features = widths[0]
        self.dense0 = EqualizedLinear(features * area, last, read)
        self.dense1 = EqualizedLinear(last, 1 + label_size, read, gain=1.0)

    def make_block(self, level: int, inputs: int, outputs: int) -> nn.Module:  # noqa: ARG002
        """Return the block of a level, at least 1; a discriminator of one's own may have another one.

        It maps ([N, inputs, H, W], alpha or None) to [N, outputs, H/2, W/2]; alpha is not None where a level
        is morphed in, which a block that is no `DownBlock` cannot be.
        """
        return DownBlock(inputs, outputs, self.options)

    @property
    def stddev_group(self) -> int:
        """Group size of the minibatch standard deviation: batches are made of whole groups; 0 for none."""
        return self.options.stddev_group

    @property
    def stddev_contiguous(self) -> bool:
        """Whether the samples of a group are neighbours; otherwise every (N / group)-th is of one."""
        return self.options.stddev_order == "contiguous"

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON: `type(self)(**config)` is the same network."""
        return {**super().config(), "conditioning": self.conditioning}

    def forward(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        level: int | None = None,
        alpha: Tensor | float | None = None,
        sets: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Score images.

        Args:
            x: [N, channels, *resolution(level)] in [-1, 1]; N a multiple of min(stddev_group, N).
            labels: [N, label_size], of the form `label_form`; needed for a projection, else not used.
            level: Level of the images; None for how far this discriminator has grown.
            alpha: How far the level has come in: weight of its own block against fromRGB of the halved
                image, or, with growth 'morph', of the activations of its fromRGB and block. None means 1 and
                skips what is left (or, with level None too, this discriminator's own).
            sets: Equal parts of the batch, such as reals and fakes, each with minibatch-stddev groups of its
                own: the scores are those of as many calls.

        Returns:
            Scores [N] (higher is more real; not bounded) and label logits [N, label_size], or [N, 0] with a
            projection; both at least float32.

        Raises:
            ValueError: if a shape, the level or alpha does not fit.
        """
        level, alpha = self.resolve_growth(level, alpha, x)
        expected = (self.channels, *self.resolution(level))
        if not is_traced() and tuple(x.shape[1:]) != expected:
            raise ValueError(f"images of level {level} must be {['N', *expected]}, not {list(x.shape)}")
        # At level 0 there is nothing to blend, whatever alpha is.
        fading, morphing = (alpha, None) if self.growth == "fade" else (None, alpha if level else None)
        features = self._features(level, x, morphing)
        if level > 0:
            features = self.blocks[level - 1](features, morphing)
            if fading is not None:
                features = fade(self._features(level - 1, downscale2d(x)), features, fading)
        for i in range(level - 1, 0, -1):
            features = self.blocks[i - 1](features)
        out = at_least_float32(self._judge(features, x, sets))
        if self.conditioning != "projection":
            return out[:, 0], out[:, 1:]
        # score = psi(phi(x)) + y^T V phi(x); the rows of dense1 are psi and V. Miyato and Koyama 2018, eq. 5,
        # but that each label has a bias, too, as each output of the layer.
        given = self.require_labels(labels, x).to(out.dtype)
        return out[:, 0] + (out[:, 1:] * given).sum(dim=1), out[:, :0]

    def _features(self, level: int, x: Tensor, morphing: Tensor | None = None) -> Tensor:
        """Map an image to features with fromRGB and its activation, if it has one: [N, filters, H, W]."""
        return hidden(self.from_rgb[level], self.rgb_activation, x, morphing)

    def _judge(self, x: Tensor, images: Tensor, sets: int) -> Tensor:
        """Map the features of level 0, and the images, to the outputs of the last layer: [N, 1 + labels]."""
        if self.options.stddev_group:
            of = images if self.options.stddev_of == "images" else None
            x = minibatch_stddev(x, _stddev_form(self.options), sets, of)
        if self.conv is not None:
            x = hidden(self.conv, self.activation, x)
        # Channel-major, as the original flattens; the features may be channels_last in memory.
        x = self.activation(fresh(self.dense0, x.flatten(1)))
        out: Tensor = self.dense1(x)
        return out


def _conditioning(given: Conditioning | None, label_size: int) -> Conditioning:
    """Check that conditioning and labels fit, and decide where nothing is given."""
    if given is None:
        return "ac_gan" if label_size else "none"
    if given not in get_args(Conditioning):
        raise ValueError(f"conditioning {shown(given)}: expected {', '.join(get_args(Conditioning))}")
    if given == "none" and label_size:
        raise ValueError(
            f"conditioning none with label_size {label_size}: build both networks without labels"
        )
    if given != "none" and not label_size:
        raise ValueError(f"conditioning {given} needs labels: label_size is 0")
    return given


def _stddev_form(options: DiscriminatorOptions) -> StddevForm:
    return StddevForm(
        options.stddev_group,
        options.stddev_features,
        contiguous=options.stddev_order == "contiguous",
        unbiased=options.stddev_variance == "sample",
        # Deviations of images are a statistic of the data; those of features are trained through.
        epsilon=0.0 if options.stddev_of == "images" else 1e-8,
    )
