"""Read the pickles of CIFAR-10's Python archive without running anything that is in them.

A pickle is a program, and loading one from the network runs it. Two walls stand here. First every
opcode is read by ``pickletools`` (which executes nothing) and must be among the few that plain
dictionaries, lists, strings and arrays need. Then the unpickler's every global name is answered
with an inert stand-in defined here: no name leads to real code, NumPy's own included. What comes
out is a dictionary of plain values, its arrays made from checked sizes and raw bytes.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any, ClassVar

import numpy as np

from ..errors import DataError

_MAX_BYTES = 1 << 26  # a real batch is 31 MB
_MAX_MEMO = 1 << 20  # the memo is a table: a huge index would make a huge table
# What Python 2 wrote, and what protocols 2 to 4 of Python 3 write for the same values.
_OPCODE_NAMES = """
    PROTO FRAME STOP MARK EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG
    LONG1 STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES
    SHORT_BINBYTES GLOBAL STACK_GLOBAL REDUCE BUILD PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    MEMOIZE
"""
_OPCODES = frozenset(_OPCODE_NAMES.split())


def read_array_pickle(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a pickle that may hold numbers, strings, lists and uint8 arrays only.

    Parameters
    ----------
    data : bytes
        The pickle.
    where : str
        The file's name, for messages.

    Returns
    -------
    dict
        String keys; arrays as uint8 ndarrays.

    Raises
    ------
    DataError
        If the pickle is damaged, or asks for anything else. Nothing of it has then been executed.
    """
    if len(data) > _MAX_BYTES:
        raise DataError(
            f"`{where}`: expected a CIFAR-10 batch of about 31 MB, got {len(data)} bytes; "
            "download the archive again"
        )
    _check_opcodes(data, where)
    try:
        loaded = _InertUnpickler(io.BytesIO(data), encoding="latin1").load()
        if not isinstance(loaded, dict):
            raise ValueError(f"it holds a {type(loaded).__name__}, not a dictionary")
        return {str(_text(key)): _plain(value) for key, value in loaded.items()}
    except DataError:
        raise
    except Exception as error:  # whatever a hostile byte sequence provokes, it is a bad file
        raise _refusal(where, f"{type(error).__name__}: {error}") from error


def _check_opcodes(data: bytes, where: str) -> None:
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _OPCODES:
                raise _refusal(where, f"opcode {opcode.name}")
            index = argument if opcode.name.endswith("PUT") else 0
            if not isinstance(index, int) or not 0 <= index <= _MAX_MEMO:
                raise _refusal(where, f"memo index {argument}")
    except DataError:
        raise
    except Exception as error:  # pickletools raises many kinds on damaged input
        raise DataError(
            f"`{where}`: expected a whole pickle, got a damaged one ({error}); "
            "download the archive again"
        ) from error


def _refusal(where: str, what: str) -> DataError:
    return DataError(
        f"`{where}`: expected a pickle of numbers, strings and uint8 arrays only, got {what:.200}; "
        "it was refused before anything in it could run. Use CIFAR-10's official archive, "
        "or the binary version, which has no pickles"
    )


class _Array:
    """Stands in for a NumPy array while its pickle is read."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands in for a NumPy dtype."""

    def __init__(self, code: Any, *_: Any):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment: nothing that one byte a value depends on."""


_InPython: Any = vars(pickle)["_Unpickler"]


class _InertUnpickler(_InPython):
    """An unpickler in which no name means what it says, and keys are text.

    It is Python's own in Python: the one in C hashes any key, and that of a tuple that holds
    another twice, which holds another twice, and so on, takes forever.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_InPython.dispatch)

    def _set_items(self) -> None:
        self._check_keys(self.stack[::2])
        super().load_setitems()

    def _set_item(self) -> None:
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()

    def _check_keys(self, keys: list[Any]) -> None:
        if not all(isinstance(key, str | bytes) for key in keys):
            raise pickle.UnpicklingError("a key that is no text")

    def _new_dict(self) -> None:
        self._check_keys(self.stack[::2])
        super().load_dict()

    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.DICT[0]] = _new_dict

    def __init__(self, file: io.BytesIO, *, encoding: str):
        super().__init__(file, encoding=encoding)

        # Made anew for each file: a hostile pickle can set attributes on what it is handed.
        class Array(_Array): ...

        class Dtype(_Dtype): ...

        class Ndarray: ...  # only ever passed to _reconstruct as an argument

        def encode(text: Any, encoding: Any = "latin1") -> bytes:
            if not isinstance(text, str) or encoding != "latin1":
                raise pickle.UnpicklingError("an encoding other than latin1")
            return text.encode("latin1")

        self._names: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): Ndarray,
            ("numpy", "dtype"): Dtype,
            ("numpy.core.multiarray", "_reconstruct"): Array,
            ("numpy._core.multiarray", "_reconstruct"): Array,
            ("_codecs", "encode"): encode,
        }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._names[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"the name {module_name}.{global_name}") from None


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    """A stand-in array as a real one; other values must be plain."""
    if isinstance(value, _Array):
        return _to_array(value)
    if isinstance(value, list):  # of plain values: one of lists may be endless
        return [_plain(item) if not isinstance(item, list) else _nested() for item in value]
    if value is None or isinstance(value, str | bytes | int):
        return _text(value)
    raise ValueError(f"a {type(value).__name__}")


def _nested() -> Any:
    raise ValueError("a list within a list")


def _to_array(array: _Array) -> np.ndarray:
    """Make an array of the state ``(version, shape, dtype, fortran order, bytes)``."""
    _, shape, dtype, fortran, raw = array.state
    if not isinstance(dtype, _Dtype) or str(_text(dtype.code)).lstrip("|") != "u1":
        raise ValueError("an array that is not of uint8")
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not whole or not isinstance(raw, bytes) or math.prod(shape) != len(raw):
        raise ValueError("an array whose bytes do not fit its shape")
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")
