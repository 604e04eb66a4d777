"""Which encoder reads what, and how it is printed."""

from __future__ import annotations

import torch
from saccade import data
from saccade.__main__ import main
from saccade.encoders import list_encoders
from saccade.envs.spec import ObservationSpec
from saccade.training.matrix import Cell, list_learners, matrix, sources, try_encoder
from saccade.training.tables import print_matrix

VECTOR, IMAGE = ObservationSpec((3,)), ObservationSpec((1, 40, 40), "uint8", 0, 255)


def test_cells_say_what_building_says():
    assert try_encoder("conv", IMAGE) == Cell(reads=True, learns=False)
    assert try_encoder("vae", IMAGE) == Cell(reads=True, learns=True)
    refused = try_encoder("conv", VECTOR)
    assert (refused.reads, refused.learns) == (False, False)
    assert refused.reason.startswith("encoder 'conv' reads uint8 images")
    assert [cell.word for cell in (refused, Cell(True, False), Cell(True, True))] == ["-", "reads", "learns"]


def test_every_encoder_and_source_has_a_cell():
    cells = matrix({"numbers": VECTOR})
    assert list(cells) == list_encoders()
    assert all(list(row) == ["numbers"] for row in cells.values())
    learners = list_learners()
    assert {"autoencoder", "linear", "vae"} <= set(learners)
    assert not {"mlp", "conv", "flat"} & set(learners)


def test_trying_draws_no_numbers_of_the_caller():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    try_encoder("psd", VECTOR)
    try_encoder("mlp", VECTOR)
    assert torch.equal(torch.rand(2), expected)


def test_sources_are_the_published_sets_vectors_and_one_world_of_each_kind():
    specs = sources()
    assert specs["mnist"] == ObservationSpec((1, 28, 28), "uint8", 0, 255)
    assert specs["cifar10"].shape == (3, 32, 32)
    assert specs["CartPole-v1"].shape == (4,)
    assert specs["ALE/Breakout-v5"].stack == 4
    assert set(data.PUBLISHED) <= set(specs)


def test_the_printed_matrix_gives_each_reason_once(capsys):
    row = {"a": Cell(True, True), "b": Cell(False, False, "too small")}
    print_matrix({"one": row, "another": row})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["encoder  a       b", "one      learns  -", "another  learns  -"]
    assert lines[-1] == "-: too small"
    assert sum("too small" in line for line in lines) == 1


def test_lists(capsys):
    assert main(["list", "presets"]) == 0
    assert "deep-2" in capsys.readouterr().out
    assert main(["list", "datasets"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert {"mnist", "cifar10", "env:ID", "PATH.npy"} <= {line.split()[0] for line in shown}
    assert main(["list", "matrx"]) == 2
    assert "did you mean 'matrix'" in capsys.readouterr().err
    assert main(["list", "agents", "envs"]) == 2
    assert "one topic at a time" in capsys.readouterr().err
