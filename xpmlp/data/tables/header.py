"""Whether a text file's first row names its columns, and names that can be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from .cells import Blanks, is_number, looks_typed
from .columns import UNNAMED, listed

LOOK = 60  # rows whose cells are looked at one by one
_SOME = 250  # cells of a column that tell its kind
_BLANK = Blanks()


def has_header(
    first: list[str], body: list[list[str]], width: int, expected: Sequence[str]
) -> tuple[bool, bool]:
    """Whether the first row names the columns, and whether that is beyond doubt."""
    cells = [cell.strip() for cell in first]
    if expected:
        hits = sum(name.strip() in cells for name in expected)
        if 2 * hits >= len(expected) and not all(name.isdigit() for name in expected):
            return True, True
    if not body:
        return (not any(is_number(cell) for cell in cells)), True
    if len(first) == width - 1:
        return True, True
    text_over_typed = numbers_over_numbers = decimals = known = fresh = unlike = 0
    whole_numbers: list[float] = []
    for place, cell in enumerate(cells[:width]):
        below = [row[place].strip() for row in body if not _BLANK(row[place])]
        if not below or _BLANK(cell):
            continue
        typed = sum(map(looks_typed, below[:_SOME])) >= 0.9 * len(below[:_SOME])
        if typed and is_number(below[0]) == is_number(cell) and looks_typed(cell):
            if is_number(cell):
                numbers_over_numbers += 1
                if re.fullmatch(r"\d{1,9}", cell):
                    whole_numbers.append(float(cell))
                    unlike += not any(re.fullmatch(r"[+-]?\d+", text) for text in below)
                else:
                    decimals += 1
            else:  # a date over dates, a truth value over truth values
                if cell in below or not cell.isalpha():
                    decimals += 1
                else:
                    fresh += 1
        elif typed and not looks_typed(cell):
            text_over_typed += 1
        elif is_number(cell):
            known += cell in below
        elif cell in below:
            known += 1
        else:
            fresh += 1
    twice = len(set(filter(None, cells))) < len([cell for cell in cells if cell])
    steps = all(b - a == 1 for a, b in pairwise(whole_numbers))
    years = len(whole_numbers) >= 2 and all(1800 <= number <= 2200 for number in whole_numbers)
    counted = steps and (years or len(whole_numbers) >= 3)  # 2018, 2019 or 1, 2, 3
    if counted and not decimals and not known:
        differ = any(
            not re.fullmatch(r"\d+", row[place].strip())
            for row in body[:LOOK]
            for place in range(min(width, len(row)))
        )
        return (True, text_over_typed > 0) if differ else (text_over_typed > 0, False)
    if decimals or known or twice:
        # Texts over numbers weigh more than a name that is a value as well.
        header = text_over_typed > max(decimals, known, int(twice))
        return header, header or not (text_over_typed or fresh)
    if text_over_typed:
        return True, text_over_typed >= numbers_over_numbers or text_over_typed > 1
    if numbers_over_numbers:
        if fresh and unlike == numbers_over_numbers:  # whole numbers over others
            return True, False
        return False, fresh == 0 or len(body) > 3
    return True, False if fresh and len(body) < 3 else fresh > 0


def tidy_names(names: Sequence[str], how: list[str]) -> list[str]:
    """Names without blanks around them, none empty, none twice; ``how`` is told of changes."""
    tidy: list[str] = []
    taken = Counter(name.strip() for name in names)
    twice = sorted(name for name, count in taken.items() if count > 1 and name)
    seen: Counter[str] = Counter()
    for place, raw in enumerate(names):
        name = re.sub(r"\s+", " ", raw.strip()) or f"{UNNAMED}_{place + 1}"
        seen[name] += 1
        if seen[name] > 1:
            number = seen[name]
            while f"{name}.{number}" in taken:
                number += 1
            name = f"{name}.{number}"
        tidy.append(name)
    if twice:
        how.append(f"names that came twice got a number: {listed(twice)}")
    return tidy
