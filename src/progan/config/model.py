"""Options of the networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from progan.config.fields import Branch, Count, NonNegative, Positive

Activation = Literal["leaky_relu", "relu", "elu", "selu", "silu", "gelu", "softplus", "tanh"]
Scaling = Literal["fused", "separate", "strided"]
Conditioning = Literal["none", "ac_gan", "projection"]
Growth = Literal["fade", "morph"]


class NetworkOptions(Branch):
    """What both networks have; filters at level l are min(fmap_base / 2^((l + 1) * decay), fmap_max)."""

    fmap_base: int = Field(
        8192, ge=1, le=2**20, description="Filters are fmap_base / 2^((level + 1) * decay)."
    )
    fmap_decay: NonNegative = Field(1.0, description="How fast filters shrink with the level.")
    fmap_max: int = Field(512, ge=1, description="Largest number of filters of a layer.")
    kernel_size: int = Field(3, ge=1, le=15, description="Side of the convolutions' kernels, odd.")
    activation: Activation = Field("leaky_relu", description="Activation after each layer but the last.")
    leaky_slope: NonNegative = Field(0.2, description="Slope of leaky_relu for negative values.")
    bias: bool = Field(True, description="Biases in all layers.")
    equalized_lr: bool = Field(
        True, description="Scale weights at each use (section 4.1), not once when they are made."
    )
    weight_init: Literal["he", "lecun", "truncated"] = Field(
        "he",
        description="Deviation of the weights: 'he' gain / sqrt(fan_in), 'lecun' 1 / sqrt(fan_in), "
        "'truncated' as 'he', from a normal distribution cut at two deviations.",
    )
    gain: Literal["paper", "activation"] = Field(
        "paper",
        description="Gain of hidden layers: sqrt(2) everywhere, or what keeps the variance with the "
        "activation.",
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

    latent_size: int | None = Field(None, ge=1, description="Size of z; default: min(fmap_base, fmap_max).")
    normalize_latents: bool = Field(True, description="Pixel-normalise the latent (with its label).")
    pixel_norm: bool = Field(True, description="Pixel norm after every activation.")
    pixel_norm_eps: Positive = Field(1e-8, description="Epsilon under the root of pixel norm.")
    dense_gain: Positive | None = Field(
        None, description="Gain of the first dense layer; default: a quarter of hidden layers', 1 with lecun."
    )
    upscale: Scaling = Field(
        "fused",
        description="How a level doubles its size: 'fused' (summed kernel) and 'separate' (repeat pixels, "
        "convolve) are one function; 'strided' is a transposed convolution of stride 2, another network.",
    )
    output_activation: Literal["linear", "tanh"] = Field("linear", description="Activation after toRGB.")


class DiscriminatorOptions(NetworkOptions):
    """The discriminator of Table 2."""

    stddev_group: int = Field(
        4, ge=0, description="Group size of the minibatch standard deviation; 0 leaves it out."
    )
    stddev_features: int = Field(
        1, ge=1, description="Feature maps of the minibatch standard deviation; they divide the filters."
    )
    downscale: Scaling = Field(
        "fused",
        description="How a level halves its size: 'fused' pools before bias and activation (original code), "
        "'separate' after (Table 2), 'strided' has the first convolution of a level stride. Three networks.",
    )
    dense_features: int | None = Field(
        None, ge=1, description="Filters of the last hidden dense layer; default: as of level -1."
    )

    @model_validator(mode="after")
    def _check_stddev(self) -> DiscriminatorOptions:
        filters = max(1, min(int(self.fmap_base / 2.0 ** min(self.fmap_decay, 1000)), self.fmap_max))
        if self.stddev_group and filters % self.stddev_features:
            raise ValueError(
                f"stddev_features {self.stddev_features} does not divide the {filters} filters of level 0: "
                f"use a divisor, such as 1"
            )
        return self


class ModelOptions(Branch):
    """Both networks; channels, labels and resolution come from the data."""

    base_shape: tuple[Count, Count] | None = Field(
        None, description="Height and width of level 0; default: from the resolution (4 4 if square)."
    )
    conditioning: Conditioning | None = Field(
        None,
        description="What labels do: 'none' ignores them, 'ac_gan' has D estimate them, 'projection' has D "
        "judge images given them; default: ac_gan where there are labels.",
    )
    generator: GeneratorOptions = GeneratorOptions()
    discriminator: DiscriminatorOptions = DiscriminatorOptions()
