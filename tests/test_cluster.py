"""Actor-learners and benchmark runs on a Ray cluster; a real one of two nodes where Ray is installed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from saccade.agents.parts.shared_rmsprop import Piece, Rules, SharedParameters
from saccade.benchmarks.parts.cluster_runs import execute_on_cluster, perform, receive
from saccade.benchmarks.parts.plan import Run
from saccade.envs.errors import UserError
from saccade.training import cluster
from saccade.training.cluster import Server, pack, read_files, unpack, write_files
from saccade.training.train import train
from test_workers import At, small_plan

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
RULES = Rules((Piece(0, 4, "rmsprop", 0.1), Piece(4, 6, "sgd", 0.2)), 0.9, 0.01, 100)


def test_what_crosses_the_network():
    vector = torch.randn(1000)
    assert pack(vector, "float32").nbytes == 4000
    torch.testing.assert_close(unpack(pack(vector, "float32")), vector, rtol=0, atol=0)
    assert pack(vector, "bfloat16").nbytes == 2000
    torch.testing.assert_close(unpack(pack(vector, "bfloat16")), vector, rtol=2**-8, atol=0)
    assert torch.equal(unpack(pack(vector, "bfloat16")), vector.bfloat16().float())


def test_the_server_does_what_shared_memory_does():
    values = torch.randn(6)
    shared = SharedParameters(values, RULES).share(2)
    shared.base, shared.total = 10, 50
    server = Server(values.numpy(), np.zeros(6, np.float32), RULES, 2, (10, 50))
    seats, seen, copies = [shared.seat(0), shared.seat(1)], [0, 0], [torch.empty(6), torch.empty(6)]
    for seat, into in zip(seats, copies, strict=True):
        seat.take(into)
    for worker, steps in ((0, 5), (1, 7), (1, 9), (0, 19)):
        gradient = torch.randn(6)
        receipt = seats[worker].bring(gradient, steps, copies[worker])
        answer = server.exchange(worker, pack(gradient, "float32"), steps, seen[worker], "float32")
        seen[worker] = answer.updates
        assert answer.receipt == receipt
        torch.testing.assert_close(unpack(answer.parameters), copies[worker], rtol=0, atol=0)
    assert receipt == (2, 50, True)
    np.testing.assert_array_equal(server.news().tally, shared.tally)
    torch.testing.assert_close(torch.from_numpy(server.fetch()[1]), shared.squares, rtol=0, atol=0)
    server.shift(np.ones(6, np.float32))
    torch.testing.assert_close(torch.from_numpy(server.fetch()[0]), shared.values + 1)


def test_a_server_that_is_told_to_stop_tells_workers():
    server = Server(np.zeros(6, np.float32), np.zeros(6, np.float32), RULES, 1, (0, 50))
    gradient = np.zeros(6, np.float32)
    assert not server.exchange(0, gradient, 1, 0, "float32").receipt.is_last
    server.stop()
    assert server.exchange(0, gradient, 1, 1, "float32").receipt.is_last


def test_files_travel(tmp_path: Path):
    for name in ("a.json", "b/c/d.txt", "other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    files = read_files(tmp_path, ["a.json", "b", "missing"])
    assert files.keys() == {"a.json", "b/c/d.txt"}
    write_files(tmp_path / "there", files)
    assert (tmp_path / "there" / "b" / "c" / "d.txt").read_text() == "b/c/d.txt"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"saccade\[ray\]"):
        cluster.connect("auto")


def test_a_cluster_without_workers_is_refused():
    with pytest.raises(UserError, match="--workers 8"):
        train(small_plan(workers=0, cluster="auto"), Path("unused"))


SCRIPT = """
import json, os, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
print("threads", os.environ["OMP_NUM_THREADS"])
if "--fail" in sys.argv:
    sys.exit("no luck")
out.mkdir()
result = {"steps": 10, "seconds": 1.0, "score": {"mean": float(sys.argv[sys.argv.index("--seed") + 1])}}
(out / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that a run can be made of."""
    (tmp_path / "tiny_run.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return "tiny_run"


def test_a_run_leaves_here_what_it_wrote_there(script: str, tmp_path: Path):
    run = Run("group", 3, (script,))
    outcome = receive(run, tmp_path / "runs", perform(run, 2))
    assert outcome.result is not None
    assert outcome.result["score"]["mean"] == 3
    assert json.loads((tmp_path / "runs" / run.name / "result.json").read_text()) == outcome.result
    assert (tmp_path / "runs" / f"{run.name}.log").read_text() == "threads 2\n"
    failed = receive(
        Run("bad", 0, (script, "--fail")), tmp_path / "runs", perform(Run("bad", 0, (script, "--fail")), 1)
    )
    assert failed.result is None
    assert "no luck" in failed.error
    assert failed.error.endswith("exit status 1")


def begin(nodes: Any, **settings: Any) -> Any:
    """A node of the cluster. Ray gives a node's helpers 15 seconds to begin, which a busy machine may need twice."""
    for attempt in range(4):
        try:
            return nodes.add_node(**settings)
        except Exception:
            if attempt == 3:
                raise
    raise AssertionError("one of them returns")


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A head and a second node, a processor each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # nobody watches these nodes
    small = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_log_monitor": False, "no_monitor": True}
    nodes = Cluster(initialize_head=False)
    begin(nodes, **small, include_dashboard=False)
    nodes.second = begin(nodes, **small)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_benchmark_runs_spread_over_the_cluster(two_nodes: Any, tmp_path: Path):
    module = "saccade"  # whose command line refuses what it is given: nothing has to be installed on a node for that
    runs = [Run("refused", seed, (module, "train", "dqn", "--no-such-option")) for seed in range(2)]
    outcomes = execute_on_cluster(runs, tmp_path, address=two_nodes.address, threads=1, console=Console(quiet=True))
    assert [outcome.run.seed for outcome in outcomes] == [0, 1]
    assert all("exit status 2" in outcome.error and "--no-such-option" in outcome.error for outcome in outcomes)


def test_a_node_is_killed_and_training_goes_on(two_nodes: Any, tmp_path: Path):
    """The second node is gone in mid-run: its worker is mourned, the other one reaches the end."""

    def kill() -> None:
        two_nodes.remove_node(two_nodes.second, allow_graceful=False)

    plan = small_plan(steps=6_000, cluster=two_nodes.address, wire="bfloat16")
    result = train(plan, tmp_path / "run", [At(kill)])
    assert result["steps"] >= 6_000
    assert result["score"]["mean"] == 1.0
    assert result["workers_replaced"] >= 1
    assert result["cluster"]["bytes_per_update"] > 0
    assert "died at step" in (log := (tmp_path / "run" / "workers.log").read_text())
    assert "its process or its node is gone" in log
