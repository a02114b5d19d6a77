"""Each loss against a loop over its formula, and against pytorch-metric-learning."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nearsight.errors import InvalidParameterError  # noqa: E402
from nearsight.training.losses import LOSSES, loss, loss_facts  # noqa: E402

DIM, N_CLASSES = 6, 5


@pytest.fixture(params=range(3))
def batch(request):
    """Vectors of any length, and their classes: one has a single vector, one has none."""
    rng = np.random.default_rng(request.param)
    X = rng.normal(size=(12, DIM)) * rng.uniform(0.1, 5, (12, 1))
    y = np.array([0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 3])
    return X, y


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def softmax_loop(X, y, proxies):
    values = []
    for x, own in zip(unit(X), y, strict=True):
        logits = [float(x @ p) / 0.05 for p in unit(proxies)]
        values.append(math.log(sum(map(math.exp, logits))) - logits[own])
    return np.mean(values)


def arcface_loop(X, y, proxies, margin=0.3, scale=20.0):
    values = []
    for x, own in zip(unit(X), y, strict=True):
        cosines = [float(x @ p) for p in unit(proxies)]
        angle = math.acos(cosines[own])
        if angle <= math.pi - margin:
            cosines[own] = math.cos(angle + margin)
        else:
            cosines[own] -= margin * math.sin(margin)
        values.append(
            math.log(sum(math.exp(scale * c) for c in cosines)) - scale * cosines[own],
        )
    return np.mean(values)


def proxy_anchor_loop(X, y, proxies, margin=0.1, alpha=32.0):
    attraction, repulsion = [], []
    for number, proxy in enumerate(unit(proxies)):
        cosines = unit(X) @ proxy
        if (y == number).any():
            attraction.append(math.log1p(np.exp(-alpha * (cosines[y == number] - margin)).sum()))
        repulsion.append(math.log1p(np.exp(alpha * (cosines[y != number] + margin)).sum()))
    return np.mean(attraction) + np.mean(repulsion)


def supcon_loop(X, y, proxies):
    values = []
    for i, x in enumerate(unit(X)):
        others = [j for j in range(len(y)) if j != i]
        below = math.log(sum(math.exp(float(x @ unit(X)[j]) / 0.1) for j in others))
        alike = [j for j in others if y[j] == y[i]]
        if alike:
            values.append(np.mean([below - float(x @ unit(X)[j]) / 0.1 for j in alike]))
    return np.mean(values)


LOOPS = {
    "softmax": softmax_loop,
    "supcon": supcon_loop,
    "arcface": arcface_loop,
    "proxy-anchor": proxy_anchor_loop,
}


def made(name):
    torch.manual_seed(3)
    return loss(name, N_CLASSES, DIM).double()


def proxies_of(module):
    return module.proxies.detach().numpy() if hasattr(module, "proxies") else None


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name, batch):
    X, y = batch
    module = made(name)
    value = module(torch.from_numpy(X), torch.from_numpy(y)).item()
    assert value == pytest.approx(LOOPS[name](X, y, proxies_of(module)), rel=1e-9)
    assert loss_facts(name).has_proxies == (proxies_of(module) is not None)


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_along_the_gradient_lowers_the_loss(name, batch):
    X, y = torch.from_numpy(batch[0]).requires_grad_(), torch.from_numpy(batch[1])
    module = made(name)
    before = module(X, y)
    before.backward()
    assert torch.isfinite(X.grad).all()
    assert module(X.detach() - 1e-4 * X.grad, y) < before


@pytest.mark.parametrize("name", LOSSES)
def test_equal_and_opposite_vectors_have_finite_gradients(name):
    module = made(name)
    own = module.proxies.detach()[0] if hasattr(module, "proxies") else torch.ones(DIM).double()
    X = torch.stack([own, own, -own, -own]).requires_grad_()
    module(X, torch.tensor([0, 0, 0, 1])).backward()
    assert torch.isfinite(X.grad).all()


def test_vectors_without_a_partner_give_no_contrast():
    X = torch.randn(4, DIM).requires_grad_()
    value = made("supcon")(X, torch.arange(4))
    value.backward()
    assert value.item() == 0
    assert not X.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_agrees_with_pytorch_metric_learning(name, batch):
    reference = pytest.importorskip("pytorch_metric_learning.losses")
    X, y = (torch.from_numpy(part) for part in batch)
    module = made(name)
    theirs = {
        "softmax": lambda: reference.NormalizedSoftmaxLoss(N_CLASSES, DIM, temperature=0.05),
        "supcon": lambda: reference.SupConLoss(temperature=0.1),
        "arcface": lambda: reference.ArcFaceLoss(N_CLASSES, DIM, margin=math.degrees(0.3), scale=20),
        "proxy-anchor": lambda: reference.ProxyAnchorLoss(N_CLASSES, DIM, margin=0.1, alpha=32),
    }[name]()
    if name == "proxy-anchor":
        theirs.proxies.data = module.proxies.detach()
    elif name != "supcon":
        theirs.W.data = module.proxies.detach().T.contiguous()
    assert module(X, y).item() == pytest.approx(theirs(X, y).item(), rel=1e-6)


def test_an_unknown_loss_names_the_others():
    with pytest.raises(InvalidParameterError, match="'triplet'; it must be one of softmax, supcon"):
        loss_facts("triplet")
