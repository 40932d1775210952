"""An instruction's arguments by name: what is wrong is said when the tape is written."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason='needs numba: pip install "xpmlp[fast]"')

from argument_lists import long_lists

from xpmlp.kernels.numba import instructions, records, tape
from xpmlp.layers import Linear
from xpmlp.step.compiled.memory import StepMemory
from xpmlp.step.compiled.program import Activation, Program

DTYPE = np.dtype("float32")


@pytest.fixture
def program():
    memory = StepMemory(Linear(3, 5, rng=0), None, DTYPE)
    return Program(None, 4, Activation(None, 3, 0), memory)


def arrays(program, **others):
    sizes = {"x": (4, 5), "scale": 5, "y": (4, 5)}
    made = {name: program.buffer(*np.atleast_1d(size)) for name, size in sizes.items()}
    return {"apart": 20, **made, **others}


def test_all_names(program):
    given = arrays(program)
    row = program.add(instructions.scaled_columns, columns=5, **given, work=0)
    x, scale, y = (tape.address_of(given[name]) for name in ("x", "scale", "y"))
    assert row.tolist() == [1, 4, 5, x, 20, scale, y]


def test_a_missing_name(program):
    given = arrays(program)
    del given["scale"]
    with pytest.raises(TypeError, match=r"Scaled.*missing.*'scale'"):
        program.add(instructions.scaled_columns, columns=5, **given, work=0)


def test_an_unknown_name(program):
    with pytest.raises(TypeError, match=r"Scaled.*unexpected.*'z'"):
        program.add(instructions.scaled_columns, columns=5, **arrays(program), z=1, work=0)


def test_swapped_arrays(program):
    given = arrays(program)
    given["x"], given["scale"] = given["scale"], given["x"]
    with pytest.raises(TypeError, match=r"Scaled.*expected x to be 20 numbers.*got 5"):
        program.add(instructions.scaled_columns, columns=5, **given, work=0)


def test_an_array_of_another_type(program):
    given = arrays(program, scale=np.ones(5))
    with pytest.raises(TypeError, match=r"scale to be 5 numbers of float32, got 5 of float64"):
        program.add(instructions.scaled_columns, columns=5, **given, work=0)


def test_an_array_in_a_size(program):
    with pytest.raises(TypeError, match=r"Scaled.*columns to be no array"):
        program.add(instructions.scaled_columns, columns=np.ones(5), **arrays(program), work=0)


def test_a_plain_tuple_has_the_same_order():
    kinds = instructions.scaled_columns.record
    given = {name: i for i, name in enumerate(kinds._fields)}
    assert kinds.plain(**given) == tuple(kinds(**given))
    with pytest.raises(TypeError):
        kinds.plain(1, 2, 3)


def test_no_two_instructions_have_one_name():
    def _scaled_columns(a, first, last):
        pass

    _scaled_columns.__module__ = "xpmlp.kernels.numba.adapters"
    with pytest.raises(ValueError, match=r"two instructions adapters\._scaled_columns"):
        records.by_rows(instructions.scaled_columns.record, _scaled_columns)


def test_nothing_is_told_apart_by_place_alone():
    assert list(long_lists()) == []
