"""The layers that a deep belief network is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...envs.spec import ObservationSpec
from .. import drbm, rbm
from .coders import UnitScale
from .stacks import Level, Stack

if TYPE_CHECKING:
    from ..dbn import Config


def make_layers(config: Config, spec: ObservationSpec) -> list[rbm.Rbm | drbm.Drbm]:
    """From the lowest to the highest, which sees labels where the config says so."""
    layers = list[rbm.Rbm | drbm.Drbm]()
    for number, units in enumerate(config.hidden):
        is_top = number + 1 == len(config.hidden)
        if is_top and config.labels:
            layers.append(drbm.build(_labelled(config, units, number), spec))
            break
        visible = config.visible if number == 0 else "bernoulli"
        code = config.code if is_top else "bernoulli"
        bounded = UnitScale(spec).bounded and visible != "gaussian"
        own = rbm.Config(
            hidden=units,
            visible=visible,
            hidden_units=code,
            binarise="none" if number else config.binarise,
            method=config.method,
            steps=config.steps,
            chains=config.chains,
            momentum=config.momentum,
            l2=config.l2,
            gain=config.gain if bounded and code == "bernoulli" else config.linear_gain,
        )
        layers.append(rbm.build(own, spec))
        spec = ObservationSpec((units,), low=0.0, high=1.0)
    return layers


def _labelled(config: Config, units: int, number: int) -> drbm.Config:
    """Of the highest layer, where it sees labels."""
    return drbm.Config(
        hidden=units,
        classes=config.labels,
        discriminative=config.discriminative,
        generative=1.0,
        unlabelled=1.0,
        visible="bernoulli" if number else config.visible,
        binarise="none" if number else config.binarise,
        steps=config.steps,
        l2=config.l2,
        features="input",
    )


def unrolled(config: Config, spec: ObservationSpec) -> Stack:
    """The autoencoder that the layers are unrolled into, before it is given their weights."""
    sizes, last = (spec.size, *config.hidden), len(config.hidden) - 1
    linear = config.code == "gaussian"
    return Stack(
        [
            Level(sizes[number], units, "linear" if linear and number == last else "sigmoid")
            for number, units in enumerate(config.hidden)
        ]
    )
