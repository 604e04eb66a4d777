"""Worker processes for worlds that step slowly: each steps its share of the copies."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector.utils import CloudpickleWrapper

from .errors import UserError
from .steppers import EnvLoop, Stepped, spread_seed


class EnvWorkers:
    """`count` copies spread over processes, each an `EnvLoop` of its own.

    Processes are spawned: they share nothing with this one, whose threads would not survive a fork.
    """

    def __init__(self, spec: EnvSpec, count: int, workers: int):
        context = multiprocessing.get_context("spawn")
        self._shares = [len(share) for share in np.array_split(np.arange(count), workers)]
        self._pipes: list[Connection] = []
        self._processes = []
        for share in self._shares:
            here, there = context.Pipe()
            make_loop: Any = CloudpickleWrapper(partial(EnvLoop, spec, share))  # type: ignore[arg-type]
            process = context.Process(target=_serve, args=(there, make_loop), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        self.observation_space, self.action_space = self._gather()[0]

    def reset(self, seed: int) -> np.ndarray:
        seeds = spread_seed(seed, sum(self._shares))
        for pipe, share in zip(self._pipes, self._shares, strict=True):
            self._ask(pipe, "reset_each", seeds[:share])
            seeds = seeds[share:]
        return np.concatenate(self._gather())

    def send(self, action: np.ndarray) -> None:
        for pipe, part in zip(self._pipes, np.split(action, np.cumsum(self._shares)[:-1]), strict=True):
            self._ask(pipe, "step", part)

    def recv(self) -> Stepped:
        return Stepped(*(np.concatenate(parts) for parts in zip(*self._gather(), strict=True)))

    def render(self) -> Any:
        self._ask(self._pipes[0], "render")
        return self._receive(self._pipes[0])

    def state_dict(self) -> None:
        return None

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        raise UserError("worlds in worker processes cannot be cloned; use workers = 0")

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            process.terminate()
        self._pipes, self._processes = [], []

    def _ask(self, pipe: Connection, *request: Any) -> None:
        try:
            pipe.send(request)
        except BrokenPipeError:
            self._mourn()

    def _gather(self) -> list[Any]:
        return [self._receive(pipe) for pipe in self._pipes]

    def _receive(self, pipe: Connection) -> Any:
        try:
            failure, answer = pipe.recv()
        except (EOFError, ConnectionResetError):
            self._mourn()
        if failure:
            self.close()
            raise UserError(f"an environment failed in its worker process: {failure}")
        return answer

    def _mourn(self) -> NoReturn:
        self.close()
        raise UserError("an environment's worker process died; with workers = 0 it is stepped in this process")


def _serve(pipe: Connection, make_loop: Callable[[], EnvLoop]) -> None:
    """A worker: answers each request with (what went wrong, result) until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which may still finish its step
    try:
        loop = make_loop()
        pipe.send((None, (loop.observation_space, loop.action_space)))
        while True:
            name, *arguments = pipe.recv()
            if name == "step":
                loop.send(*arguments)
                pipe.send((None, tuple(loop.recv())))
            else:
                pipe.send((None, getattr(loop, name)(*arguments)))
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {error}", None))
        traceback.print_exc()
