"""Actor-learners on a Ray cluster (extra `[ray]`): those of `workers`, as Ray actors around one that holds the
parameters.

The parameters are an actor beside the main process; workers are wherever there is a free processor. A worker sends each
gradient as one flat array and is answered with the parameters, in float32 or, with `--wire bfloat16`, half as many
bytes. The server applies one gradient after the other. A node that dies takes its workers with it: the others go on,
and new ones begin where there is room. Every node needs saccade installed; settings and encoder weights are sent along,
but a user's own encoder must be importable there.

What crosses the network: per update one gradient up and the parameters down, 4 bytes per parameter each way (2 in
bfloat16). That is 37 kB an update for the perceptron of CartPole (4,675 parameters) and 13.5 MB for Nature's network
(1.69 million). An update costs the server 0.05 ms of one processor for the former; 13 ms for the latter, 7.5 of them
to apply and copy and the rest to pack and unpack (bfloat16: 9.4), measured in one process. So a server can apply about
75 updates of Nature's network a second, and a wire of 10 Gbit/s carries 185 (370 in bfloat16).

What 1,000 workers would do to it: one that makes 350 steps a second from 16 worlds in rollouts of 5 brings 4.4 updates,
59 MB, a second. 17 of them fill the server's processor and 42 the wire; 1,000 would need 59 GB a second, and their
gradients would be some 1,000 updates old, at which nobody has seen A3C learn. Beyond a dozen workers the gradients must
stay where the data come to: workers then send trajectories (80 steps of one new 84 x 84 frame each are 0.56 MB, a
twelfth of a gradient, before compression), a learner corrects for their age (IMPALA's V-trace) and publishes
parameters a few times a second, passed on from node to node. 1,000 workers then send 2.5 GB a second, which asks for
a learner split over two or three nodes, or frames compressed (about tenfold for Atari).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..agents.parts.actor_learner import ActorLearner
from ..agents.parts.shared_rmsprop import STEPS, UPDATES, Receipt, Rules, SharedParameters, note_update
from ..envs.errors import UserError
from .encoder_use import FOLDER
from .plan import CONFIG_FILE, Plan, RunConfig
from .workers import Crew, Ended, Job, Message, Report, explain, users_own, work

START_SECONDS = 900.0  # for the server to begin: an actor imports torch first
ANSWER_SECONDS = 180.0  # for the server to answer; one that has died is known of at once
Files = dict[str, bytes]  # by path inside a directory


class Answer(NamedTuple):
    """What the server says to a gradient."""

    parameters: np.ndarray  # as they cross the network
    updates: int  # of all workers, when these were the parameters
    receipt: Receipt


class News(NamedTuple):
    """What the server has heard since it was asked last."""

    reports: list[Report]
    tally: np.ndarray  # int64 [workers, 4]
    begun: set[int]  # the seeds of workers that have found a place


def pack(vector: Tensor, wire: str) -> np.ndarray:
    """float32 `[P]` as it crosses the network."""
    if wire == "float32":
        return vector.detach().cpu().numpy().copy()
    return vector.detach().cpu().to(torch.bfloat16).view(torch.int16).numpy().copy()


def unpack(array: np.ndarray) -> Tensor:
    """What `pack` was given, as float32 `[P]`."""
    tensor = torch.from_numpy(array.copy())  # Ray's arrays cannot be written to
    return tensor if tensor.dtype == torch.float32 else tensor.view(torch.bfloat16).float()


class Server:
    """Holds parameters and statistics; a Ray actor, which does one thing at a time."""

    def __init__(self, values: np.ndarray, squares: np.ndarray, rules: Rules, workers: int, span: tuple[int, int]):
        """`span`: environment steps before this sitting, and those at which the run is over."""
        torch.set_num_threads(1)
        self.values, self.squares, self.rules = torch.from_numpy(values.copy()), torch.from_numpy(squares.copy()), rules
        self.tally, self.reports = np.zeros((workers, 4), np.int64), list[Report]()
        (self.base, self.total), self.is_over = span, False
        self.begun: set[int] = set()  # the seeds of workers that have asked for parameters

    def begin(self, seed: int, wire: str) -> tuple[np.ndarray, int]:
        """A worker's first `take`."""
        self.begun.add(seed)
        return self.take(wire)

    def take(self, wire: str) -> tuple[np.ndarray, int]:
        return pack(self.values, wire), int(self.tally[:, UPDATES].sum())

    def exchange(self, worker: int, gradient: np.ndarray, steps: int, seen: int, wire: str) -> Answer:
        """Apply a worker's gradient, computed when there had been `seen` updates."""
        row = self.tally[worker]
        row[STEPS] += steps
        total = self.base + int(self.tally[:, STEPS].sum())
        lag = int(self.tally[:, UPDATES].sum()) - seen
        self.rules.apply(self.values, self.squares, unpack(gradient), total)
        note_update(row, lag)
        receipt = Receipt(lag, total, self.is_over or 0 < self.total <= total)
        return Answer(*self.take(wire), receipt)

    def shift(self, change: np.ndarray) -> None:
        self.values.add_(unpack(change))

    def tell(self, report: Report) -> bool:
        self.reports.append(report)
        return not self.is_over

    def news(self) -> News:
        reports, self.reports = self.reports, []
        return News(reports, self.tally, self.begun)

    def fetch(self) -> tuple[np.ndarray, np.ndarray]:
        return self.values.numpy(), self.squares.numpy()

    def stop(self) -> None:
        self.is_over = True


class RemoteSeat:
    """A seat at the parameters of a server elsewhere."""

    def __init__(self, server: Any, job: Job, wire: str):
        self.server, self.worker, self.seed, self.wire = server, job.worker, job.seed, wire
        self._seen = 0  # updates of all workers when the parameters were read

    def take(self, into: Tensor) -> None:
        parameters, self._seen = _ask(self.server.begin.remote(self.seed, self.wire))
        into.copy_(unpack(parameters))

    def bring(self, gradient: Tensor, steps: int, into: Tensor) -> Receipt:
        sent = pack(gradient, self.wire)
        answer = _ask(self.server.exchange.remote(self.worker, sent, steps, self._seen, self.wire))
        self._seen = answer.updates
        into.copy_(unpack(answer.parameters))
        return answer.receipt

    def shift(self, change: Tensor) -> None:
        _ask(self.server.shift.remote(pack(change, "float32")))


class Worker:
    """An actor-learner; a Ray actor."""

    def run(self, job: Job, files: Files, server: Any, wire: str) -> Ended:
        """Until the run is over; says how it ended."""
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), files)
            here = job._replace(directory=folder)

            def seat(agent: ActorLearner) -> RemoteSeat:
                return RemoteSeat(server, job, wire)

            try:
                plan = Plan.load(Path(folder), *users_own(Path(folder)))
                work(here, plan, seat, lambda report: _ask(server.tell.remote(report)))
            except Exception as error:
                if type(error).__module__.startswith("ray."):  # the network's fault: another may fare better
                    return Ended(job.worker, _first_line(error))
                return explain(job, error)
        return Ended(job.worker, "")


class ClusterCrew(Crew):
    """Workers on a Ray cluster."""

    most_stillborn = 20  # some may be sent to a node whose death is not known yet

    def __init__(self, shared: SharedParameters, run_config: RunConfig, directory: Path):
        """Raises UserError: Ray is not installed, or there is no such cluster."""
        ray = connect(str(run_config.cluster))
        self.ray, self.shared, self.wire = ray, shared, run_config.wire
        self.files = read_files(directory, [CONFIG_FILE, FOLDER])
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        server, worker = ray.remote(Server), ray.remote(Worker)
        self.server = server.options(num_cpus=0, scheduling_strategy=here).remote(
            shared.values.numpy(), shared.squares.numpy(), shared.rules, run_config.workers, (shared.base, shared.total)
        )
        self._worker = worker.options(num_cpus=1, max_restarts=0)
        self._running: dict[Any, tuple[Job, Any]] = {}  # by what it will return: a worker's job and its actor
        self._tally = np.zeros((run_config.workers, 4), np.int64)
        self._begun: set[int] = set()  # the seeds of workers that have found a place
        self._dismissed: set[int] = set()  # and of those that were told not to look for one any more
        self._ask("news", START_SECONDS)
        self._began = time.monotonic()

    def start(self, job: Job) -> None:
        actor = self._worker.remote()
        self._running[actor.run.remote(job, self.files, self.server, self.wire)] = job, actor

    def listen(self, seconds: float) -> list[Message]:
        ended, _ = self.ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        found: list[Message] = []
        for reference in ended:
            job, _ = self._running.pop(reference)
            try:
                found.append(self.ray.get(reference))
            except self.ray.exceptions.RayError as error:
                found.append(Ended(job.worker, "" if job.seed in self._dismissed else _loss(error)))
        news = self._ask("news")
        self._tally, self._begun = news.tally, news.begun
        return [*news.reports, *found]

    def tally(self) -> np.ndarray:
        return self._tally

    def fetch(self) -> None:
        values, squares = self._ask("fetch")
        self.shared.values.copy_(torch.from_numpy(values.copy()))
        self.shared.squares.copy_(torch.from_numpy(squares.copy()))

    def stop(self) -> None:
        self._ask("stop")
        for job, actor in self._running.values():
            if job.seed not in self._begun:  # it waits for a place, in vain
                self._dismissed.add(job.seed)
                self.ray.kill(actor)

    def summary(self) -> dict[str, Any]:
        """What crossed the network, in bytes: a gradient up and the parameters down for each update."""
        each = 2 * self.shared.rules.size * (4 if self.wire == "float32" else 2)
        seconds, updates = time.monotonic() - self._began, int(self._tally[:, UPDATES].sum())
        rates = {"updates_per_second": updates / seconds, "bytes_per_second": each * updates / seconds}
        return {"cluster": {"wire": self.wire, "bytes_per_update": each} | {k: round(v, 1) for k, v in rates.items()}}

    def close(self) -> None:
        for _, actor in self._running.values():
            self.ray.kill(actor)
        self._running = {}
        self.ray.kill(self.server)

    def _ask(self, question: str, seconds: float = ANSWER_SECONDS) -> Any:
        try:
            return _ask(getattr(self.server, question).remote(), seconds)
        except self.ray.exceptions.RayError as error:
            raise UserError(
                f"the cluster lost the parameters ({_first_line(error)}); the last checkpoint has them"
            ) from error


def connect(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`, or to the one that "auto" finds.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise UserError("--cluster needs Ray: pip install 'saccade[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"no Ray cluster at {address!r} ({_first_line(error)}); `ray start --head` begins one on this machine"
            ) from error
    return ray


def read_files(directory: Path, names: list[str]) -> Files:
    """The files `names` of a directory, and all those in folders of these names."""
    paths = [path for name in names for path in (directory / name, *(directory / name).rglob("*"))]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths if path.is_file()}


def write_files(directory: Path, files: Files) -> None:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _ask(reference: Any, seconds: float = ANSWER_SECONDS) -> Any:
    import ray

    return ray.get(reference, timeout=seconds)


def _loss(error: Exception) -> str:
    """Why a worker is gone, short; Ray's own words go on for lines."""
    return f"its process or its node is gone: {_first_line(error).split(': ')[0]}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
