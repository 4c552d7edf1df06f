"""Which latent makes the picture that is nearest to a given one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from progan.config import format_resolution
from progan.data.pixels import to_8_bit, to_float, to_uint8
from progan.data.showing import on_white
from progan.errors import ConfigError, DataError
from progan.generation.film import check_form, even, write_film
from progan.generation.grids import grid_factor, grid_picture
from progan.generation.image_files import save_npz
from progan.generation.label_arguments import Label, label_vector
from progan.generation.picture_form import enlarge
from progan.generation.sampling import batch_size_for, digest, label_vectors, latents, level_of, whole
from progan.metrics.swd.laplacian import laplacian_pyramid
from progan.models.generator import Generator
from progan.preparation.decoding import Rules
from progan.preparation.fitting import FitTask, Fitted, fit_picture
from progan.preparation.formats.folder import Folder
from progan.system.files import atomic_path
from progan.system.progress import Progress, unheard

STARTS = 4
"""Of so many latents, the most promising of `POOL` random ones, each is improved; the best goes on."""

POOL = 1024
_PULL = 0.01
"""How much a mean square distance of features counts beside one of pixels."""

_LEARNING_RATE = 0.1
_PATIENCE = 10
"""Steps of L-BFGS between two looks at the picture."""

_FPS = 25
_SMALL = 128
"""Pixels of a side below which pictures are enlarged once more, so that their names have room."""

Watch = Callable[[NDArray[np.uint8], str, float], None]
"""Told of a picture [C, H, W] of the search, of what is being searched, and of its PSNR in dB."""


@dataclass(frozen=True)
class Projection:
    """Where a picture lies.

    Attributes:
        target: [C, H, W] uint8, the picture as the generator could make it: its size and channels.
        z: [1, latent_size] float32.
        label: [1, label_size] float32, or None.
        features: [1, filters, h0, w0] float32: features of level 0 that come nearer than those of any latent.
        level: At which the pictures were compared.
        latent_image, feature_image: [C, H, W] uint8, what `z` and `features` make.
        seed: Of the search.
        generator: SHA-256 of the generator.
    """

    target: NDArray[np.uint8]
    z: Tensor
    label: Tensor | None
    features: Tensor
    level: int
    latent_image: NDArray[np.uint8]
    feature_image: NDArray[np.uint8]
    seed: int
    generator: str

    @property
    def latent_psnr(self) -> float:
        """PSNR of what the latent makes, in dB."""
        return psnr(self.latent_image, self.target)

    @property
    def feature_psnr(self) -> float:
        """PSNR of what the features make, in dB."""
        return psnr(self.feature_image, self.target)

    def save(self, path: Path) -> None:
        """Write `z`, `labels`, `features` and what they belong to, as an `.npz`.

        Raises:
            StorageError: if it cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {"z": self.z.numpy(), "features": self.features.numpy()}
        if self.label is not None:
            arrays["labels"] = self.label.numpy()
        arrays["psnr"] = np.array([self.latent_psnr, self.feature_psnr], np.float32)
        arrays["generator"] = np.array(self.generator)
        save_npz(path, arrays)


def psnr(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio of two pictures of 8 bits, in dB; 99 if they are equal."""
    error = float(np.square(image.astype(np.float64) - target).mean())
    return min(99.0, float(10 * np.log10(255**2 / error))) if error else 99.0


def read_target(G: Generator, path: Path, level: int | None = None) -> NDArray[np.uint8]:
    """Read a picture as the generator could make it: upright, in sRGB, cropped centrally to its shape.

    Returns:
        [channels, *resolution(level)] uint8.

    Raises:
        DataError: if it cannot be read.
        ConfigError: if the generator makes no pictures, or there is no such level.
    """
    level = level_of(G, level)
    if not 1 <= G.channels <= 4:
        raise ConfigError(f"images of {G.channels} channels are no pictures")
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a picture")
    task = FitTask(Folder(path.parent), G.base_shape, level, Rules(G.channels), "crop")
    fitted = fit_picture(task, path.name)
    if not isinstance(fitted, Fitted):
        raise DataError(f"{path}: {fitted}")
    return to_8_bit(fitted.levels[level])


def project(
    G: Generator,
    target: NDArray[np.uint8],
    *,
    num_steps: int = 1000,
    seed: int = 0,
    label: Label | None = None,
    search_label: bool = False,
    level: int | None = None,
    progress: Progress = unheard,
    watch: Watch | None = None,
) -> Projection:
    """Search the latent whose picture is nearest to a target, and the features that come nearer still.

    First the most promising of random latents are improved together (Adam; the distance is that of Laplacian
    pyramids, in which a shape at the wrong place is no worse than one that is missing at fine levels alone),
    then the best of them (L-BFGS on pixels), then what the first two layers make of it, held near by a
    penalty: features are to a latent what W+ is to z in StyleGAN.

    Args:
        G: The generator, on the device that is to search.
        target: [channels, *resolution(level)] uint8.
        num_steps: About how often the picture is computed.
        seed: Of the first latents, at least 0.
        label: The picture's; None takes that of the most promising of random samples.
        search_label: Improve the label with the latent: it becomes numbers between and beyond those that the
            generator was trained with.
        level: As `level_of` takes it; None for the generator's own.
        progress: Told of the steps.
        watch: Told of pictures on the way.

    Raises:
        ConfigError: if something is out of range or the target is of another shape.
        DataError: if the search meets values that are not finite.
    """
    level, num_steps, seed = level_of(G, level), whole("num-steps", num_steps, least=10), whole("seed", seed)
    shape = (G.channels, *G.resolution(level))
    if target.shape != shape:
        raise ConfigError(f"a target of shape {list(target.shape)}: this generator makes {list(shape)}")
    if search_label and not G.label_size:
        raise ConfigError("this generator has no labels to search")
    search = _Search(G, target, level, num_steps, progress, watch)
    z, marks = search.starts(seed, label)
    if search_label and marks is not None:
        z, marks = search.joined(z, marks), None
    z, marks = search.improve(z, marks, num_steps * 15 // 100)
    z = search.latent(z, marks, num_steps * 70 // 100)
    if search_label:
        z, marks = search.parted(z)
    with torch.no_grad():
        first = G.features(z, marks)
    features = search.features(first, num_steps)
    with torch.no_grad():
        # To 8 bits here, as saved pictures are compared.
        made = [to_uint8(search.image(G.from_features(x, level=search.asked)))[0] for x in (first, features)]
    own = None if marks is None else marks.cpu()
    return Projection(target, z.cpu(), own, features.cpu(), level, made[0], made[1], seed, digest(G))


class _Search:
    """One search.

    Args:
        G, target, level, num_steps, progress, watch: As `project` takes them.
    """

    def __init__(
        self,
        G: Generator,
        target: NDArray[np.uint8],
        level: int,
        num_steps: int,
        progress: Progress,
        watch: Watch | None,
    ) -> None:
        self.G, self.level, self._total = G, level, num_steps
        self.asked = None if level == G.level else level
        self._target_pixels, self._progress, self._watch, self._done = target, progress, watch, 0
        self._weight = next(G.parameters())
        self._target = to_float(target[None]).to(self._weight)
        # Levels at which `pyr_down` has an even side of 4 at least.
        self._bands, side = 1, self._target.shape[2:]
        while all(n % 2 == 0 and n >= 8 for n in side):
            self._bands, side = self._bands + 1, torch.Size([n // 2 for n in side])
        self._pyramid = laplacian_pyramid(self._target, self._bands)

    def image(self, made: Tensor) -> Tensor:
        """Return images as they are compared; raises DataError if they are not finite."""
        if not bool(torch.isfinite(made).all()):
            raise DataError("the generator makes values that are not finite; use an earlier one")
        return made

    def shown(self, images: Tensor) -> Tensor:
        """Return images that differ from the target by what can be seen: white is white."""
        high = torch.where(self._target >= 1, images.clamp(max=1), images)
        return torch.where(self._target <= -1, high.clamp(min=-1), high)

    def distance(self, images: Tensor) -> Tensor:
        """Return the distance of each image from the target: [N]."""
        bands = zip(laplacian_pyramid(self.shown(images), self._bands), self._pyramid, strict=True)
        return torch.stack([(ours - theirs).square().mean(dim=(1, 2, 3)) for ours, theirs in bands]).sum(
            dim=0
        )

    def starts(self, seed: int, label: Label | None) -> tuple[Tensor, Tensor | None]:
        """Return the most promising of random latents, and their labels."""
        best: list[tuple[float, Tensor, Tensor | None]] = []
        batch = min(POOL, batch_size_for(self.G, self.level))
        for first in range(0, POOL if self.level < 7 else POOL // 8, batch):
            z = latents(seed, first, batch, self.G.latent_size)
            given = None if label is None else label_vector(self.G, label).expand(batch, -1)
            marks = label_vectors(self.G, None, seed, first, batch) if given is None else given
            with torch.no_grad():
                far = self.distance(self.image(self._make(z, marks))).tolist()
            found = [(far[i], z[i], None if marks is None else marks[i]) for i in range(batch)]
            best = sorted([*best, *found], key=lambda item: item[0])[:STARTS]
        marks = None if best[0][2] is None else torch.stack([row for _, _, row in best if row is not None])
        z = torch.stack([row for _, row, _ in best])
        return z.to(self._weight), None if marks is None else marks.to(self._weight)

    def joined(self, z: Tensor, marks: Tensor) -> Tensor:
        """Return latents with their labels as more numbers of them."""
        return torch.cat([z, marks], dim=1)

    def parted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `joined` has joined."""
        return z[:, : self.G.latent_size], z[:, self.G.latent_size :]

    def improve(self, z: Tensor, marks: Tensor | None, steps: int) -> tuple[Tensor, Tensor | None]:
        """Improve latents together; return the best one and its label."""
        z = z.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=_LEARNING_RATE)
        far = torch.zeros(len(z))
        for step in range(steps):
            # It rises at once and falls to 0 over the last third.
            share = step / max(steps, 1)
            optimizer.param_groups[0]["lr"] = _LEARNING_RATE * min(1.0, (1 - share) * 3)
            images = self.image(self._make(z, marks))
            far = self.distance(images)
            z.grad = torch.autograd.grad(far.sum(), z)[0]
            optimizer.step()
            if step % _PATIENCE == 0:
                self._look(images[far.argmin()], "searching", step)
        best = int(far.argmin())
        self._done = steps
        return z[best : best + 1].detach(), None if marks is None else marks[best : best + 1]

    def latent(self, z: Tensor, marks: Tensor | None, until: int) -> Tensor:
        """Return the latent that makes the nearest picture around here."""
        return self._descend(z, until, lambda x: self._make(x, marks), "latent", lambda _: 0.0)

    def features(self, first: Tensor, until: int) -> Tensor:
        """Return features near the first that make a nearer picture."""

        def make(x: Tensor) -> Tensor:
            return self.G.from_features(x, level=self.asked)

        return self._descend(first, until, make, "features", lambda x: _PULL * (x - first).square().mean())

    def _descend(
        self,
        start: Tensor,
        until: int,
        make: Callable[[Tensor], Tensor],
        what: str,
        penalty: Callable[[Tensor], Tensor | float],
    ) -> Tensor:
        """Go down the mean square error of pixels by L-BFGS, until so many steps in all are done."""
        x = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        # Its tolerances are for sums of about 1; here differences of 1 / 255 are to count.
        optimizer = torch.optim.LBFGS(
            [x], max_iter=_PATIENCE, max_eval=2 * _PATIENCE, history_size=20, tolerance_grad=0,
            tolerance_change=0, line_search_fn="strong_wolfe",
        )  # fmt: skip
        best, lowest, nearest = x.detach().clone(), float("inf"), self._target[0]
        begun = self._done

        def closure() -> float:
            nonlocal best, lowest, nearest
            images = self.image(make(x))
            loss = (self.shown(images) - self._target).square().mean() + penalty(x)
            x.grad = torch.autograd.grad(loss * 1e3, x)[0].contiguous()
            value = loss.item()
            if value < lowest:
                best, lowest, nearest = x.detach().clone(), value, images.detach()[0]
            self._done += 1
            return value * 1e3

        while self._done < until:
            before = lowest
            optimizer.step(closure)  # type: ignore[no-untyped-call]
            self._look(nearest, what, self._done)
            if lowest >= before * (1 - 1e-5) and self._done > begun + _PATIENCE:
                break  # it does not get any nearer
        self._done = until
        return best

    def _make(self, z: Tensor, marks: Tensor | None) -> Tensor:
        if marks is None and self.G.label_size:
            z, marks = self.parted(z)
        sent = [rows.to(self._weight) for rows in (z, marks) if rows is not None]
        made: Tensor = self.G(*sent, level=self.asked)
        return made

    def _look(self, image: Tensor, what: str, done: int) -> None:
        """Tell how far it is."""
        pixels = to_uint8(image[None])[0]
        self._progress(
            f"{what}, {psnr(pixels, self._target_pixels):.1f} dB", min(done, self._total), self._total
        )
        if self._watch is not None:
            self._watch(pixels, what, psnr(pixels, self._target_pixels))


def describe(projection: Projection, G: Generator) -> str:
    """Say in a sentence how near the search came."""
    size = format_resolution(G.resolution(projection.level))
    label = ""
    if projection.label is not None and G.label_form == "class":
        weights = projection.label[0].tolist()
        order = sorted(range(len(weights)), key=lambda i: -abs(weights[i]))[:3]
        names = [G.label_names[i] if G.label_names else f"class {i}" for i in order]
        parts = [
            f"{weights[i]:.2g} {name}" for i, name in zip(order, names, strict=True) if abs(weights[i]) > 0.1
        ]
        label = f", as {names[0]}" if max(weights) == sum(weights) == 1 else f", as {', '.join(parts)}"
    return (
        f"at {size}{label}: the latent makes it to {projection.latent_psnr:.1f} dB, features to "
        f"{projection.feature_psnr:.1f} dB"
    )


def save_projection(
    G: Generator,
    target: NDArray[np.uint8],
    outdir: Path,
    *,
    save_video: bool = False,
    progress: Progress = unheard,
    **how: Any,
) -> Projection:
    """Search as `project` does, and write what comes of it into a folder.

    Args:
        G, target, progress: As `project` takes them.
        outdir: Gets `projected.npz` (`z`, `labels`, `features`), `projected.png` (the target and both
            pictures side by side), and `projected.mp4`, if asked for.
        save_video: Write the film of the search, which needs the extra `video`.
        how: Other arguments of `project`.

    Raises:
        ConfigError, DataError, DependencyError: as `project`, or if ffmpeg is missing.
        StorageError: if something cannot be written.
    """
    frames: list[Image.Image] = []
    film = outdir / "projected.mp4"

    def sheet(*images: NDArray[np.uint8], names: tuple[str, ...]) -> Image.Image:
        pictures = on_white(np.stack(images))
        factor = grid_factor(pictures.shape[2:]) * (2 if pictures.shape[2] < _SMALL else 1)
        return grid_picture(enlarge(pictures, factor), len(images), names)

    def watch(image: NDArray[np.uint8], what: str, near: float) -> None:
        frames.append(even(sheet(target, image, names=("target", f"{what} {near:.1f} dB"))))

    if save_video:
        check_form(film, 1, _FPS, (256, 256))
    found = project(G, target, progress=progress, watch=watch if save_video else None, **how)
    found.save(outdir / "projected.npz")
    names = ("target", f"latent {found.latent_psnr:.1f} dB", f"features {found.feature_psnr:.1f} dB")
    with atomic_path(outdir / "projected.png") as temporary:
        sheet(target, found.latent_image, found.feature_image, names=names).save(temporary)
    if save_video:
        held = frames + [frames[-1]] * _FPS  # the end stays for a second
        write_film(
            film, iter(held), len(held), _FPS, few=lambda: held[:: max(len(held) // 8, 1)], smooth=False
        )
    return found
