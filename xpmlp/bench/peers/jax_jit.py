"""JAX under jit: each case is one compiled function, a training step included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cases import Case
from ..shapes import DROPOUT, Net
from ..solver import Arrays, Build, Solver, Training, epoch_solver, race_solver
from .numpy_alone import largest, oriented, parameters_of


def _solver(function: Callable, *arguments: Any) -> Solver:
    """A jitted function of arrays that stay on the device; its results are waited for."""
    import jax

    jitted = jax.jit(function)
    return Solver(lambda: jax.block_until_ready(jitted(*arguments)), _on_host)


def _on_host(results: Any) -> tuple:
    return tuple(np.asarray(result) for result in results)


def _put(inputs: Arrays) -> dict[str, Any]:
    """On the device, class numbers in 32 bits, floats as they are."""
    import jax.numpy as jnp

    narrow = {n: a.astype(np.int32) if a.dtype == np.int64 else a for n, a in inputs.items()}
    return {name: jnp.asarray(array) for name, array in narrow.items()}


def _cross_entropy(logits: Any, labels: Any) -> Any:
    import jax
    import jax.numpy as jnp

    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def _mean_squared_error(y: Any, targets: Any) -> Any:
    import jax.numpy as jnp

    return jnp.mean((y - targets) ** 2)


def _softmax_cross_entropy(case: Case, inputs: Arrays) -> Solver:
    import jax

    arrays = _put(inputs)
    return _solver(jax.value_and_grad(_cross_entropy), arrays["logits"], arrays["labels"])


def _matmul(case: Case, inputs: Arrays) -> Solver:
    import jax.numpy as jnp

    arrays = _put(inputs)
    return _solver(lambda a, b: (jnp.matmul(*oriented(case, a, b)),), arrays["a"], arrays["b"])


def _with_gradients(function: Callable, names: tuple[str, ...], inputs: Arrays) -> Solver:
    """The function's value and its gradients for every argument, from dy."""
    import jax

    def both(dy: Any, *arguments: Any) -> tuple:
        y, backward = jax.vjp(function, *arguments)
        return y, *backward(dy)

    arrays = _put(inputs)
    return _solver(both, arrays["dy"], *(arrays[name] for name in names))


def _linear(case: Case, inputs: Arrays) -> Solver:
    import jax

    return _with_gradients(lambda x, W, b: jax.nn.relu(x @ W + b), ("x", "W", "b"), inputs)


def _normalized(x: Any, gamma: Any, beta: Any, axis: int) -> Any:
    import jax.numpy as jnp

    mean, var = jnp.mean(x, axis, keepdims=True), jnp.var(x, axis, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5) * gamma + beta


def _batch_norm(case: Case, inputs: Arrays) -> Solver:
    return _with_gradients(lambda x, g, b: _normalized(x, g, b, 0), ("x", "gamma", "beta"), inputs)


def _layer_norm(case: Case, inputs: Arrays) -> Solver:
    return _with_gradients(lambda x, g, b: _normalized(x, g, b, 1), ("x", "gamma", "beta"), inputs)


def _mask(key: Any, x: Any, p: float) -> Any:
    import jax
    import jax.numpy as jnp

    return jnp.where(jax.random.bernoulli(key, 1 - p, x.shape), np.float32(1 / (1 - p)), 0.0)


def _dropout(case: Case, inputs: Arrays) -> Solver:
    import jax

    arrays = _put(inputs)
    keys = iter(range(1 << 60))

    def both(step: Any, x: Any, dy: Any) -> tuple:
        mask = _mask(jax.random.key(step), x, DROPOUT).astype(x.dtype)
        return x * mask, dy * mask

    jitted = jax.jit(both)
    return Solver(
        lambda: jax.block_until_ready(jitted(next(keys), arrays["x"], arrays["dy"])), _on_host
    )


def _updated(net_optimizer: str, lr: float) -> Callable:
    """``update(params, grads, state)`` of SGD, Adam or AdamW; state is (m, v, step)."""
    import jax
    import jax.numpy as jnp

    def update(params: dict, grads: dict, state: tuple) -> tuple[dict, tuple]:
        if net_optimizer == "sgd":
            return {n: w - lr * grads[n] for n, w in params.items()}, state
        m, v, step = state
        step = step + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        c1, c2 = 1 - 0.9**step, 1 - 0.999**step
        decay = {n: lr * 0.01 * (net_optimizer == "adamw" and n.startswith("W")) for n in params}
        new = {
            n: w * (1 - decay[n]) - lr * (m[n] / c1) / (jnp.sqrt(v[n] / c2) + 1e-8)
            for n, w in params.items()
        }
        return new, (m, v, step)

    return update


def _no_state(params: dict) -> tuple:
    import jax.numpy as jnp

    zeros = {name: jnp.zeros_like(w) for name, w in params.items()}
    return zeros, {name: jnp.zeros_like(w) for name, w in params.items()}, jnp.float32(0)


def _adam(case: Case, inputs: Arrays) -> Solver:
    import jax

    arrays = _put(inputs)
    names = [name for name in arrays if not name.startswith("d")]
    params = {name: arrays[name] for name in names}
    grads = {name: arrays[f"d{name}"] for name in names}
    update = jax.jit(_updated("adam", 1e-3), donate_argnums=(0, 2))
    state = _no_state(params)

    def run() -> Any:
        nonlocal params, state
        params, state = jax.block_until_ready(update(params, grads, state))

    return Solver(run, lambda _: _on_host(params[name] for name in names))


def stepper(net: Net, parameters: Arrays) -> tuple[Callable, dict, tuple]:
    """``step(params, state, x, targets) -> params, state, loss``, jitted; params and state."""
    import jax
    import jax.numpy as jnp

    params = _put(parameters)
    depth = len(net.sizes) - 1
    criterion = _mean_squared_error if net.loss == "mse" else _cross_entropy
    for number, width in enumerate(net.sizes[1:-1] if net.batchnorm else ()):
        params |= {f"gamma{number}": jnp.ones(width, jnp.float32)}
        params |= {f"beta{number}": jnp.zeros(width, jnp.float32)}
    running = {n: jnp.zeros_like(a) for n, a in params.items() if n.startswith(("gamma", "beta"))}

    def loss_of(p: dict, running: dict, x: Any, targets: Any, step: Any) -> tuple:
        moved = {}
        for i in range(depth - 1):
            x = x @ p[f"W{i}"] + p[f"b{i}"]
            if net.batchnorm:
                # The running statistics are part of a training step, as in the other libraries.
                moved[f"gamma{i}"] = 0.9 * running[f"gamma{i}"] + 0.1 * jnp.var(x, 0)
                moved[f"beta{i}"] = 0.9 * running[f"beta{i}"] + 0.1 * jnp.mean(x, 0)
                x = _normalized(x, p[f"gamma{i}"], p[f"beta{i}"], 0)
            x = jax.nn.relu(x)
            if net.dropout:
                key = jax.random.fold_in(jax.random.key(i), step)
                x = x * _mask(key, x, net.dropout).astype(x.dtype)
        last = depth - 1
        return criterion(x @ p[f"W{last}"] + p[f"b{last}"], targets), moved

    update = _updated(net.optimizer, net.lr)

    def step(params: dict, state: tuple, x: Any, targets: Any) -> tuple:
        optimizer_state, running, count = state
        (loss, running), grads = jax.value_and_grad(loss_of, has_aux=True)(
            params, running, x, targets, count
        )
        params, optimizer_state = update(params, grads, optimizer_state)
        return params, (optimizer_state, running, count + 1), loss

    state = (_no_state(params) if net.optimizer != "sgd" else (), running, jnp.int32(0))
    return jax.jit(step, donate_argnums=(0, 1)), params, state


def _step(case: Case, inputs: Arrays) -> Solver:
    import jax

    inputs = dict(inputs)
    batch = _put({"x": inputs.pop("x"), "targets": inputs.pop("targets")})
    step, params, state = stepper(case.settings["net"], inputs)

    def run() -> Any:
        nonlocal params, state
        params, state, loss = step(params, state, batch["x"], batch["targets"])
        return jax.block_until_ready(loss)

    return Solver(run, lambda loss: _on_host((loss,)))


def _start(case: Case, inputs: Arrays, seed: int) -> Training:
    """Gathering and scaling a batch is inside of the jitted step."""
    import jax
    import jax.numpy as jnp

    net, parameters = parameters_of(case, inputs, seed)
    plain, params, state = stepper(net, parameters)
    arrays = _put({n: inputs[n] for n in ("x", "labels", "x_test", "labels_test")})
    scale, rng = np.float32(1 / largest(inputs["x"])), np.random.default_rng(seed)
    count = len(inputs["labels"])

    def gathered(params: Any, state: Any, x: Any, labels: Any, rows: Any) -> Any:
        return plain(params, state, x[rows].astype(jnp.float32) * scale, labels[rows])

    step = _once("gathered", net, gathered)

    def train_epoch() -> None:
        nonlocal params, state
        order = rng.permutation(count).astype(np.int32)
        for begin in range(0, count, net.batch):
            rows = order[begin : begin + net.batch]
            params, state, _ = step(params, state, arrays["x"], arrays["labels"], rows)
        jax.block_until_ready(params)

    def predict(params: dict, x: Any) -> Any:
        x = x.astype(jnp.float32) * scale
        for i in range(len(net.sizes) - 1):
            x = x @ params[f"W{i}"] + params[f"b{i}"]
            x = jax.nn.relu(x) if i < len(net.sizes) - 2 else x
        return jnp.argmax(x, axis=1)

    def accuracy() -> float:
        return float(jnp.mean(predict(params, arrays["x_test"]) == arrays["labels_test"]))

    return train_epoch, accuracy


_compiled: dict[Any, Callable] = {}


def _once(name: str, net: Net, function: Callable) -> Callable:
    """The jitted function, compiled once for all the trainings of a network."""
    import jax

    key = name, net
    if key not in _compiled:
        _compiled[key] = jax.jit(function, donate_argnums=(0, 1))
    return _compiled[key]


SOLVERS: dict[str, Build] = {
    "softmax_cross_entropy": _softmax_cross_entropy,
    "matmul": _matmul,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "dropout": _dropout,
    "adam": _adam,
    "step": _step,
    "epoch": epoch_solver(_start),
    "time_to_accuracy": race_solver(_start),
}
