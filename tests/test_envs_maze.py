"""Mazes seen from within: walls that hold, pictures against a naive ray-marcher, goals, ends of episodes."""

from __future__ import annotations

from collections import deque
from math import floor

import numpy as np
import pytest
from saccade.envs import EnvOptions, Outcome, UnknownNameError, UserError, VectorEnv, make_env
from saccade.envs.maze import FORWARD, LEFT, MARGIN, RIGHT, MazeEnv
from saccade.envs.maze_layout import draw_maze
from saccade.envs.maze_view import GOAL, HEADINGS, WALL_COLOURS, WALL_HEIGHT, MazeView, Walls, directions

SMALL = EnvOptions(image_size=36)


def step(env: VectorEnv, action) -> Outcome:
    env.send(np.asarray(action))
    return env.recv()


def neighbours(upright: np.ndarray, level: np.ndarray, column: int, row: int) -> list[tuple[int, int]]:
    """Cells that can be gone to, from what the tables of walls mean."""
    open_to = []
    if not upright[row, column + 1]:
        open_to.append((column + 1, row))
    if not upright[row, column]:
        open_to.append((column - 1, row))
    if not level[column, row + 1]:
        open_to.append((column, row + 1))
    if not level[column, row]:
        open_to.append((column, row - 1))
    return open_to


def distances(upright: np.ndarray, level: np.ndarray, goal: tuple[int, int]) -> dict[tuple[int, int], int]:
    found, waiting = {goal: 0}, deque([goal])
    while waiting:
        cell = waiting.popleft()
        for other in neighbours(upright, level, *cell):
            if other not in found:
                found[other] = found[cell] + 1
                waiting.append(other)
    return found


@pytest.mark.parametrize("size", [2, 5, 9])
def test_all_cells_of_a_maze_can_be_reached_and_none_outside(size):
    for seed in range(10):
        upright, level = draw_maze(size, np.random.default_rng(seed))
        assert upright.shape == level.shape == (size, size + 1)
        assert upright.max() < len(WALL_COLOURS)
        cells = distances(upright, level, (0, 0))
        assert set(cells) == {(column, row) for column in range(size) for row in range(size)}


def test_mazes_have_walls_and_loops():
    ways = []
    for seed in range(20):
        upright, level = draw_maze(7, np.random.default_rng(seed))
        ways.append(int((upright == 0).sum() + (level == 0).sum()))
    assert min(ways) >= 48  # a tree over 49 cells
    assert 48 < np.mean(ways) < 60


def march(upright: np.ndarray, level: np.ndarray, place: np.ndarray, ray: np.ndarray) -> tuple[float, int]:
    """Distance to the first wall in lengths of `ray`, and its colour, by tiny steps."""
    tiny, (x, y) = 1e-3, place
    for number in range(1, 100_000):
        new_x, new_y = place + number * tiny * ray
        (column, row), (new_column, new_row) = ((floor(a), floor(b)) for a, b in ((x, y), (new_x, new_y)))
        if column != new_column and (colour := upright[row, max(column, new_column)]):
            return number * tiny, int(colour)
        if row != new_row and (colour := level[new_column, max(row, new_row)]):
            return number * tiny, int(colour)
        x, y = new_x, new_y
    raise AssertionError("there is no end to this maze")


def test_walls_are_where_a_naive_ray_meets_them():
    """Middle row: the wall's colour, darker with the distance; the height of a column: the distance itself."""
    generator = np.random.default_rng(0)
    size, pixels = 4, 20
    walls = [draw_maze(size, generator) for _ in range(4)]
    tables = Walls(np.array([w[0] for w in walls]), np.array([w[1] for w in walls]))
    place = generator.integers(0, size, (4, 2)) + generator.uniform(0.3, 0.7, (4, 2))
    heading = np.array([0, 3, 5, 10])
    pictures, far = MazeView(pixels).draw(tables, place, heading)
    assert pictures.shape == (4, 3, pixels, pixels)
    assert pictures.dtype == np.uint8
    for i in range(4):
        ahead = directions()[heading[i]]
        right = np.array([-ahead[1], ahead[0]])
        for column in range(pixels):
            ray = ahead + ((2 * column + 1) / pixels - 1) * right  # half of a right angle to each side
            depth, colour = march(*walls[i], place[i], ray)
            assert far[i, column] == pytest.approx(depth, abs=2e-3)
            height = min(pixels, WALL_HEIGHT * (pixels / 2) / depth)
            background = pictures[i, :, :, column].astype(float)
            middle = background[:, pixels // 2]
            wall = (background == middle[:, None]).all(axis=0).sum()
            assert abs(wall - height) <= 2
            shade = middle / WALL_COLOURS[colour]
            assert shade.max() - shade.min() < 0.02  # the same colour, darker
            assert 0.1 < shade.mean() <= 1


def empty(size: int) -> Walls:
    """A hall without inner walls, all of colour 1."""
    tables = np.zeros((2, 1, size, size + 1), np.uint8)
    tables[:, :, :, [0, -1]] = 1
    return Walls(*tables)


@pytest.mark.parametrize(("offset", "column"), [((2.0, 0.0), 20), ((2.0, 1.0), 30), ((2.0, -1.0), 10)])
def test_a_goal_is_seen_where_it_stands(offset, column):
    """Looking east; right is south, where y grows."""
    view, walls = MazeView(40), empty(6)
    place, heading = np.array([[1.0, 3.0]]), np.array([0])
    pictures, far = view.draw(walls, place, heading)
    before = pictures.copy()
    view.add(pictures, far, np.array([offset]), heading, np.array([1]))
    changed = (pictures != before).any(axis=1)[0]
    columns, rows = np.flatnonzero(changed.any(axis=0)), np.flatnonzero(changed.any(axis=1))
    assert columns.mean() + 0.5 == pytest.approx(column, abs=1)
    assert len(columns) == pytest.approx(2 * GOAL.radius * 20 / 2, abs=1)
    # it stands on the floor: 0.3 below the eye, at distance 2
    assert rows.max() + 1 - 20 == pytest.approx(0.3 * 20 / 2, abs=1)
    assert len(rows) == pytest.approx(GOAL.top * 20 / 2, abs=1.5)
    red, green, blue = pictures[0, :, rows[0], columns[0]].astype(int)
    assert green > 2 * max(red, blue)


@pytest.mark.parametrize("offset", [(-2.0, 0.0), (0.2, 2.0)])
def test_a_goal_out_of_sight_is_not_seen(offset):
    view, walls = MazeView(40), empty(6)
    pictures, far = view.draw(walls, np.array([[3.0, 3.0]]), np.array([0]))
    before = pictures.copy()
    view.add(pictures, far, np.array([offset]), np.array([0]), np.array([1]))
    np.testing.assert_array_equal(pictures, before)


def test_a_wall_hides_a_goal():
    walls = empty(6)
    walls.upright[0, :, 3] = 2
    view, place, heading = MazeView(40), np.array([[1.5, 3.5]]), np.array([0])
    for x, seen in ((1.0, True), (2.5, False)):
        pictures, far = view.draw(walls, place, heading)
        before = pictures.copy()
        view.add(pictures, far, np.array([[x, 0.0]]), heading, np.array([1]))
        assert (pictures != before).any() == seen


def stand(env: MazeEnv, place: tuple[float, float], heading: int, goal: tuple[float, float]) -> None:
    """All copies in an empty hall, at `place`."""
    walls = empty(env.size)
    env._walls.upright[:], env._walls.level[:] = walls.upright, walls.level
    env._place[:], env._heading[:], env._things[:, 0] = place, heading, goal


def test_an_episode_by_hand():
    env = make_env("maze/4", 2, SMALL)
    env.reset(0)
    stand(env, (0.5, 0.5), 0, (3.5, 1.5))
    turns = [step(env, [LEFT, RIGHT]) for _ in range(3)]  # to north and to south
    assert env._heading.tolist() == [9, 3]
    ahead = [step(env, [FORWARD, FORWARD]) for _ in range(2)]
    np.testing.assert_allclose(env._place, [[0.5, MARGIN], [0.5, 1.5]], atol=1e-9)
    assert np.array_equal(ahead[0].obs[0], ahead[1].obs[0])  # at the wall already
    assert not np.array_equal(ahead[0].obs[1], ahead[1].obs[1])
    for _ in range(3):
        turns.append(step(env, [RIGHT, LEFT]))
    on = [step(env, [FORWARD, FORWARD]) for _ in range(5)]
    np.testing.assert_allclose(env._place, [[3.0, MARGIN], [3.0, 1.5]], atol=1e-9)
    assert not any(outcome.reward.any() for outcome in (*turns, *ahead, *on))
    green = on[-1].obs[1, 1].astype(int) - on[-1].obs[1, 0]
    assert green.max() > 100  # the goal is straight ahead
    last = step(env, [LEFT, FORWARD])
    assert last.reward.tolist() == [0, 1]
    assert not last.terminated.any()
    assert not last.truncated.any()
    assert (last.discount == 1).all()
    np.testing.assert_array_equal(last.obs, last.next_obs)
    assert env._place[1].astype(int).tolist() != [3, 1]  # somewhere else now
    assert env._things[1, 0].tolist() == [3.5, 1.5]  # the goal stays


def test_nobody_goes_through_walls():
    env = make_env("maze/6-random", 16, SMALL)
    env._see = lambda which: np.zeros((len(which), 3, 36, 36), np.uint8)  # for speed
    env.reset(0)
    generator = np.random.default_rng(0)
    before = env._place.copy()
    crossed = 0
    for _ in range(590):
        outcome = step(env, generator.choice(3, 16, p=[0.15, 0.15, 0.7]))
        place = env._place
        assert (place >= MARGIN).all()
        assert (place <= 6 - MARGIN).all()
        for i in np.flatnonzero(outcome.reward == 0):
            old, new = tuple(before[i].astype(int)), tuple(place[i].astype(int))
            if old != new:
                crossed += 1
                near = neighbours(env._walls.upright[i], env._walls.level[i], *old)
                # across a corner, through one of the two cells beside it
                beyond = {b for a in near for b in neighbours(env._walls.upright[i], env._walls.level[i], *a)}
                assert new in near or new in beyond
        low, high = env._room()
        assert (place >= low).all()
        assert (place <= high).all()
        before = place.copy()
    assert crossed > 500


def test_apples_pay_once_until_the_goal_is_found():
    env = make_env("maze/4-apples", 1, SMALL)
    env.reset(0)
    stand(env, (0.5, 0.5), 0, (3.5, 0.5))
    env._things[0, 1:] = [(1.5, 0.5), (2.5, 0.5), (2.5, 0.5), (1.5, 3.5)]
    rewards = [step(env, [FORWARD]).reward[0] for _ in range(4)]
    np.testing.assert_allclose(rewards, [0, 0.1, 0, 0.2], atol=1e-6)
    assert env._is_there[0].tolist() == [True, False, False, False, True]
    for _ in range(6):
        step(env, [RIGHT])
    assert [step(env, [FORWARD]).reward[0] for _ in range(2)] == [0, 0]  # there are no more at 1.5
    for _ in range(6):
        step(env, [LEFT])
    rewards = [step(env, [FORWARD]).reward[0] for _ in range(4)]
    assert rewards == [0, 0, 0, 1]
    assert env._is_there[0].all()
    assert env._things[0, 0].tolist() == [3.5, 0.5]
    assert (env._things[0, 1:] != [3.5, 0.5]).any(axis=1).all()


def test_episodes_are_cut_off_together_and_the_goal_moves():
    env = make_env("maze/2", 8, SMALL)
    env.reset(0)
    goals = [env._things[:, 0].copy()]
    for time in range(1, 601):
        outcome = step(env, np.full(8, LEFT))
        assert outcome.truncated.all() == (time % 200 == 0)
        assert not outcome.terminated.any()
        assert (outcome.discount == 1).all()
        if time % 200 == 0:
            goals.append(env._things[:, 0].copy())
            assert not np.array_equal(outcome.next_obs, outcome.obs)
            assert not np.shares_memory(outcome.next_obs, outcome.obs)
    assert not all(np.array_equal(goals[0], goal) for goal in goals)


@pytest.mark.parametrize(("kind", "same_walls", "same_goal"), [("", 1, 0), ("-static", 1, 1), ("-random", 0, 0)])
def test_what_stays_between_episodes_and_seeds(kind, same_walls, same_goal):
    walls, goals = [], []
    for seed in (0, 1):
        env = make_env(f"maze/5{kind}", 6, SMALL)
        env.reset(seed)
        for _ in range(2):
            walls += list(env._walls.upright.copy())
            goals += [tuple(goal) for goal in env._things[:, 0]]
            env._time[:] = env.limit - 1
            step(env, np.zeros(6, np.int64))
    assert len(np.unique(walls, axis=0)) == (1 if same_walls else 24)
    assert (len(set(goals)) == 1) == bool(same_goal)


def guide(env: MazeEnv) -> np.ndarray:
    """What the shortest way asks for, from the maze's own tables."""
    actions = []
    for i in range(env.spec.num_envs):
        tables = env._walls.upright[i], env._walls.level[i]
        column, row = (int(each) for each in env._things[i, 0])
        far = distances(*tables, (column, row))
        x, y = env._place[i]
        here = (int(x), int(y))
        aim = min(neighbours(*tables, *here), key=far.__getitem__) if far[here] else here
        angle = np.arctan2(aim[1] + 0.5 - y, aim[0] + 0.5 - x)
        turn = (round(angle / (2 * np.pi) * HEADINGS) - env._heading[i]) % HEADINGS
        actions.append(FORWARD if turn == 0 else RIGHT if turn <= HEADINGS / 2 else LEFT)
    return np.array(actions)


def test_who_knows_the_way_earns_much_more_than_chance():
    scores = []
    for act in (guide, lambda env: np.random.default_rng(int(env._time[0])).integers(0, 3, env.spec.num_envs)):
        env = make_env("maze/5", 8, SMALL)
        env._see = lambda which: np.zeros((len(which), 3, 36, 36), np.uint8)
        env.reset(0)
        scores.append(sum(step(env, act(env)).reward for _ in range(env.limit)).mean())
    assert scores[0] > 12
    assert scores[1] < 3


@pytest.mark.parametrize("kind", ["", "-random-apples"])
@pytest.mark.parametrize("stack", [1, 2])
def test_a_clone_goes_on_bit_for_bit(kind, stack):
    options = EnvOptions(image_size=36, stack=stack)
    env, clone = (make_env(f"maze/2{kind}", 3, options) for _ in range(2))
    env.reset(4)
    generator = np.random.default_rng(0)
    last = [step(env, generator.integers(0, 3, 3)) for _ in range(90)][-1]
    saved = env.state_dict()
    actions = generator.integers(0, 3, (150, 3))
    expected = [step(env, action) for action in actions]
    assert any(outcome.truncated.any() for outcome in expected)
    assert any(outcome.reward.any() for outcome in expected)
    np.testing.assert_array_equal(clone.load_state_dict(saved), last.obs)
    for action, outcome in zip(actions, expected, strict=True):
        for mine, theirs in zip(step(clone, action), outcome, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_seed_decides_everything():
    def play(seed: int) -> np.ndarray:
        env = make_env("maze/3-random-apples", 3, SMALL)
        return np.array([env.reset(seed), *(step(env, [FORWARD, LEFT, FORWARD]).obs for _ in range(20))])

    first = play(1)
    np.testing.assert_array_equal(first, play(1))
    assert not np.array_equal(first, play(2))


def test_stacks_hold_the_last_frames_of_one_episode():
    single, double = make_env("maze/2", 2, SMALL), make_env("maze/2", 2, EnvOptions(image_size=36, stack=2))
    assert double.spec.observation.shape == (6, 36, 36)
    assert double.spec.observation.frame_shape == (3, 36, 36)
    last, obs = single.reset(0), double.reset(0)
    np.testing.assert_array_equal(obs, np.concatenate([0 * last, last], axis=1))
    generator, kept = np.random.default_rng(0), []
    for _ in range(205):
        action = generator.integers(0, 3, 2)
        one, two = step(single, action), step(double, action)
        np.testing.assert_array_equal(two.next_obs, np.concatenate([last, one.next_obs], axis=1))
        before = np.where(one.truncated[:, None, None, None], 0, one.next_obs * 0 + last)
        np.testing.assert_array_equal(two.obs, np.concatenate([before, one.obs], axis=1))
        last = one.obs
        kept.append((two.obs, two.obs.copy()))
    assert all(np.array_equal(array, copy) for array, copy in kept)


def test_people_see_the_view_and_a_map():
    env = make_env("maze/5-apples", 2, SMALL)
    env.watch(0)
    picture = env.render()
    assert picture.shape == (240, 480, 3)
    assert picture.dtype == np.uint8
    white = (picture[:, 240:] == 255).all(axis=2)
    rows, columns = np.nonzero(white)
    assert 100 < white.sum() < 1000  # the agent, at about its place
    np.testing.assert_allclose([columns.mean(), rows.mean()], env._place[0] * 236 / 5 + 2, atol=12)
    np.testing.assert_array_equal(env.render(), picture)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("maze/5-apple", UnknownNameError, "did you mean 'maze/5-apples'"),
        ("maze/five", UnknownNameError, "maze/5"),
        ("maze/1", UserError, "2 to 40"),
        ("maze/99", UserError, "2 to 40"),
    ],
)
def test_ids_that_make_no_sense(wrong, error, message):
    with pytest.raises(error, match=message):
        make_env(wrong, 1)


def test_actions_out_of_range_are_refused():
    env = make_env("maze/3", 1, SMALL)
    env.reset(0)
    with pytest.raises(UserError, match="0 to 2"):
        env.send(np.array([3]))
