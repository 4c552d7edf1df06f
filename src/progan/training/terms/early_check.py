"""What a loss or penalty of one's own lacks, found before the first step with scores of no meaning."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import torch
from torch import Tensor

from progan.config import Part
from progan.errors import ConfigError
from progan.training.spec import ImageSpec
from progan.training.terms.kinds import AdversarialLoss, Penalty, Seen, Verdict

N = 8
"""Samples that are tried."""
LATENTS = 16
"""Length of the latents that are tried."""

Samples = dict[str, Tensor]
"""What a term is computed of, by name: [N, ...] each."""
Term = Callable[[Samples], Tensor | None]


def require_sound(
    terms: Iterable[AdversarialLoss | Penalty], own: Collection[type[Part]], image: ImageSpec
) -> None:
    """Try each part of one's own as training will use it.

    A term must be a tensor of one finite number a sample, follow the images or scores, be the same each time,
    and, as batches are computed in parts and by several processes, depend on its own sample alone.

    Args:
        terms: What will be minimised.
        own: The classes of one's own among theirs.
        image: Shapes of the pictures.

    Raises:
        ConfigError: naming the part, its method, and what is wrong with it.
    """
    for part in terms:
        if type(part) not in own:
            continue
        if isinstance(part, Penalty):
            _try_penalty(part, _samples(image), image)
        else:
            _try_loss(part, _samples(image))


def _try_loss(loss: AdversarialLoss, samples: Samples) -> None:
    paired = loss.facts.paired
    _try(
        loss,
        "discriminator",
        lambda s: loss.discriminator(s["real_scores"], s["fake_scores"]),
        samples,
        needed=True,
    )
    _try(
        loss,
        "generator",
        lambda s: loss.generator(s["fake_scores"], s["real_scores"] if paired else None),
        samples,
        needed=True,
    )
    if loss.facts.mirrored and not _is_mirrored(loss, samples):
        raise ConfigError(
            f"{_named(loss)}: its facts say mirrored, but generator does not change with the scores of fakes "
            f"as discriminator does, with the other sign; leave mirrored out"
        )


def _is_mirrored(loss: AdversarialLoss, samples: Samples) -> bool:
    real, fake = samples["real_scores"], samples["fake_scores"]
    of_d = loss.discriminator(real, fake).sum()
    of_g = loss.generator(fake, real if loss.facts.paired else None).sum()
    slopes = [torch.autograd.grad(of, fake, allow_unused=True)[0] for of in (of_d, of_g)]
    return all(slope is not None for slope in slopes) and torch.allclose(slopes[0], -slopes[1])


def _try_penalty(penalty: Penalty, samples: Samples, image: ImageSpec) -> None:
    def discriminator(s: Samples) -> Tensor | None:
        return penalty.discriminator(_seen(s, penalty, image, of_d=True))

    def generator(s: Samples) -> Tensor | None:
        return penalty.generator(_seen(s, penalty, image, of_d=False))

    found = [
        _try(penalty, "discriminator", discriminator, samples, needed=False),
        _try(penalty, "generator", generator, samples, needed=False),
    ]
    if not any(found):
        raise ConfigError(f"{_named(penalty)}: neither discriminator nor generator returns a term")


def _try(part: Part, method: str, term: Term, samples: Samples, *, needed: bool) -> bool:
    """Try a method; return whether it gives a term."""
    where = f"{_named(part)}, {method}"
    whole = _value(part, method, term, samples)
    if whole is None and not needed:
        return False
    if not isinstance(whole, Tensor) or whole.shape != (N,) or not whole.is_floating_point():
        given = f"shape {list(whole.shape)}" if isinstance(whole, Tensor) else type(whole).__name__
        raise ConfigError(
            f"{where}: must return one number a sample, a float tensor of shape [N], not {given}"
        )
    if not bool(whole.isfinite().all()):
        raise ConfigError(f"{where}: returns a number that is not finite")
    if not whole.requires_grad:
        raise ConfigError(f"{where}: does not depend on what the networks make (no gradient reaches them)")
    again = _value(part, method, term, samples)
    if again is None or not torch.equal(whole, again):
        raise ConfigError(
            f"{where}: returns something else the second time. A step has no randomness of its own, or a "
            f"resumed run would differ; take what is random from the latents or from Seen"
        )
    halves = [
        _value(part, method, term, {name: value[i : i + N // 2] for name, value in samples.items()})
        for i in (0, N // 2)
    ]
    parts = [half for half in halves if half is not None]
    if len(parts) < 2 or not torch.allclose(torch.cat(parts), whole, rtol=1e-4, atol=1e-5):
        raise ConfigError(
            f"{where}: the number of a sample changes with the other samples of the batch, so that batches "
            f"computed in parts, or by several processes, would give another update; return one number a "
            f"sample of that sample alone, and no mean over the batch"
        )
    return True


def _value(part: Part, method: str, term: Term, samples: Samples) -> Tensor | None:
    """Call a method; an error in it is told by its line."""
    try:
        return term(samples)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"{_named(part)}, {method}: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}, line {last.lineno})"
        ) from error


def _named(part: Part) -> str:
    return f"{part.chosen_by} {part.name} ({type(part).__qualname__})"


def _samples(image: ImageSpec) -> Samples:
    """Return numbers that are the same each time, without touching PyTorch's own random state."""
    draw = torch.Generator().manual_seed(0)
    shape = (N, image.channels, *image.base_shape)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=draw)

    labels = torch.zeros(N, len(image.label_names))
    if image.label_names:
        labels[:, 0] = 1
    return {
        "real_scores": normal(N).requires_grad_(),
        "fake_scores": normal(N).requires_grad_(),
        "reals": normal(*shape).tanh(),
        "fakes": normal(*shape).tanh().requires_grad_(),
        "squares": normal(N).square().requires_grad_(),
        "labels": labels,
        "latents": normal(N, LATENTS),
    }


def _seen(samples: Samples, penalty: Penalty, image: ImageSpec, *, of_d: bool) -> Seen:
    """Return what a penalty may look at, with a D and a G of a line each."""
    reals, fakes, labels = samples["reals"], samples["fakes"], samples["labels"]
    weight = torch.ones((), requires_grad=True)

    def judge(images: Tensor, labels: Tensor) -> Verdict:
        scores = (weight * images).tanh().flatten(1).sum(1)
        return Verdict(scores, scores[:, None] * labels)

    def generate(latents: Tensor, labels: Tensor) -> Tensor:
        made = (weight * latents.mean(1) + labels.sum(1)).tanh()
        return made[:, None, None, None].expand(-1, image.channels, *image.base_shape)

    between = of_d and penalty.slope == "between"
    return Seen(
        images=fakes,
        fake=None if between else judge(fakes, labels),
        reals=reals if of_d else None,
        real=judge(reals, labels) if of_d and not between else None,
        squares=samples["squares"] if of_d and penalty.slope else None,
        labels=labels,
        label_form=image.label_form,
        latents=samples["latents"],
        judge=judge,
        generate=generate,
    )
