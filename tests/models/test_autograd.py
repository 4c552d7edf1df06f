"""The networks in other people's code: transforms, traces and hooks see PyTorch's own operations."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from progan.models.autograd import is_plain_autograd
from progan.models.discriminator import Discriminator
from progan.models.generator import Generator

SIZES: dict[str, Any] = {"max_level": 1, "fmap_base": 16, "fmap_max": 4}


def networks(**options: Any) -> tuple[Generator, Discriminator, Tensor, Tensor]:
    torch.manual_seed(0)
    G, D = Generator(**SIZES, **options), Discriminator(**SIZES, stddev_group=0)
    z, x = torch.randn(3, G.latent_size), torch.randn(3, 3, 8, 8)
    return G.double(), D.double(), z.double(), x.double()


def test_transforms_see_pytorch() -> None:
    assert is_plain_autograd()
    seen = []

    def see(x: Tensor) -> Tensor:
        seen.append(is_plain_autograd())
        return x

    torch.func.vmap(see)(torch.ones(2))
    with torch.autograd.forward_ad.dual_level():
        seen.append(is_plain_autograd())
    assert seen == [False, False]
    assert is_plain_autograd()


def test_vmap() -> None:
    G, D, z, x = networks()
    torch.testing.assert_close(torch.func.vmap(lambda z: G(z[None])[0])(z), G(z))

    def score(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        scores: Tensor = torch.func.functional_call(D, weights, (x[None],))[0]
        return scores[0]

    weights: dict[str, Tensor] = dict(D.named_parameters())
    gradients = torch.func.vmap(torch.func.grad(score), (None, 0))(weights, x)
    for i in range(len(x)):
        alone = torch.autograd.grad(D(x[i : i + 1])[0].sum(), list(weights.values()), allow_unused=True)
        for name, value in zip(weights, alone, strict=True):
            expected = torch.zeros_like(weights[name]) if value is None else value
            torch.testing.assert_close(gradients[name][i], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, in its use of torch.jit
@pytest.mark.parametrize("forward_mode", [False, True])
def test_forward_mode(forward_mode: bool) -> None:
    G, _, z, _ = networks()
    tangent = torch.randn_like(z)
    if forward_mode:
        with torch.autograd.forward_ad.dual_level():
            images = G(torch.autograd.forward_ad.make_dual(z, tangent))  # type: ignore[no-untyped-call]
            found = torch.autograd.forward_ad.unpack_dual(images).tangent  # type: ignore[no-untyped-call]
    else:
        found = torch.func.jvp(G, (z,), (tangent,))[1]
    jacobian = torch.autograd.functional.jacobian(G, z)  # type: ignore[no-untyped-call]
    assert found is not None
    torch.testing.assert_close(found, torch.einsum("nchwmz,mz->nchw", jacobian, tangent))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traces_hold_no_python() -> None:
    G, D, z, x = networks()
    for network, given in ((G, z), (D, x.requires_grad_())):
        traced, file = torch.jit.trace(network, given), io.BytesIO()  # type: ignore[no-untyped-call]
        torch.jit.save(traced, file)
        file.seek(0)
        again = torch.jit.load(file)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(again(given), network(given))


def layers(network: nn.Module) -> list[nn.Module]:
    """Those that are called as modules, and so call hooks."""
    called: list[nn.Module] = []
    handles = [m.register_forward_hook(lambda m, *_: called.append(m)) for m in network.modules()]
    _, _, z, x = networks()
    network(z if isinstance(network, Generator) else x)
    for handle in handles:
        handle.remove()
    return called


@pytest.mark.parametrize("options", [{}, {"pixel_norm": False, "bias": False}])
@pytest.mark.parametrize("which", ["G", "D"])
def test_hooks_find_what_layers_return(which: str, options: dict[str, Any]) -> None:
    """Activations work in place, but not on what a hook has been given."""
    G, D, z, x = networks(**options)
    network, given = (G, z.requires_grad_()) if which == "G" else (D, x.requires_grad_())

    def run() -> Tensor:
        out = network(given)
        result: Tensor = out if which == "G" else out[0]
        return result

    plain = run()
    kept: list[tuple[Tensor, Tensor]] = []
    slopes: list[object] = []
    watched = [m for m in layers(network) if hasattr(m, "weight")]
    assert len(watched) >= 4
    for module in watched:
        module.register_forward_hook(lambda _m, _i, out: kept.append((out, out.detach().clone())))
        module.register_full_backward_hook(lambda _m, _i, out: slopes.append(out))
    hooked = run()
    assert torch.equal(hooked, plain)
    hooked.sum().backward()  # type: ignore[no-untyped-call]
    assert len(kept) == len(slopes) == len(watched)
    assert all(torch.equal(result, copy) for result, copy in kept)
