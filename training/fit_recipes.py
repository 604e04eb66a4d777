"""Settings that work, for one task and one encoder: the defaults of `saccade fit`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Settings for one encoder on one data set."""

    run: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    encoder_config: dict[str, Any] = field(default_factory=dict)
    task_options: dict[str, Any] = field(default_factory=dict)


RECIPES: dict[tuple[str, str], Recipe] = {
    # logistic regression and the MLP 784-256-256-10 of the founding material, with a rate that falls
    ("mnist", "flat"): Recipe(
        {
            "epochs": 20,
            "batch_size": 200,
            "optimizer": "sgd",
            "learning_rate": 0.2,
            "schedule": "cosine",
            "precision": "float32",
        }
    ),
    ("mnist", "mlp"): Recipe(
        {"epochs": 20, "schedule": "onecycle", "learning_rate": 2e-3}, encoder_config={"hidden": (256, 256)}
    ),
    ("mnist", "convnet"): Recipe({"epochs": 10, "schedule": "onecycle"}),
    ("cifar10", "convnet"): Recipe(
        {"epochs": 12, "batch_size": 128, "schedule": "onecycle", "weight_decay": 5e-4, "optimizer": "adamw"},
        {"flip": True, "crop": 24, "brightness": 0.25, "contrast": 0.5},
        {"channels": (64, 64), "dense": (384, 192), "dropout": 0.0, "crop": 24},
    ),
    ("mnist", "fastconv"): Recipe(
        {
            "epochs": 8,
            "batch_size": 128,
            "optimizer": "nesterov",
            "learning_rate": 0.1,
            "schedule": "onecycle",
            "weight_decay": 5e-4,
            "label_smoothing": 0.1,
            "average": 0.95,
        },
        {"rotate": 10.0, "scale": 0.1, "shear": 0.1, "shift": 2},
        {"widths": (32, 64, 128), "patch": 3, "activation": "relu"},
    ),
    ("cifar10", "fastconv"): Recipe(
        {
            "epochs": 26,
            "batch_size": 512,
            "optimizer": "nesterov",
            "learning_rate": 0.5,
            "momentum": 0.85,
            "schedule": "linear",
            "warmup": 0.2,
            "weight_decay": 1e-3,
            "label_smoothing": 0.2,
            "head_scale": 0.125,
            "average": 0.9,
            "alternate_flip": True,
            "views": "flip+shift",
        },
        {"shift": 2, "padding": "reflect"},
    ),
    **{
        ("word2vec", encoder): Recipe(  # the rate and epochs of gensim's defaults
            {
                "epochs": 5,
                "batch_size": 350,
                "optimizer": "sgd",
                "momentum": 0.0,
                "learning_rate": 0.025,
                "schedule": "linear",
                "precision": "float32",
            },
            encoder_config=config,
        )
        for encoder, config in (("embedding", {}), ("lstm", {"embedding": 128}), ("gru", {"embedding": 128}))
    },
    **{
        ("dates", encoder): Recipe(
            {"epochs": 6, "batch_size": 128, "learning_rate": 3e-3, "schedule": "onecycle", "max_gradient_norm": 1.0},
            encoder_config={"hidden": 64, "embedding": 32, "bidirectional": True},
        )
        for encoder in ("lstm", "gru")
    },
    **{
        ("treebank", encoder): Recipe(
            {"epochs": 12, "batch_size": 50, "learning_rate": 3e-3, "schedule": "onecycle", "max_gradient_norm": 5.0},
            encoder_config=config,
        )
        for encoder, config in (
            ("embedding", {"width": 32}),
            ("lstm", {"hidden": 64, "embedding": 32}),
            ("gru", {"hidden": 64, "embedding": 32}),
        )
    },
}


def _memory_recipes() -> dict[tuple[str, str], Recipe]:
    """Neural Turing machine and DNC on the generated tasks, and on bAbI.

    On most generated tasks a feed-forward controller drives the heads: an LSTM learns to hold the vectors itself long
    before it learns to move them. Now and then a gradient is a thousand times as long as usual: unless it is clipped
    and soon forgotten (beta2), nets break down that made hardly a mistake. They do so now and then all the same, and
    recover: the weights of the best epoch are kept.
    """
    run: dict[str, Any] = {"batch_size": 16, "epoch_batches": 250, "max_gradient_norm": 1.0}
    run |= {"learning_rate": 1e-3, "beta2": 0.95, "schedule": "linear", "patience": 10}
    calm = {"beta2": 0.99, "max_gradient_norm": 0.3}  # with these, five of five NTMs learn to copy
    net: dict[str, Any] = {"hidden": 100, "controller": "feedforward"}
    ntm, dnc = {**net, "slots": 128, "width": 20}, {**net, "slots": 64, "width": 16}
    small = {"slots": 10, "width": 12, "hidden": 64, "controller": "feedforward"}  # as in the figure of the paper
    recipes = {
        ("copy", "ntm"): Recipe({**run, **calm, "epochs": 14}, encoder_config=ntm),
        ("copy", "dnc"): Recipe({**run, "epochs": 16}, encoder_config={**dnc, "slots": 128}),
        ("copy-slots", "dnc"): Recipe(
            {**run, "batch_size": 32, "epochs": 80, "beta2": 0.999, "max_gradient_norm": 10.0, "patience": 0},
            encoder_config=small,
        ),
        ("babi", "dnc"): Recipe(
            {"batch_size": 32, "epochs": 16, "learning_rate": 3e-3, "beta2": 0.95, "max_gradient_norm": 10.0}
            | {"schedule": "linear", "warmup": 0.02},
            encoder_config={"slots": 48, "width": 32, "read_heads": 4, "hidden": 128, "embedding": 64, "masked": True}
            | {"deallocate": True, "sharpen": True, "layer_norm": True, "bypass_dropout": 0.1},
            task_options={"row_steps": 128},
        ),
        ("babi", "lstm"): Recipe(
            {"batch_size": 32, "epochs": 8, "learning_rate": 2e-3, "max_gradient_norm": 10.0, "schedule": "linear"},
            encoder_config={"hidden": 256, "embedding": 64},
            task_options={"row_steps": 128},
        ),
        ("babi", "transformer"): Recipe(
            {"batch_size": 32, "epochs": 20, "learning_rate": 5e-4, "max_gradient_norm": 1.0, "schedule": "onecycle"},
            encoder_config={"layers": 4, "embedding": 128, "context": 820, "dropout": 0.1},  # the longest story: 820
            task_options={"row_steps": 128},
        ),
    }
    for task in ("copy", "associative-recall", "priority-sort"):  # as both papers compare
        recipes[task, "lstm"] = Recipe({**run, "epochs": 40}, encoder_config={"hidden": 256})
    for task in ("associative-recall", "priority-sort", "repeat-copy"):
        recipes[task, "ntm"] = Recipe({**run, **calm, "epochs": 20}, encoder_config={**ntm, "read_heads": 2})
        recipes[task, "dnc"] = Recipe({**run, "epochs": 60}, encoder_config={**dnc, "read_heads": 2})
    # vectors are written to places that follow from their priorities, which heads must reach in one step
    recipes["priority-sort", "ntm"] = Recipe(
        {**run, **calm, "learning_rate": 2e-3, "epochs": 80},
        encoder_config={**ntm, "hidden": 256, "read_heads": 5, "write_heads": 3, "shift": 32},
    )
    # an item is known by its three vectors together, which a controller without a state of its own cannot ask for
    recall = {**dnc, "read_heads": 2, "hidden": 64, "controller": "lstm"}
    recipes["associative-recall", "dnc"] = Recipe(
        {**run, **calm, "epochs": 48, "schedule": "constant"}, encoder_config=recall
    )
    return recipes


RECIPES |= _memory_recipes()
RECIPES |= {
    **{
        ("sequential-mnist", encoder): Recipe(
            {"epochs": 10, "batch_size": 100, "learning_rate": 2e-3, "schedule": "onecycle", "max_gradient_norm": 1.0},
            encoder_config={"hidden": 128},
        )
        for encoder in ("lstm", "gru")
    },
    ("pixel-mnist", "lstm"): Recipe(
        {"epochs": 10, "batch_size": 100, "learning_rate": 1e-3, "schedule": "onecycle", "max_gradient_norm": 1.0},
        encoder_config={"hidden": 128, "horizon": 784},
    ),
}


def _language_recipes() -> dict[tuple[str, str], Recipe]:
    """Language models of words and of characters."""
    recipes = {}
    for encoder in ("lstm", "gru"):
        recipes["penn", encoder] = Recipe(
            {"epochs": 30, "batch_size": 32, "learning_rate": 2e-3, "schedule": "cosine", "max_gradient_norm": 0.5}
            | {"weight_decay": 1e-6, "average": 0.99},
            encoder_config={"layers": 2, "hidden": 512, "embedding": 384, "input_dropout": 0.5, "dropout": 0.4}
            | {"locked_dropout": True},
            task_options={"steps": 50, "dropout": 0.5},
        )
        recipes["shakespeare", encoder] = Recipe(
            {"epochs": 10, "batch_size": 64, "learning_rate": 2e-3, "schedule": "onecycle", "max_gradient_norm": 1.0},
            encoder_config={"layers": 2, "hidden": 256, "embedding": 64, "dropout": 0.3},
            task_options={"steps": 100, "tied": False, "dropout": 0.3},
        )
    return recipes


RECIPES |= _language_recipes()


def _tagging_recipes() -> dict[tuple[str, str], Recipe]:
    """Taggers of CoNLL-2000: sizes near those of Ma and Hovy (2016, arXiv:1603.01354, section 3); Adam for SGD."""
    run = {"epochs": 20, "batch_size": 32, "learning_rate": 3e-3, "schedule": "linear", "max_gradient_norm": 5.0}
    run |= {"average": 0.98}
    memory = {"hidden": 200, "bidirectional": True}
    recipes = {}
    for task in ("pos", "chunks"):
        for encoder in ("lstm", "gru"):
            recipes[task, encoder] = Recipe(run, encoder_config=memory)
        recipes[task, "mlp"] = Recipe(
            {**run, "learning_rate": 1e-3},
            encoder_config={"hidden": (300,)},
            task_options={"window": 2, "dropout": 0.25},
        )
    return recipes


RECIPES |= _tagging_recipes()


def _review_recipes() -> dict[tuple[str, str], Recipe]:
    """Film reviews. Memories are judged by the mean of all steps: what the last step knows of 500 is learned slowly."""
    run = {"batch_size": 50, "learning_rate": 2e-3, "schedule": "linear"}
    memory = {"embedding": 128, "hidden": 128, "input_dropout": 0.5, "output_dropout": 0.5, "locked_dropout": True}
    recipes = {
        ("imdb", encoder): Recipe(
            {**run, "epochs": 6, "max_gradient_norm": 1.0, "average": 0.98},
            encoder_config=memory,
            task_options={"pool": "mean"},
        )
        for encoder in ("lstm", "gru")
    }
    recipes["imdb", "textconv"] = Recipe(
        {**run, "epochs": 4, "learning_rate": 1e-3, "average": 0.98},
        encoder_config={"widths": (2, 3, 4), "filters": 100, "input_dropout": 0.2, "output_dropout": 0.5},
    )
    recipes["imdb", "bag"] = Recipe(
        {**run, "epochs": 8, "learning_rate": 3e-3},
        encoder_config={"embedding": 64, "input_dropout": 0.3, "scale": 0.03},
    )
    return recipes


RECIPES |= _review_recipes()
