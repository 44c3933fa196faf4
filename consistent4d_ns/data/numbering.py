"""Which file names form a series of frames, in which order, and how far apart in time: pure functions of names."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import PurePath

from consistent4d_ns.data.times import Spacing
from consistent4d_ns.errors import InputError

NUMBER = re.compile(r"(?:^|(?<=[_.=(]))[-+]\d+|\d+")
"""A number in a name. A hyphen is a minus sign only where it does not separate words (`frame_-3`, not `frame-3`)."""
SIGNED_NUMBER = re.compile(r"[-+]?\d+")
"""A number where hyphens are known to be signs."""
DATE_TIME = re.compile(
    r"(?<!\d)(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)[-_ T.]?(\d\d)[-_.h:]?(\d\d)[-_.m:]?(\d\d)(?:[-_.,]?(\d{3,9}))?(?!\d)"
)
"""Year, month, day, hour, minute, second and, where given, the decimals of the second."""
YEARS = range(1900, 2200)
"""Years of recordings; seconds since 1970 with nine decimals (`17...`) look like dates of other years."""
DECIMAL = re.compile(r"(?<!#\.)#\.#(?!\.?#)")
"""A decimal number in a template, and not a version (`1.2.3`)."""
STAMP_STEP = 10
"""Whole numbers this far apart or further may be time stamps; closer ones that differ in their steps have gaps."""
LONGEST_PAUSE = 100
"""Longest pause between frames with time stamps, in median steps; beyond that a name is no part of the series."""


@dataclass(frozen=True)
class Name:
    """A file name, split into text and numbers."""

    name: str
    template: str
    """The name without suffix and with `#` for each number."""
    numbers: tuple[str, ...]
    """The digits of the numbers, with their signs."""


@dataclass(frozen=True)
class Series:
    """Names in order of time."""

    names: tuple[str, ...]
    spacing: Spacing


def find_series(folder: str, names: Sequence[str]) -> Series:
    """The series that most of the names belong to.

    Args:
        folder: Name of the folder in messages.
        names: File names with suffixes, at least one.

    Raises:
        InputError: There is no such series, or it has a gap, or a number twice.
    """
    if len(names) == 1:
        return Series(tuple(names), Spacing.even(1))
    parsed = _majority_template(folder, _parse_all(names))
    if dates := _date_times(folder, parsed):
        return _stamped_series(folder, parsed, dates)
    if decimals := _decimal_seconds(folder, parsed):
        seconds, resolution = decimals
        return _stamped_series(folder, parsed, seconds, resolution)
    parsed, column = _counting_column(folder, parsed, len(names))
    return _numbered_series(folder, parsed, [int(name.numbers[column]) for name in parsed])


def _parse_all(names: Sequence[str]) -> list[Name]:
    """All names; `frame-1` beside `frame0` shows that hyphens are signs."""
    parsed = [_parse(name, NUMBER) for name in names]
    templates = {name.template for name in parsed}
    signed = {template for template in templates if "-#" in template and template.replace("-#", "#") in templates}
    return [_parse(name.name, SIGNED_NUMBER) if name.template in signed else name for name in parsed]


def _parse(name: str, number: re.Pattern[str]) -> Name:
    stem = PurePath(name).stem
    return Name(name, number.sub("#", stem), tuple(number.findall(stem)))


def _majority_template(folder: str, parsed: list[Name]) -> list[Name]:
    """The names of the template that more than half of them have, if it has a number."""
    (template, count), *others = Counter(name.template for name in parsed).most_common()
    if 2 * count <= len(parsed) or "#" not in template:
        examples = [next(n.name for n in parsed if n.template == kind) for kind, _ in ((template, 0), *others[:2])]
        raise _several_series(folder, examples)
    return [name for name in parsed if name.template == template]


def _counting_column(folder: str, parsed: list[Name], available: int) -> tuple[list[Name], int]:
    """The names that agree in all numbers but one, and which number that is.

    They are more than half of all `available` names. A number that is different in every name counts them although
    others differ, too (`0001_score87`).
    """
    distinct = [len(set(column)) for column in _columns(parsed)]
    counting = distinct.index(max(distinct))
    keys = [name.numbers[:counting] + name.numbers[counting + 1 :] for name in parsed]
    common, count = Counter(keys).most_common(1)[0]
    majority = [name for name, key in zip(parsed, keys, strict=True) if key == common]
    if 2 * count > available and not _count_on(parsed, majority, counting):
        return majority, counting
    if distinct[counting] < len(parsed):
        raise _several_series(folder, [parsed[keys.index(key)].name for key in list(dict.fromkeys(keys))[:3]])
    return parsed, counting


def _count_on(parsed: list[Name], majority: list[Name], counting: int) -> bool:
    """Whether the names outside the majority count on within it or without a gap: then they belong to the series."""
    numbers = sorted(int(name.numbers[counting]) for name in parsed)
    if _is_consecutive(numbers):
        return len(majority) < len(parsed)
    kept = {int(name.numbers[counting]) for name in majority}
    others = [int(name.numbers[counting]) for name in parsed if name not in majority]
    return bool(others) and all(min(kept) < other < max(kept) and other not in kept for other in others)


def _several_series(folder: str, examples: Sequence[str]) -> InputError:
    """No series has the majority."""
    return InputError(
        f"{folder} holds no single series of numbered frames (there are {', '.join(examples)}): "
        "keep only the frames there, named by one number each, or give another folder with --data"
    )


def _date_times(folder: str, parsed: list[Name]) -> dict[Name, float] | None:
    """Seconds, from the first, of names that are dates with a time of day; None for all others.

    Other numbers beside distinct times do not matter; one that is different in every name counts the frames instead.

    Raises:
        InputError: Names have the same time and differ in another number (`20240101_120000_1`).
    """
    matches = {name: DATE_TIME.search(PurePath(name.name).stem) for name in parsed}
    times = {name: time for name, match in matches.items() if match and (time := _nanoseconds(match)) is not None}
    if len(times) < len(parsed) or _look_like_dates([match for match in matches.values() if match]):
        return None
    around = {(m.string[: m.start()], m.string[m.end() :]) for m in matches.values() if m}
    if len(around) > 1 and len(set(times.values())) == 1:
        return None
    if len(around) > 1 and len(set(times.values())) < len(parsed):
        if any(_is_consecutive([int(part) for part in column]) for column in _columns(parsed)):
            return None
        raise _several_per_time(folder, sorted(parsed, key=times.__getitem__), times)
    instants = [(match.groups()[:6], match[7] or "") for match in matches.values() if match]
    _check_restarts(folder, parsed, instants)
    begin = min(times.values())
    return {name: (time - begin) / 1e9 for name, time in times.items()}


def _look_like_dates(matches: list[re.Match[str]]) -> bool:
    """Whether names are frame numbers after a date (`20240101_000007`) or after a date and time (`..._120000_007`).

    They count up by one, within the first minute of the day or within one second.
    """
    instants = [match.groups()[:6] for match in matches]
    decimals = [match[7] for match in matches]
    if all(decimals):
        return len(set(instants)) == 1 and _counts_by_one([int(part) for part in decimals])
    days = {instant[:3] for instant in instants}
    first_minute = all(instant[3:5] == ("00", "00") for instant in instants)
    return len(days) == 1 and first_minute and _counts_by_one([int(instant[5]) for instant in instants])


def _several_per_time(folder: str, ordered: list[Name], times: dict[Name, int]) -> InputError:
    """Names with a common time that another number tells apart."""
    first, second = next((a, b) for a, b in pairwise(ordered) if times[a] == times[b])
    return InputError(
        f"{folder} holds several frames of the same time ({first.name}, {second.name}), so that their spacing is "
        "unknown: number all frames in order of time, or keep one per time"
    )


def _nanoseconds(match: re.Match[str]) -> int | None:
    """A date and time as nanoseconds since the year 1; None where there is no such date."""
    *date, decimals = match.groups()
    if int(date[0]) not in YEARS:
        return None
    try:
        moment = datetime(*(int(part) for part in date))  # type: ignore[arg-type]
    except ValueError:
        return None
    return (moment - datetime.min) // timedelta(seconds=1) * 10**9 + int((decimals or "").ljust(9, "0"))


def _decimal_seconds(folder: str, parsed: list[Name]) -> tuple[dict[Name, float], float] | None:
    """Seconds, from the first, of names that hold a decimal number, and the last decimal's unit; None for all others.

    A decimal number in another order than a number that is different in every name is no time (`0001_score0.87`).
    """
    match = DECIMAL.search(parsed[0].template)
    if match is None:
        return None
    place = parsed[0].template[: match.start()].count("#")
    columns = _columns(parsed)
    wholes, decimals = columns[place : place + 2]
    if not all(part.isdigit() for part in decimals) or _are_frame_numbers(wholes, decimals):
        return None
    width = max(len(part) for part in decimals)
    # Subtracted as integers: seconds since 1970 with six decimals leave a float no digit to spare.
    units = [int(whole + part.ljust(width, "0")) for whole, part in zip(wholes, decimals, strict=True)]
    others = columns[:place] + columns[place + 2 :]
    if not _agree_in_order(units, others):
        return None
    _check_restarts(folder, parsed, [((whole,), part) for whole, part in zip(wholes, decimals, strict=True)])
    return {name: (unit - min(units)) / 10**width for name, unit in zip(parsed, units, strict=True)}, 10.0**-width


def _are_frame_numbers(wholes: Sequence[str], decimals: Sequence[str]) -> bool:
    """Whether the digits after the point count up by one while those before it stay (`shot1.0007`, `shot1.0008`).

    Fewer than three digits after a zero are decimals, as are zeros in front of some of unequal length (`0.05`, `0.1`).
    """
    if len(set(wholes)) > 1 or not _counts_by_one([int(part) for part in decimals]):
        return False
    widths = {len(part) for part in decimals}
    if len(widths) > 1:
        return not any(len(part) > 1 and part.startswith("0") for part in decimals)
    return int(wholes[0]) != 0 or min(widths) >= 3


def _agree_in_order(units: Sequence[int], others: Sequence[Sequence[str]]) -> bool:
    """Whether the numbers that are different in every name, if there are any, rise with distinct `units`."""
    if len(set(units)) < len(units) and any(len(set(column)) > 1 for column in others):
        return False
    counters = [[int(part) for part in column] for column in others if len(set(column)) == len(units)]
    order = sorted(range(len(units)), key=units.__getitem__)
    return all(counter[i] < counter[j] for counter in counters for i, j in pairwise(order))


def _columns(parsed: list[Name]) -> list[tuple[str, ...]]:
    """The first numbers of all names, the second ones, and so on."""
    return list(zip(*(name.numbers for name in parsed), strict=True))


def _check_restarts(folder: str, parsed: list[Name], parts: Sequence[tuple[tuple[str, ...], str]]) -> None:
    """Raises: InputError: decimals count up by one from 0 or 1 again and again, as frames of several shots do."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for whole, decimals in parts:
        groups.setdefault(whole, []).append(decimals)
    runs = [group for group in groups.values() if len(group) > 1]
    if not all(all(group) for group in groups.values()) or len(runs) < 2:
        return
    counted = [[int(part) for part in group] for group in groups.values()]
    if not all(_is_consecutive(numbers) and min(numbers) <= 1 for numbers in counted):
        return
    # All the decimals there are, but in the last second, are times at a constant rate.
    filled = sum(max(group) == "9" * len(group[0]) for group in groups.values())
    if filled < len(groups) - 1:
        raise _several_series(folder, [name.name for name in parsed[:3]])


def _is_consecutive(numbers: Sequence[int]) -> bool:
    """Whether numbers are different and have no gap."""
    return len(set(numbers)) == len(numbers) == max(numbers) - min(numbers) + 1


def _counts_by_one(numbers: Sequence[int]) -> bool:
    """Whether the smallest difference between different numbers is 1."""
    ordered = sorted(set(numbers))
    return min((b - a for a, b in pairwise(ordered)), default=1) == 1


def _stamped_series(folder: str, parsed: list[Name], stamps: dict[Name, float], resolution: float = math.inf) -> Series:
    """Names that say when each frame was filmed, in seconds; differences above `resolution` are no rounding."""
    ordered = sorted(parsed, key=lambda name: stamps[name])
    seconds = [stamps[name] for name in ordered]
    _check_distinct(folder, ordered, seconds)
    _check_pauses(folder, ordered, seconds)
    rate = (len(seconds) - 1) / (seconds[-1] - seconds[0]) if len(seconds) > 1 else None
    return Series(tuple(name.name for name in ordered), Spacing.from_stamps(seconds, rate, resolution))


def _numbered_series(folder: str, parsed: list[Name], numbers: list[int]) -> Series:
    """Names that count frames, by one or by a constant step; or time stamps in an unknown unit."""
    pairs = sorted(zip(numbers, parsed, strict=True), key=lambda pair: pair[0])
    numbers, parsed = [number for number, _ in pairs], [name for _, name in pairs]
    _check_distinct(folder, parsed, numbers)
    names = tuple(name.name for name in parsed)
    steps = [b - a for a, b in pairwise(numbers)]
    step = min(steps, default=1)
    if any(difference % step for difference in steps):
        if statistics.median(steps) >= STAMP_STEP:
            _check_pauses(folder, parsed, numbers)
            return Series(names, Spacing.from_stamps(numbers))
        step = math.gcd(*steps)
    for i, difference in enumerate(steps):
        if difference != step:
            raise InputError(
                f"{folder} lacks frame {numbers[i] + step} (between {names[i]} and {names[i + 1]}): "
                "add it or renumber the frames"
            )
    return Series(names, Spacing.even(len(names)))


def _check_pauses(folder: str, ordered: list[Name], stamps: Sequence[float]) -> None:
    """Raises: InputError: between two time stamps lies far more than the usual step."""
    steps = [b - a for a, b in pairwise(stamps)]
    longest = max(range(len(steps)), key=steps.__getitem__)
    ratio = steps[longest] / statistics.median(steps)
    if ratio > LONGEST_PAUSE:
        raise InputError(
            f"{folder} has a pause of {ratio:.0f} times the usual step between {ordered[longest].name} and "
            f"{ordered[longest + 1].name}: give the frames of one recording"
        )


def _check_distinct(folder: str, ordered: list[Name], values: Sequence[float]) -> None:
    """Raises: InputError: a number or time stamp comes twice."""
    for (name, value), (following, next_value) in pairwise(zip(ordered, values, strict=True)):
        if value == next_value:
            which = f"frame {value}" if isinstance(value, int) else f"the time {value:g} s"
            raise InputError(f"{folder} holds {which} twice ({name.name}, {following.name}): remove one of them")
