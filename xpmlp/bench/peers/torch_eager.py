"""PyTorch, eagerly: functional calls and autograd for ops, modules and torch.optim for training."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...schedules import OneCycle
from ..cases import Case, initial_parameters
from ..shapes import DROPOUT, FullTraining, Net
from ..solver import Arrays, Build, Solver, Training, epoch_solver, race_solver
from .numpy_alone import largest, oriented, parameters_of

Compile = Callable[[Callable], Callable]


def torch_solvers(compiled: Compile | None = None, device: str = "cpu") -> dict[str, Build]:
    """The solvers, eager or with their functions wrapped by ``compiled``, on a device."""
    lab = _Lab(compiled or (lambda function: function), device)
    builds: dict[str, Build] = {
        "softmax_cross_entropy": lab.softmax_cross_entropy,
        "linear": lab.linear,
        "batch_norm": lab.batch_norm,
        "layer_norm": lab.layer_norm,
        "dropout": lab.dropout,
        "adam": lab.adam,
        "step": lab.step,
        "epoch": epoch_solver(lab.start),
        "time_to_accuracy": race_solver(lab.start),
    }
    if compiled is None:  # a lone product compiles to the same call; trainings: eager ones suffice
        builds |= {"matmul": lab.matmul, "recipe": lab.recipe}
        builds |= {"population_step": lab.population_step}
    else:
        del builds["time_to_accuracy"]
    return builds


class _Lab:
    """Builds solvers for one device, with or without compilation."""

    def __init__(self, compiled: Compile, device: str):
        import torch

        self.torch, self.compiled, self.device = torch, compiled, device

    def tensor(self, array: np.ndarray, grad: bool = False) -> Any:
        """A copy on the device."""
        return self.torch.tensor(array, device=self.device, requires_grad=grad)

    def wait(self) -> None:
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def _forward_backward(self, forward: Callable, arguments: tuple, dy: Any = None) -> Solver:
        """``forward`` of tensors that all want a gradient, and the gradients."""
        torch, forward = self.torch, self.compiled(forward)

        def run():
            y = forward(*arguments)
            grads = torch.autograd.grad(y, arguments, dy)
            self.wait()
            return y.detach(), *grads

        return Solver(run, _on_host)

    def softmax_cross_entropy(self, case: Case, inputs: Arrays) -> Solver:
        cross_entropy = self.torch.nn.functional.cross_entropy
        labels = self.tensor(inputs["labels"])
        logits = self.tensor(inputs["logits"], grad=True)
        return self._forward_backward(lambda x: cross_entropy(x, labels), (logits,))

    def matmul(self, case: Case, inputs: Arrays) -> Solver:
        a, b = oriented(case, self.tensor(inputs["a"]), self.tensor(inputs["b"]))

        def run():
            c = self.torch.bmm(a, b)
            self.wait()
            return c

        return Solver(run, lambda c: _on_host((c,)))

    def linear(self, case: Case, inputs: Arrays) -> Solver:
        f = self.torch.nn.functional
        x, b = self.tensor(inputs["x"], grad=True), self.tensor(inputs["b"], grad=True)
        # Torch keeps a weight as (M, D), which is the layout that it is fastest with.
        W = self.tensor(np.ascontiguousarray(inputs["W"].T), grad=True)
        dy = self.tensor(inputs["dy"])
        solver = self._forward_backward(lambda x, W, b: f.relu(f.linear(x, W, b)), (x, W, b), dy)

        def results(output: tuple) -> tuple:
            y, dx, dW, db = _on_host(output)
            return y, dx, dW.T, db

        solver.results = results
        return solver

    def batch_norm(self, case: Case, inputs: Arrays) -> Solver:
        f = self.torch.nn.functional
        x, gamma, beta = (self.tensor(inputs[n], grad=True) for n in ("x", "gamma", "beta"))
        return self._forward_backward(
            lambda x, gamma, beta: f.batch_norm(x, None, None, gamma, beta, training=True),
            (x, gamma, beta),
            self.tensor(inputs["dy"]),
        )

    def layer_norm(self, case: Case, inputs: Arrays) -> Solver:
        f, features = self.torch.nn.functional, (case.settings["features"],)
        x, gamma, beta = (self.tensor(inputs[n], grad=True) for n in ("x", "gamma", "beta"))
        return self._forward_backward(
            lambda x, gamma, beta: f.layer_norm(x, features, gamma, beta),
            (x, gamma, beta),
            self.tensor(inputs["dy"]),
        )

    def dropout(self, case: Case, inputs: Arrays) -> Solver:
        f, x = self.torch.nn.functional, self.tensor(inputs["x"], grad=True)
        dy = self.tensor(inputs["dy"])
        return self._forward_backward(lambda x: f.dropout(x, DROPOUT, training=True), (x,), dy)

    def adam(self, case: Case, inputs: Arrays) -> Solver:
        names = [name for name in inputs if not name.startswith("d")]
        params = [self.tensor(inputs[name], grad=True) for name in names]
        for name, param in zip(names, params, strict=True):
            param.grad = self.tensor(inputs[f"d{name}"])
        optimizer = self.torch.optim.Adam(params, lr=1e-3, fused=True)
        step = self.compiled(optimizer.step)

        def run() -> None:
            step()
            self.wait()

        return Solver(run, lambda _: _on_host(tuple(param.detach() for param in params)))

    def network(self, net: Net, parameters: Arrays) -> tuple[Any, Callable]:
        """The modules, and ``step(x, labels)`` that returns the loss."""
        torch = self.torch
        modules, last = [], len(net.sizes) - 2
        for number, (d, m) in enumerate(zip(net.sizes[:-1], net.sizes[1:], strict=True)):
            linear = torch.nn.Linear(d, m, device=self.device)
            with torch.no_grad():
                linear.weight.copy_(self.tensor(parameters[f"W{number}"]).T)
                linear.bias.copy_(self.tensor(parameters[f"b{number}"]))
            modules.append(linear)
            if number < last:
                modules += [torch.nn.BatchNorm1d(m, device=self.device)] if net.batchnorm else []
                modules.append(torch.nn.ReLU())
                modules += [torch.nn.Dropout(net.dropout)] if net.dropout else []
        model = torch.nn.Sequential(*modules)
        f, optimizer = torch.nn.functional, self.optimizer(model, net.optimizer, net.lr, 0.01)
        criterion = f.mse_loss if net.loss == "mse" else f.cross_entropy
        return model, self.stepper(model, optimizer, criterion)

    def optimizer(self, model: Any, kind: str, lr: float, decay: float) -> Any:
        """torch.optim's in its fastest form; weight decay for the matrices alone, as we have it."""
        optim, parameters = self.torch.optim, list(model.parameters())
        if kind == "sgd":
            return optim.SGD(parameters, lr=lr, fused=True)
        if kind == "adam":
            return optim.Adam(parameters, lr=lr, fused=True)
        groups = [
            {"params": [p for p in parameters if p.ndim == 2], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return optim.AdamW(groups, lr=lr, fused=True)

    def stepper(self, model: Any, optimizer: Any, criterion: Callable) -> Callable:
        loss_of = self.compiled(lambda x, targets: criterion(model(x), targets))

        def step(x: Any, targets: Any) -> Any:
            loss = loss_of(x, targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    def step(self, case: Case, inputs: Arrays) -> Solver:
        _, step = self.network(case.settings["net"], inputs)
        x, targets = self.tensor(inputs["x"]), self.tensor(inputs["targets"])

        def run():
            loss = step(x, targets)
            self.wait()
            return loss

        return Solver(run, lambda loss: _on_host((loss,)))

    def population_step(self, case: Case, inputs: Arrays) -> Solver:
        """One network after another."""
        net: Net = case.settings["net"]
        inputs = dict(inputs)
        x, targets = self.tensor(inputs.pop("x")), self.tensor(inputs.pop("targets"))
        members = range(net.members or 1)
        steps = [self.network(net, {n: a[i] for n, a in inputs.items()})[1] for i in members]

        def run():
            losses = [step(x, targets) for step in steps]
            self.wait()
            return losses

        return Solver(run, lambda losses: _on_host((self.torch.stack(losses),)))

    def start(self, case: Case, inputs: Arrays, seed: int) -> Training:
        net, parameters = parameters_of(case, inputs, seed)
        model, step = self.network(net, parameters)
        x, labels = self.tensor(inputs["x"]), self.tensor(inputs["labels"])
        x_test, labels_test = self.tensor(inputs["x_test"]), self.tensor(inputs["labels_test"])
        scale, torch = 1 / largest(inputs["x"]), self.torch
        generator = torch.Generator().manual_seed(seed)

        def train_epoch() -> None:
            order = torch.randperm(len(x), generator=generator).to(self.device)
            for begin in range(0, len(x), net.batch):
                rows = order[begin : begin + net.batch]
                step(x[rows].float() * scale, labels[rows])
            self.wait()

        def accuracy() -> float:
            return self.accuracy(model, x_test.float() * scale, labels_test)

        return train_epoch, accuracy

    def accuracy(self, model: Any, x: Any, labels: Any) -> float:
        with self.torch.no_grad():
            return (model(x).argmax(dim=1) == labels).float().mean().item()

    def recipe(self, case: Case, inputs: Arrays) -> Solver:
        """What ``xpmlp train mnist`` does: validated each epoch, the best state kept."""
        recipe: FullTraining = case.settings["recipe"]
        torch, held = self.torch, recipe.validation
        x, labels = self.tensor(inputs["x"]), self.tensor(inputs["labels"])
        x_test, labels_test = self.tensor(inputs["x_test"]), self.tensor(inputs["labels_test"])
        root_mean_square = float(np.sqrt(np.mean(inputs["x"][held:].astype(np.float64) ** 2)))
        scale = 1 / root_mean_square
        net = Net(
            recipe.sizes, recipe.batch, "adamw", recipe.lr, batchnorm=True, dropout=recipe.dropout
        )
        parameters = initial_parameters(net.sizes, np.random.default_rng(0))

        def train(epochs: int, rows: int) -> dict[str, float]:
            model, _ = self.network(net, parameters)
            optimizer = self.optimizer(model, "adamw", recipe.lr, recipe.weight_decay)
            cross_entropy = torch.nn.functional.cross_entropy
            smoothed = partial(cross_entropy, label_smoothing=recipe.label_smoothing)
            step = self.stepper(model, optimizer, smoothed)
            steps = epochs * -(-rows // recipe.batch)
            schedule, done, best = OneCycle(total=steps), 0, (-1.0, {})
            begin = time.perf_counter()
            for _ in range(epochs):
                model.train()
                order = held + torch.randperm(rows).to(self.device)
                losses = []
                for first in range(0, rows, recipe.batch):
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.lr * schedule(done)
                    batch = order[first : first + recipe.batch]
                    losses.append(step(x[batch].float() * scale, labels[batch]))
                    done += 1
                torch.stack(losses).mean().item()
                model.eval()
                score = self.accuracy(model, x[:held].float() * scale, labels[:held])
                if score > best[0]:
                    best = score, {k: v.clone() for k, v in model.state_dict().items()}
            model.load_state_dict(best[1])
            self.wait()
            seconds = time.perf_counter() - begin
            reached = self.accuracy(model, x_test.float() * scale, labels_test)
            return {"seconds": seconds, "accuracy": reached, "epochs": epochs}

        return Solver(
            lambda: train(recipe.epochs, len(x) - held),
            own_clock=True,
            warm_up=lambda: train(1, 2000),
        )


def _on_host(results: tuple) -> tuple:
    return tuple(result.detach().cpu().numpy() for result in results)


def start() -> None:
    """Make the solvers; torch is imported now."""
    SOLVERS.update(torch_solvers())


SOLVERS: dict[str, Build] = {}
