"""Mazes seen from within: a goal to be found again and again by what the coloured walls look like.

Made after DeepMind Lab's `nav_maze_*` levels, on which UNREAL was tried (Jaderberg et al. 2017, section 4.1), at many
thousand steps per second on one core. `maze/N` has N × N cells. The agent turns left or right by 30 degrees, or goes
half a cell ahead and slides along walls. The goal earns 1, and whoever reaches it finds himself somewhere else, at
random; the goal stays where it is until the episode is cut off, after 100 N steps. There is no other end.

| id | walls | goal, in each episode | made after |
| --- | --- | --- | --- |
| `maze/N` | the same for all copies, episodes and seeds | in another cell | `nav_maze_random_goal` |
| `maze/N-static` | likewise | in the same cell | `nav_maze_static` |
| `maze/N-random` | others in every episode | in another cell | `nav_maze_all_random` |

With `-apples` behind any of them, N apples of 0.1 each lie about; they are there anew after each goal.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .base import Outcome, VectorEnv
from .errors import UnknownNameError, UserError
from .maze_layout import draw_maze
from .maze_map import draw_map
from .maze_view import HEADINGS, MazeView, Walls, directions
from .options import EnvOptions
from .spec import ActionSpec, EnvSpec, ObservationSpec

EXAMPLES = ("maze/5", "maze/5-apples", "maze/5-random", "maze/5-random-apples", "maze/5-static", "maze/5-static-apples")
LEFT, RIGHT, FORWARD = range(3)
GOAL_REWARD, APPLE_REWARD = 1.0, 0.1
STRIDE = 0.5  # cells
REACH = 0.45  # nearer than this to the middle of a cell, what lies there is found
MARGIN = 0.3  # nobody comes nearer to a wall
LARGEST = 40
_FIXED = 20  # seed of the walls and goals that never change


class MazeEnv(VectorEnv):
    """Copies of a maze, seen as uint8 `[3, size, size]`; episodes follow one another in the same step."""

    def __init__(self, env_id: str, num_envs: int, options: EnvOptions):
        """
        Raises:
            UnknownNameError: not such an id.
            UserError: a maze of one cell, or of far too many.
        """
        named = re.fullmatch(r"maze/(\d+)(-static|-random)?(-apples)?", env_id)
        if named is None:
            raise UnknownNameError("environment", env_id, EXAMPLES)
        self.size, self._kind, self.apples = int(named[1]), named[2], int(named[1]) if named[3] else 0
        if not 2 <= self.size <= LARGEST:
            raise UserError(f"mazes have 2 to {LARGEST} cells a side, as in maze/5, not {self.size}")
        pixels = options.image_size or 84
        self.limit = 100 * self.size
        observation = ObservationSpec((3, pixels, pixels), "uint8", 0, 255)
        self.spec = EnvSpec(env_id, num_envs, observation, ActionSpec(count=3))
        self._view, self._directions = MazeView(pixels), directions()
        self._generator, self._copies = np.random.default_rng(0), np.arange(num_envs)
        fixed = np.random.default_rng(_FIXED)
        walls = np.array(draw_maze(self.size, fixed))[:, None].repeat(num_envs, axis=1)
        self._walls = Walls(*walls)
        self._fixed_goal = fixed.integers(0, self.size, 2)
        self._place, self._heading = np.zeros((num_envs, 2)), np.zeros(num_envs, np.int64)
        self._things = np.zeros((num_envs, 1 + self.apples, 2))  # the goal, then apples: middles of cells
        self._is_there = np.ones((num_envs, 1 + self.apples), bool)
        self._time, self._action = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)

    def reset(self, seed: int) -> np.ndarray:
        self._generator = np.random.default_rng(seed)
        self._begin(self._copies)
        return self._see(self._copies)

    def _begin(self, which: np.ndarray) -> None:
        """A new episode in the copies `which` int `[K]`."""
        if self._kind == "-random":
            for i in which:
                self._walls.upright[i], self._walls.level[i] = draw_maze(self.size, self._generator)
        goal = self._generator.integers(0, self.size, (len(which), 2))
        self._things[which, 0] = (self._fixed_goal if self._kind == "-static" else goal) + 0.5
        self._time[which] = 0
        self._spawn(which)

    def _spawn(self, which: np.ndarray) -> None:
        """Put the agents `which` anywhere but on the goal, and lay out the apples."""
        count, cells = len(which), self.size**2
        goal = self._things[which, 0].astype(np.int64)
        away = self._generator.integers(1, cells, (count, 1 + self.apples))  # cells from the goal on, row by row
        cell = (goal[:, :1] + self.size * goal[:, 1:] + away) % cells
        middles = np.stack([cell % self.size, cell // self.size], axis=2) + 0.5
        self._place[which], self._things[which, 1:] = middles[:, 0], middles[:, 1:]
        self._heading[which] = self._generator.integers(0, HEADINGS, count)
        self._is_there[which] = True

    def _see(self, which: np.ndarray, view: MazeView | None = None) -> np.ndarray:
        """uint8 `[K, 3, size, size]`: what the agents `which` see."""
        view, place, heading = view or self._view, self._place[which], self._heading[which]
        pictures, far = view.draw(Walls(*(each[which] for each in self._walls)), place, heading)
        offset = self._things[which] - place[:, None]
        kinds = self._is_there[which] * np.where(np.arange(1 + self.apples) == 0, 1, 2)
        if self.apples:  # the farthest is painted first
            order = np.argsort(-(offset**2).sum(axis=2), axis=1)
            offset = np.take_along_axis(offset, order[:, :, None], axis=1)
            kinds = np.take_along_axis(kinds, order, axis=1)
        for each in range(1 + self.apples):
            view.add(pictures, far, offset[:, each], heading, kinds[:, each])
        return pictures

    def send(self, action: np.ndarray) -> None:
        if not ((action >= 0) & (action <= 2)).all():
            raise UserError(f"actions must be 0 to 2, not {action.tolist()}")
        self._action = action

    def recv(self) -> Outcome:
        count = self.spec.num_envs
        self._move()
        reward = self._find()
        self._time += 1
        truncated, never = self._time >= self.limit, np.zeros(count, bool)
        next_obs = obs = self._see(self._copies)
        if truncated.any():
            ended = np.flatnonzero(truncated)
            self._begin(ended)
            obs = next_obs.copy()
            obs[ended] = self._see(ended)
        discount, valid = np.ones(count, np.float32), np.ones(count, bool)
        return Outcome(self._copies.copy(), next_obs, obs, reward, never, truncated, discount, valid)

    def _move(self) -> None:
        turn = (self._action == RIGHT).astype(np.int64) - (self._action == LEFT)
        self._heading = (self._heading + turn) % HEADINGS
        step = STRIDE * self._directions[self._heading] * (self._action == FORWARD)[:, None]
        for part in (step * [1, 0], step * [0, 1], 0 * step):  # one way after the other: there is no way across corners
            self._place = np.clip(self._place + part, *self._room())

    def _room(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest x and y, `[B, 2]` each, that the walls of the cell where everybody is leave him."""
        cell = self._place.astype(np.int64)
        column, row = cell.T
        low, high = np.empty(cell.shape), np.empty(cell.shape)
        for axis, walls, along, line in ((0, self._walls.upright, row, column), (1, self._walls.level, column, row)):
            low[:, axis] = np.where(walls[self._copies, along, line] > 0, line + MARGIN, -np.inf)
            high[:, axis] = np.where(walls[self._copies, along, line + 1] > 0, line + 1 - MARGIN, np.inf)
        return low, high

    def _find(self) -> np.ndarray:
        """Pay for what is within reach, float32 `[B]`."""
        found = ((self._things - self._place[:, None]) ** 2).sum(axis=2) < REACH**2
        found &= self._is_there
        self._is_there[:, 1:] &= ~found[:, 1:]
        if (at_goal := np.flatnonzero(found[:, 0])).size:
            self._spawn(at_goal)
        return (GOAL_REWARD * found[:, 0] + APPLE_REWARD * found[:, 1:].sum(axis=1)).astype(np.float32)

    def render(self) -> np.ndarray:
        """What the first agent sees, and beside it a map: uint8 `[240, 480, 3]`."""
        first = self._copies[:1]
        seen = self._see(first, MazeView(240))[0].transpose(1, 2, 0)
        walls = Walls(*(each[0] for each in self._walls))
        things = self._things[0][self._is_there[0]]
        return np.concatenate([seen, draw_map(walls, things, self._place[0], int(self._heading[0]))], axis=1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "upright": self._walls.upright.copy(),
            "level": self._walls.level.copy(),
            "place": self._place.copy(),
            "heading": self._heading.copy(),
            "things": self._things.copy(),
            "is_there": self._is_there.copy(),
            "time": self._time.copy(),
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> np.ndarray:
        self._walls = Walls(saved["upright"].copy(), saved["level"].copy())
        self._place, self._heading = saved["place"].copy(), saved["heading"].copy()
        self._things, self._is_there = saved["things"].copy(), saved["is_there"].copy()
        self._time = saved["time"].copy()
        self._generator.bit_generator.state = saved["generator"]
        return self._see(self._copies)
