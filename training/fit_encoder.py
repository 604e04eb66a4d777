"""The encoder of a supervised run: built, given a bundle's weights where there are any, and a memory behind it."""

from __future__ import annotations

from collections.abc import Sequence

from ..encoders import make_encoder, with_memory
from ..encoders.base import Encoder
from ..envs.errors import SpecError, UserError
from ..envs.spec import ObservationSpec
from .bundle import load_bundle, locate
from .fit_plan import FitPlan
from .known_words import VOCABULARY_FILE, take_words


def first_encoder(plan: FitPlan, spec: ObservationSpec, *, weights: bool = True, words: Sequence[str] = ()) -> Encoder:
    """The plan's encoder for observations of `spec`, as a run begins with it.

    Args:
        weights: take the bundle's, where there is one; False: a checkpoint will.
        words: what the tokens stand for, where they are words: word vectors go to the same words.

    Raises:
        SpecError: it cannot read such observations, or the bundle's encoder reads others.
        UserError: the bundle's weights are those of other settings, or what is to stand behind it is no memory.
    """
    encoder = make_encoder(plan.encoder, spec, plan.encoder_config)
    if weights and takes_weights(plan):
        _take_weights(encoder, plan, spec, words)
    return encoder if plan.memory is None else with_memory(encoder, plan.memory, plan.memory_config)


def takes_weights(plan: FitPlan) -> bool:
    """Whether the encoder begins with a bundle's weights."""
    return plan.bundle is not None and plan.run.encoder_mode != "scratch"


def _take_weights(encoder: Encoder, plan: FitPlan, spec: ObservationSpec, words: Sequence[str]) -> None:
    """Give `encoder` the weights of the plan's bundle.

    Raises:
        SpecError: the bundle's encoder reads something else than `spec`.
        UserError: the weights are those of other settings.
    """
    assert plan.bundle is not None
    trained = load_bundle(plan.bundle)
    folder = locate(plan.bundle)
    has_words = bool(words) and (folder / VOCABULARY_FILE).exists()
    if not has_words and (trained.spec.shape, trained.spec.dtype, trained.spec.vocabulary) != (
        spec.shape,
        spec.dtype,
        spec.vocabulary,
    ):
        raise SpecError(
            f"the encoder in {plan.bundle} was trained on {trained.spec.describe()}, but {plan.task} holds "
            f"{spec.describe()}; take a bundle that was trained on such data"
        )
    try:
        if has_words:
            take_words(encoder, words, trained.encoder, folder)
        else:
            encoder.load_state_dict(trained.encoder.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"the weights in {plan.bundle} do not fit the options --encoder.*, leave them out: {error}"
        ) from None
