"""Tables as people have them: read, understood column by column, and turned into numbers.

``reader`` makes columns of whatever file it is, ``kinds`` decides what each column is, ``encoder``
learns on training rows how to write it as numbers, and ``load`` puts the three together.
"""

from .codes import NumberCodes
from .columns import Column, Table
from .encoder import TableEncoder
from .load import load_table
from .reader import ENDINGS, ReadOptions, read_table

__all__ = [
    "ENDINGS",
    "Column",
    "NumberCodes",
    "ReadOptions",
    "Table",
    "TableEncoder",
    "load_table",
    "read_table",
]
