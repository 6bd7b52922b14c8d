"""The recurrence: its formulas by hand, its two latents, how far one step can see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganglion.nets.mixer import Mixer
from ganglion.nets.mixing import Attention, PositionMlp, turned
from ganglion.nets.recurrence import Entered, Form, HardGate, PostNorm, Recurrence, unit


def built(**changes: Any) -> Recurrence:
    torch.manual_seed(0)
    return Recurrence(Form(**{"width": 8, "sides": (5, 6), **changes}), 2)


def observed(net: Recurrence, height: int = 5, wide: int = 6) -> tuple[Tensor, Entered]:
    x = torch.randn(2, 2, height, wide, generator=torch.Generator().manual_seed(1))
    return x, net.enter(x)


def test_a_step_of_the_hard_gate_is_its_formula() -> None:
    layer = HardGate(Form(width=1, expansion=1))
    with torch.no_grad():
        for weight, value in ((layer.gate.weight, 3.0), (layer.candidate.weight, 0.5)):
            weight.fill_(value)
        layer.mix.conv.weight.zero_()
        layer.mix.conv.weight[0, 0, 1, 1] = 2.0  # the position itself
    z, entered = torch.full((1, 1, 1, 1), 0.25), torch.full((1, 1, 1, 1), 0.5)
    # a = relu(2 * .25 + .5) = 1; gate = 3 * 1 - 1 = 2, hardsigmoid = 2/6 + .5 = 5/6; c = .5
    # z + 5/6 (.5 - .25) = .25 + .2083 = .4583
    assert layer(z, None, entered).item() == pytest.approx(0.25 + 5 / 6 * 0.25)
    # with the other latent: a = relu(2 * (.25 - .5) + .5) = 0; gate -1 -> 1/3, c = 0
    found = layer(z, torch.full_like(z, -0.5), entered)
    assert found.item() == pytest.approx(0.25 - 0.25 / 3)


def test_what_a_shut_gate_keeps_is_kept_to_the_last_bit() -> None:
    layer = HardGate(Form(width=4))
    with torch.no_grad():
        layer.gate.bias.fill_(-1e3)
    z = torch.rand(1, 4, 3, 3)
    assert torch.equal(layer(z, None, torch.randn(1, 8, 3, 3)), z)


def test_post_norm_leaves_channels_of_unit_size() -> None:
    z = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    # mean square (9 + 16) / 2 = 12.5
    assert unit(z).flatten().tolist() == pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5])
    layer = PostNorm(Form(width=8, update="post_norm"))
    out = layer(torch.randn(2, 8, 4, 4), None, None)
    torch.testing.assert_close(out.pow(2).mean(1), torch.ones(2, 4, 4), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("mixing", ["conv", "mlp", "attention"])
@pytest.mark.parametrize(("latents", "depth"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_positions_that_are_shut_stay_at_zero_to_the_last_bit(
    mixing: str, latents: int, depth: int
) -> None:
    net = built(mixing=mixing, latents=latents, depth=depth, heads=2)
    x, _ = observed(net)
    taking_part = torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(2)) < 0.5
    z, entered = net.initial(x), net.enter(x, taking_part)
    for _ in range(4):
        z = net(z, entered)
    for latent in z:
        assert bool((latent * ~taking_part == 0.0).all())
        assert bool((latent.abs().amax(1, keepdim=True) > 0.0)[taking_part].all())


def test_a_shut_position_is_to_its_neighbours_what_lies_beyond_the_border() -> None:
    net = built(width=16)
    x = torch.randn(1, 2, 5, 6)
    wider = nn.functional.pad(x, (2, 1, 1, 3))
    taking_part = nn.functional.pad(torch.ones(1, 1, 5, 6), (2, 1, 1, 3)) > 0
    inner, outer = net.initial(x), net.initial(wider)
    for _ in range(6):
        inner = net(inner, net.enter(x))
        outer = net(outer, net.enter(wider, taking_part))
    torch.testing.assert_close(outer[0][:, :, 1:6, 2:8], inner[0], atol=1e-5, rtol=0.0)


class Recording(nn.Module):
    """A layer that notes what it is given and adds one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, float | None, bool]] = []

    def forward(self, z: Tensor, other: Tensor | None, entered: Tensor | None) -> Tensor:
        told = None if other is None else other.max().item()
        self.seen.append((z.max().item(), told, entered is not None))
        return z + 1.0


def test_the_fast_latent_moves_n_times_then_the_slow_one_without_the_observation() -> None:
    net = built(latents=2, inner=3)
    layer = Recording()
    net.layers = nn.ModuleList([layer])
    x, entered = observed(net)
    slow, fast = net(net.initial(x), entered)
    assert layer.seen == [(0.0, 0.0, True), (1.0, 0.0, True), (2.0, 0.0, True), (0.0, 3.0, False)]
    assert (slow.max().item(), fast.max().item()) == (1.0, 3.0)


def test_one_latent_moves_n_times_and_only_the_first_layer_is_told() -> None:
    net = built(inner=2, depth=2)
    layers = [Recording(), Recording()]
    net.layers = nn.ModuleList(layers)
    x, entered = observed(net)
    net(net.initial(x), entered)
    assert [told for _, _, told in layers[0].seen] == [True, True]
    assert [told for _, _, told in layers[1].seen] == [False, False]


@pytest.mark.parametrize("cycles", [1, 3])
def test_a_convolution_carries_news_one_position_an_application(cycles: int) -> None:
    net = built(width=16)
    x = torch.zeros(1, 2, 15, 15)
    other = x.clone()
    other[0, :, 7, 7] = 1.0
    answers = []
    for given in (x, other):
        latents, entered = net.initial(given), net.enter(given)
        for _ in range(cycles):
            latents = net(latents, entered)
        answers.append(latents[0])
    rows, columns = torch.nonzero((answers[0] != answers[1]).any(1)[0], as_tuple=True)
    reach = int(torch.maximum((rows - 7).abs(), (columns - 7).abs()).max())
    assert reach == cycles  # 1 by the entry, and 1 for each application but the first


@pytest.mark.parametrize("update", ["hard_gate", "post_norm"])
@pytest.mark.parametrize("mixing", ["conv", "mlp", "attention"])
@pytest.mark.parametrize("latents", [1, 2])
def test_every_kind_runs_and_every_parameter_learns(update: str, mixing: str, latents: int) -> None:
    positions = "rotary" if mixing == "attention" else "none"
    net = built(update=update, mixing=mixing, latents=latents, heads=2, positions=positions)
    x, entered = observed(net)
    z = net(net(net.initial(x), entered), entered)
    assert len(z) == latents
    assert z[0].shape == (2, 8, 5, 6)
    z[0].pow(3).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_learned_positions_tell_equal_places_apart() -> None:
    x = torch.ones(1, 2, 5, 6)
    for positions, differs in (("learned", True), ("none", False)):
        net = built(mixing="attention", heads=2, positions=positions)
        z = net(net.initial(x), net.enter(x))[0]
        assert (z.std((2, 3)).max().item() > 1e-4) == differs


def test_rotary_products_depend_on_the_difference_of_places_only() -> None:
    q, k = torch.randn(2, 1, 4).unbind()

    def product(first: float, second: float) -> float:
        angles = torch.tensor([[1.0, 0.1]])
        return float((turned(q, first * angles) * turned(k, second * angles)).sum())

    assert product(5.0, 2.0) == pytest.approx(product(13.0, 10.0), abs=1e-5)
    assert product(5.0, 2.0) != pytest.approx(product(5.0, 4.0), abs=1e-3)


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="mixing=mlp serves planes of one size"):
        built(mixing="mlp", sides=None)
    with pytest.raises(ValueError, match="positions=learned serve planes of one size"):
        built(mixing="attention", heads=2, positions="learned", sides=None)
    with pytest.raises(ValueError, match="a multiple of 4 x heads = 16"):
        Attention(24, 24, heads=4, rotary=True)
    with pytest.raises(ValueError, match="latents is 3"):
        built(latents=3)


def test_the_perceptron_over_positions_reaches_all_of_them() -> None:
    mix = PositionMlp(4, 4, (3, 3), 2)
    z = torch.randn(1, 4, 3, 3)
    other = z.clone()
    other[0, :, 0, 0] += 1.0
    assert bool(((mix(z) != mix(other)).all(1)).all())


def test_the_mixer_knows_where_a_token_stands() -> None:
    torch.manual_seed(0)
    mixer = Mixer(vocabulary=5, tokens=6, width=8, depth=2, classes=3, dropout=0.0)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0]])
    assert not torch.allclose(mixer(tokens), mixer(tokens.flip(1)), atol=1e-4)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    mixer = Mixer(vocabulary=5, tokens=6, width=8, depth=1, classes=3, dropout=0.5)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0]])
    assert not torch.equal(mixer(tokens), mixer(tokens))
    mixer.eval()
    assert torch.equal(mixer(tokens), mixer(tokens))
