"""Up-down fine-tuning of a deep belief net: its losses against sums by hand, and exact log-likelihoods, which rise."""

from __future__ import annotations

import itertools

import pytest
import torch
from bars import bars, scrambled
from saccade.agents.parts.optimisers import Optimisers
from saccade.encoders import dbn
from saccade.encoders.dbn import Config, Dbn
from saccade.encoders.drbm import Drbm
from saccade.encoders.parts.gibbs import free_energy
from saccade.encoders.parts.labelled import joint_free_energy
from saccade.encoders.parts.up_down import Generative, draw_below, up_down_losses
from saccade.envs.errors import SpecError, UserError
from saccade.envs.spec import ObservationSpec
from torch import Tensor

SMALL = ObservationSpec((1, 4, 4), "uint8", 0.0, 255.0)


def make(**settings: object) -> Dbn:
    torch.manual_seed(0)
    return dbn.build(Config(**{"hidden": (8, 6), "up_down": 1.0, "gain": 100.0, **settings}), SMALL).train()  # type: ignore[arg-type]


def exact(learner: Dbn, x: Tensor) -> Tensor:
    """log p(x), by the sum over all states of the only layer between x and the highest."""
    h = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)))
    top = learner.top
    if isinstance(top, Drbm):
        prior = (-joint_free_energy(top.labelled(), h)).logsumexp(1).log_softmax(0)
    else:
        prior = (-free_energy(top.machine(), h)).log_softmax(0)
    p = learner._down(0, h).flatten(1).clamp(1e-6, 1 - 1e-6)
    v = x.flatten(1).float() / 255
    return (prior + v @ p.log().T + (1 - v) @ (1 - p).log().T).logsumexp(1).detach()


def test_losses_are_the_surprise_at_what_was_drawn():
    """With weights so large that all draws are certain, all of it can be written down."""
    up = torch.tensor([[40.0, -40], [-40, 40.0]])
    down = Generative((2, 2))
    with torch.no_grad():
        down.weights[0].copy_(torch.tensor([[40.0, 0], [0, 40.0]]))
        down.biases[0].fill_(-20)
    v = torch.tensor([[1.0, 0]])
    seen = []

    def swapped(h: Tensor) -> Tensor:
        seen.append(h.clone())
        return h.flip(1)

    found = up_down_losses([(up, torch.zeros(2))], down, v, swapped)
    assert torch.equal(found["top"], torch.tensor([[1.0, 0]]))
    assert torch.equal(seen[0], found["top"])  # the sleep phase begins at [[0, 1]], whose means below are [[0, 1]]
    torch.testing.assert_close(found["generative"], torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["recognition"], torch.zeros(1), atol=1e-6, rtol=0)
    with torch.no_grad():
        down.biases[0].copy_(torch.tensor([-20.0, 0.0]))  # now the second pixel is fair, whatever is above
        down.weights[0][:, 1] = 0
    found = up_down_losses([(torch.zeros(2, 2), torch.tensor([40.0, -40]))], down, v, lambda h: 1 - h)
    torch.testing.assert_close(found["generative"], torch.tensor([2.0]).log(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["recognition"], torch.tensor([80.0]), atol=1e-3, rtol=0)


def test_ways_part_only_where_they_may():
    """Gradients of the way down come from the wake phase, those of the way up from the sleep phase, the top's from its
    own rule; before, the way down is the layers' own."""
    learner, x = make(hidden=(8, 7, 6)), bars()
    scrambled(learner)
    before = learner.decode(learner.read(x)).detach()
    learner.untie()
    torch.testing.assert_close(learner.decode(learner.read(x)), before)
    losses = learner.stages()[-1].loss({"x": x})
    assert list(losses) == ["generative", "recognition", "top_reconstruction"]
    assert losses["generative"].shape == losses["recognition"].shape == (8,)
    reached = {}
    for name, loss in losses.items():
        learner.zero_grad()
        loss.sum().backward()
        reached[name] = {n for n, p in learner.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    ways = [f"{kind}.{number}" for kind in ("weights", "biases") for number in (0, 1)]
    assert reached["generative"] == {f"generative.{way}" for way in ways}
    assert reached["recognition"] == {f"layer_list.{n}.{part}" for n in (0, 1) for part in ("weight", "hidden_bias")}
    parts = ("weight", "visible_bias", "hidden_bias")
    assert reached["top_reconstruction"] == {f"layer_list.2.{part}" for part in parts}


@pytest.mark.parametrize("labels", [0, 2])
def test_log_likelihood_rises(labels: int):
    """Exactly, by enumeration; the best is log 1/8 = -2.1, fair bits have -11.1."""
    learner, x = make(labels=labels, steps=3), bars()
    label = torch.tensor([0] * 4 + [1] * 4)
    for stage in learner.stages():
        if stage.name == "up and down":
            greedy = learner._down(0, torch.ones(1, 8)).detach()
            torch.testing.assert_close(greedy, learner.layers[0].decode(torch.ones(1, 8)).detach())
            before = exact(learner, x).mean()
        with torch.no_grad():
            data = stage.input(x) if stage.input else x
        optimisers, updates = Optimisers([], learner, learning_rate=1e-3), 1500 if stage.name == "up and down" else 300
        for number in range(updates):
            optimisers.scale_learning_rate(1 - number / updates)
            batch = {"x": data, "label": label} if labels else {"x": data}
            optimisers.step(torch.stack([loss.mean() for loss in stage.loss(batch).values()]).sum())
        if stage.finish is not None:
            stage.finish()
    assert not torch.allclose(learner.generative.weights[0], learner.layers[0].weight, atol=0.1)  # type: ignore[union-attr]
    after = exact(learner, x).mean()
    assert after > before + 1
    fresh = make(labels=labels)
    fresh.load_state_dict(learner.state_dict())
    torch.testing.assert_close(fresh.reconstruct(x), learner.reconstruct(x))


def test_sleep_begins_at_the_labels_that_are_given():
    learner = make(labels=2)
    with torch.no_grad():  # both label units force the bits below, each in its own way
        top = learner.top
        top.weight.zero_()
        top.weight[0], top.weight[1] = 30, -30
        top.label_weight.copy_(torch.tensor([[30.0, -30], [-30, 30], *[[0.0, 0]] * 4]))  # type: ignore[operator]
    label = torch.tensor([0, 1, 1, 0])
    found = draw_below(top, torch.zeros(4, 8), label, 1)
    assert torch.equal(found, (1 - label).float().unsqueeze(1).expand(4, 8))


def test_without_it_nothing_is_new():
    assert not {"untied", "generative"} & {name.split(".")[0] for name in make(up_down=0.0).state_dict()}
    for settings in ({"unroll": 1.0}, {"code": "gaussian"}, {"hidden": (5,)}, {"up_down": -1.0}):
        with pytest.raises(UserError, match="up_down"):
            make(**settings)
    with pytest.raises(SpecError, match="bits"):
        dbn.build(Config(up_down=1.0), ObservationSpec((3,)))
