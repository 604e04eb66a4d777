"""One step of the DNC and of the NTM in NumPy, written from the papers' equations: slot by slot, head by head, one row
of the batch, no vectorisation to speak of. Slow, and float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Vector = np.ndarray
FLOOR = 1e-6  # added to squared lengths; usages are raised to it


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def oneplus(x: Any) -> Any:
    return 1 + np.log1p(np.exp(x))


def softmax(x: Vector) -> Vector:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def content(memory: Vector, key: Vector, strength: float, mask: Vector | None = None) -> Vector:
    """Softmax of strength times cosine; memory [N, W], key [W]."""
    mask = np.ones_like(key) if mask is None else mask
    likeness = []
    for slot in memory:
        a, b = key * mask, slot * mask
        likeness.append(a @ b / (math.sqrt(a @ a + FLOOR) * math.sqrt(b @ b + FLOOR)))
    return softmax(strength * np.array(likeness))


def allocation(usage: Vector, floor: float = FLOOR) -> Vector:
    """a[phi_j] = (1 - u[phi_j]) * product over i < j of u[phi_i], with phi the slots by ascending usage."""
    usage = floor + (1 - floor) * usage
    order = sorted(range(len(usage)), key=lambda slot: usage[slot])
    weights = np.zeros_like(usage)
    for j, slot in enumerate(order):
        product = 1.0
        for other in order[:j]:
            product *= usage[other]
        weights[slot] = (1 - usage[slot]) * product
    return weights


def sharpen(weights: Vector, power: float) -> Vector:
    powered = np.array([weight**power for weight in weights])
    return powered / powered.sum()


def controller_step(net: dict[str, Vector], x: Vector, reads: Vector, hidden: Vector, cell: Vector | None):
    """(hidden, cell) of an LSTM, gates in the order forget, input, output, candidate; without cell, of a tanh layer."""
    total = net["inputs.weight"] @ x + net["inputs.bias"]
    if cell is None:
        return np.tanh(total + net["recurrent.weight"] @ reads), None
    total = total + net["recurrent.weight"] @ np.concatenate([reads, hidden])
    forget, allow, out, candidate = np.split(total, 4)
    cell = sigmoid(forget) * cell + sigmoid(allow) * np.tanh(candidate)
    return sigmoid(out) * np.tanh(cell), cell


def dnc_interface(vector: Vector, r: int, w: int, masked: bool, sharpened: bool) -> dict[str, Any]:
    """The interface vector cut into its parts, in the order that our implementation lays them out."""
    at = 0

    def take(count: int) -> Vector:
        nonlocal at
        at += count
        return vector[at - count : at]

    told: dict[str, Any] = {"read_keys": take(r * w).reshape(r, w), "write_key": take(w)}
    told["read_strengths"], told["write_strength"] = oneplus(take(r)), oneplus(take(1))[0]
    told["add"], told["erase"], told["free"] = take(w), sigmoid(take(w)), sigmoid(take(r))
    told["allocate"], told["write"] = sigmoid(take(1))[0], sigmoid(take(1))[0]
    told["read_masks"], told["write_mask"] = [None] * r, None
    if masked:
        told["read_masks"], told["write_mask"] = sigmoid(take(r * w)).reshape(r, w), sigmoid(take(w))
    told["modes"] = [softmax(modes) for modes in take(3 * r).reshape(r, 3)]
    told["powers"] = oneplus(take(2 * r)).reshape(r, 2) if sharpened else None
    assert at == len(vector)
    return told


def dnc_memory_step(state: dict[str, Vector], told: dict[str, Any], deallocate: bool) -> dict[str, Vector]:
    """Memory [N, W], usage, precedence, write [N], links [N, N], read [R, N] after one step, and vectors."""
    memory, links, read = state["memory"], state["links"], state["read"]
    slots, width = memory.shape
    heads = len(read)
    usage, kept = np.zeros(slots), np.ones(slots)
    for i in range(slots):
        for head in range(heads):
            kept[i] *= 1 - told["free"][head] * read[head, i]
        before, written = state["usage"][i], state["write"][i]
        usage[i] = (before + written - before * written) * kept[i]
    found = content(memory, told["write_key"], told["write_strength"], told["write_mask"])
    write = told["write"] * (told["allocate"] * allocation(usage) + (1 - told["allocate"]) * found)

    new_memory, new_links = np.zeros_like(memory), np.zeros_like(links)
    for i in range(slots):
        for k in range(width):
            held = memory[i, k] * (kept[i] if deallocate else 1)
            new_memory[i, k] = held * (1 - write[i] * told["erase"][k]) + write[i] * told["add"][k]
        for j in range(slots):
            if i != j:
                new_links[i, j] = (1 - write[i] - write[j]) * links[i, j] + write[i] * state["precedence"][j]
    precedence = (1 - sum(write)) * state["precedence"] + write

    weights = np.zeros_like(read)
    for head in range(heads):
        forward, backward = np.zeros(slots), np.zeros(slots)
        for i in range(slots):
            for j in range(slots):
                forward[i] += new_links[i, j] * read[head, j]
                backward[i] += new_links[j, i] * read[head, j]
        if told["powers"] is not None:
            backward, forward = sharpen(backward, told["powers"][head, 0]), sharpen(forward, told["powers"][head, 1])
        found = content(new_memory, told["read_keys"][head], told["read_strengths"][head], told["read_masks"][head])
        modes = told["modes"][head]
        weights[head] = modes[0] * backward + modes[1] * found + modes[2] * forward
    vectors = np.array([sum(weights[head, i] * new_memory[i] for i in range(slots)) for head in range(heads)])
    return {
        "memory": new_memory,
        "usage": usage,
        "precedence": precedence,
        "write": write,
        "links": new_links,
        "read": weights,
        "vectors": vectors,
    }


def dnc_step(net: dict[str, Vector], x: Vector, state: dict[str, Any], switches: dict[str, bool]):
    """(features, state) of one step of one row. `net` holds arrays by the names of our module's parameters."""
    ours = {name.removeprefix("controller."): value for name, value in net.items() if name.startswith("controller.")}
    hidden, cell = controller_step(ours, x, state["vectors"].ravel(), state.get("hidden"), state.get("cell"))
    vector = net["interface.weight"] @ hidden + net["interface.bias"]
    if switches["layer_norm"]:
        centred = vector - vector.mean()
        vector = centred / np.sqrt((centred**2).mean() + 1e-5) * net["norm.weight"] + net["norm.bias"]
    told = dnc_interface(vector, *state["vectors"].shape, switches["masked"], switches["sharpen"])
    new: dict[str, Any] = dnc_memory_step(state, told, switches["deallocate"])
    if cell is not None:
        new.update(hidden=hidden, cell=cell)
    return np.concatenate([hidden, new["vectors"].ravel()]), new


def shifted(weights: Vector, shares: Vector) -> Vector:
    """w~(i) = sum over j of w(j) s(i - j), all indices modulo N; `shares` are of shifts -S, ..., S."""
    slots, reach = len(weights), len(shares) // 2
    moved = np.zeros(slots)
    for i in range(slots):
        for share, step in zip(shares, range(-reach, reach + 1), strict=True):
            moved[i] += weights[(i - step) % slots] * share
    return moved


def ntm_step(net: dict[str, Vector], x: Vector, state: dict[str, Any], readers: int, writers: int):
    """(features, state) of one step of one row: memory [N, W], weights [H, N], vectors [readers, W], hidden, cell."""
    ours = {name.removeprefix("controller."): value for name, value in net.items() if name.startswith("controller.")}
    hidden, cell = controller_step(ours, x, state["vectors"].ravel(), state.get("hidden"), state.get("cell"))
    vector = net["interface.weight"] @ hidden + net["interface.bias"]
    slots, width = state["memory"].shape
    heads = readers + writers
    sizes = [heads * width, heads, heads, 0, heads, writers * width, writers * width]
    sizes[3] = len(vector) - sum(sizes)
    keys, strengths, gates, shares, powers, erase, add = np.split(vector, np.cumsum(sizes)[:-1])
    keys, shares = keys.reshape(heads, width), shares.reshape(heads, -1)
    erase, add = sigmoid(erase).reshape(writers, width), add.reshape(writers, width)

    def address(memory: Vector, head: int) -> Vector:
        found = content(memory, keys[head], oneplus(strengths[head]))  # eq. 5
        gate = sigmoid(gates[head])
        gated = gate * found + (1 - gate) * state["weights"][head]  # eq. 7
        return sharpen(shifted(gated, softmax(shares[head])), oneplus(powers[head]))  # eq. 8, 9

    memory = state["memory"]
    writing = [address(memory, readers + head) for head in range(writers)]
    erased = memory.copy()
    for head in range(writers):
        for i in range(slots):
            erased[i] *= 1 - writing[head][i] * erase[head]  # eq. 3
    for head in range(writers):
        for i in range(slots):
            erased[i] += writing[head][i] * add[head]  # eq. 4
    reading = [address(erased, head) for head in range(readers)]
    vectors = np.array([sum(weights[i] * erased[i] for i in range(slots)) for weights in reading])  # eq. 2
    new = {"memory": erased, "weights": np.array(reading + writing), "vectors": vectors}
    if cell is not None:
        new.update(hidden=hidden, cell=cell)
    return np.concatenate([hidden, vectors.ravel()]), new
