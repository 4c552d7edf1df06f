"""Options of the networks."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from progan.config.fields import Branch, Count, NonNegative, Positive, option

Activation = Literal["leaky_relu", "relu", "elu", "selu", "silu", "gelu", "softplus", "tanh"]
Scaling = Literal["fused", "separate", "strided"]
Conditioning = Literal["none", "ac_gan", "projection"]
Growth = Literal["fade", "morph"]
PixelNormForm = Literal["mean_square", "root", "variance"]


class NetworkOptions(Branch):
    """What both networks have; filters at level l are min(fmap_base / 2^((l + 1) * decay), fmap_max)."""

    fmap_base: int = option(8192, "Filters are fmap_base / 2^((level + 1) * decay).", ge=1, le=2**20)
    fmap_decay: NonNegative = option(1.0, "How fast filters shrink with the level.")
    fmap_max: int = option(512, "Largest number of filters of a layer.", ge=1)
    fmaps: tuple[Count, ...] | None = option(
        None,
        "Filters of levels 0, 1, ... one by one; where the list ends, the formula goes on.",
        max_length=64,
    )
    kernel_size: int = option(3, "Side of the convolutions' kernels, odd.", ge=1, le=15)
    activation: Activation = option("leaky_relu", "Activation after each layer but the last.")
    leaky_slope: NonNegative = option(0.2, "Slope of leaky_relu for negative values.")
    bias: bool = option(True, "Biases in all layers.")
    equalized_lr: bool = option(True, "Scale weights at each use (section 4.1), not once when they are made.")
    weight_init: Literal["he", "lecun", "truncated"] = option(
        "he",
        "Deviation of the weights: 'he' gain / sqrt(fan_in), 'lecun' 1 / sqrt(fan_in), 'truncated' as 'he',"
        " from a normal distribution cut at two deviations.",
    )
    gain: Literal["paper", "activation"] = option(
        "paper", "Gain of hidden layers: sqrt(2) everywhere, or what keeps the variance with the activation."
    )

    @model_validator(mode="after")
    def _check_layers(self) -> NetworkOptions:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size}: expected an odd number, such as 3")
        if self.weight_init == "lecun" and self.gain == "activation":
            raise ValueError("weight_init lecun has no gain: use weight_init he with gain activation")
        return self


class GeneratorOptions(NetworkOptions):
    """The generator of Table 2."""

    latent_size: int | None = option(None, "Size of z; default: min(fmap_base, fmap_max).", ge=1)
    normalize_latents: bool = option(True, "Pixel-normalise the latent (with its label).")
    label_norm: Literal["joined", "apart", "both"] = option(
        "joined",
        "What normalize_latents does with labels: 'joined' normalises latent and label together, 'apart' the"
        " latent alone, 'both' the latent alone and then both together.",
    )
    latent_norm_eps: Positive | None = option(None, "Epsilon of normalize_latents; default: pixel_norm_eps.")
    pixel_norm: bool = option(True, "Pixel norm after every activation.")
    pixel_norm_eps: Positive = option(1e-8, "Epsilon that keeps pixel norm finite.")
    pixel_norm_form: PixelNormForm = option(
        "mean_square",
        "What pixel norm divides by: 'mean_square' sqrt(E[x^2] + eps), 'root' sqrt(E[x^2]) + eps, 'variance'"
        " sqrt(Var[x] + eps).",
    )
    pixel_norm_place: Literal["after", "before"] = option(
        "after", "Pixel norm after or before the activation."
    )
    dense_norm: Literal["pixel", "units", "none"] = option(
        "pixel",
        "What pixel_norm does at the first dense layer: 'pixel' as at other layers, 'units' over all its"
        " units at once, 'none' nothing.",
    )
    dense_bias: Literal["channel", "unit"] = option(
        "channel", "Biases of the first dense layer: one a channel, or one a unit."
    )
    dense_gain: Positive | None = option(
        None, "Gain of the first dense layer; default: a quarter of hidden layers', 1 with lecun."
    )
    upscale: Scaling = option(
        "fused",
        "How a level doubles its size: 'fused' (summed kernel) and 'separate' (repeat pixels, convolve) are"
        " one function; 'strided' is a transposed convolution of stride 2, another network.",
    )
    output_activation: Literal["linear", "tanh"] = option("linear", "Activation after toRGB.")


class DiscriminatorOptions(NetworkOptions):
    """The discriminator of Table 2."""

    stddev_group: int = option(4, "Group size of the minibatch standard deviation; 0 leaves it out.", ge=0)
    stddev_features: int = option(
        1, "Feature maps of the minibatch standard deviation; they divide the filters.", ge=1
    )
    stddev_of: Literal["features", "images"] = option(
        "features",
        "What the minibatch standard deviation is of: the features of level 0, or the images.",
    )
    stddev_order: Literal["strided", "contiguous"] = option(
        "strided", "Which samples are a group: every (N / group)-th, or neighbours."
    )
    stddev_variance: Literal["population", "sample"] = option(
        "population", "Variance of a group of n: over n, or over n - 1."
    )
    downscale: Scaling = option(
        "fused",
        "How a level halves its size: 'fused' pools before bias and activation (original code), 'separate' "
        "after (Table 2), 'strided' has the first convolution of a level stride. Three networks.",
    )
    dense_features: int | None = option(
        None, "Filters of the last hidden dense layer; default: as of level -1.", ge=1
    )
    rgb_activation: bool = option(True, "Activation after fromRGB.")
    widening: Literal["second", "first"] = option(
        "second", "Which convolution of a block goes over to the filters of the level below."
    )
    last_conv: bool = option(True, "Convolution at level 0, before the dense layers.")

    @model_validator(mode="after")
    def _check_stddev(self) -> DiscriminatorOptions:
        filters = max(1, min(int(self.fmap_base / 2.0 ** min(self.fmap_decay, 1000)), self.fmap_max))
        filters = self.fmaps[0] if self.fmaps else filters
        if self.stddev_of == "images" and self.stddev_features != 1:
            raise ValueError("stddev_features: of images there is one feature map: leave it out")
        if self.stddev_group and filters % self.stddev_features:
            raise ValueError(
                f"stddev_features {self.stddev_features} does not divide the {filters} filters of level 0: "
                f"use a divisor, such as 1"
            )
        return self


class ModelOptions(Branch):
    """Both networks; channels, labels and resolution come from the data."""

    base_shape: tuple[Count, Count] | None = option(
        None, "Height and width of level 0; default: from the resolution (4 4 if square)."
    )
    conditioning: Conditioning | None = option(
        None,
        "What labels do: 'none' ignores them, 'ac_gan' has D estimate them, 'projection' has D judge images"
        " given them; default: ac_gan where there are labels.",
    )
    generator_class: Literal["paper"] = option(
        "paper", "The generator: that of the paper, or one of your own, which --plugin defines."
    )
    discriminator_class: Literal["paper"] = option(
        "paper", "The discriminator: that of the paper, or one of your own, which --plugin defines."
    )
    generator: GeneratorOptions = GeneratorOptions()
    discriminator: DiscriminatorOptions = DiscriminatorOptions()
