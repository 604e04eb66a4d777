"""Dates as people write them, in four languages, and as ISO 8601 has them: pairs to learn translation from.

Every day from 1950 to 2049 belongs to training, to validation or to the test, so that no date is judged that was
learned. A year of two digits stands for the only one in that range; numbers between dots are day and month, as in
German, those between strokes month and day, as in America, unless the year comes first. So nothing is ambiguous.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..envs.spec import ObservationSpec
from .sequences import NOT_ASKED, Batch, SequenceDataset, Sequences, join

kind = "generated: 25,000 dates as people write them, in four languages, letter by letter, to be told as 1998-03-03"

Date = datetime.date
FIRST, LAST = Date(1950, 1, 1), Date(2049, 12, 31)
TRAINED, VALIDATED, TESTED = 25_000, 2_000, 2_000  # pairs; of the last two each has a day of its own
SEED = 8601  # of the split, and of what is written


def _words(text: str) -> list[str]:
    return text.split()


MONTHS = {
    "en": _words("January February March April May June July August September October November December"),
    "de": _words("Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
    "fr": _words("janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
    "es": _words("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
}
DAYS = {
    "en": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "de": _words("Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag"),
    "fr": _words("lundi mardi mercredi jeudi vendredi samedi dimanche"),
    "es": _words("lunes martes miércoles jueves viernes sábado domingo"),
}
ROMAN = _words("I II III IV V VI VII VIII IX X XI XII")
_ONES = _words("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth")
_TEENS = _words("fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth")
_TWENTIES = [f"twenty-{word}" for word in _ONES[:9]]
ORDINALS = [*_ONES, *_TEENS, *_TWENTIES, "thirtieth", "thirty-first"]


def _month(date: Date, language: str) -> str:
    return MONTHS[language][date.month - 1]


def _weekday(date: Date, language: str) -> str:
    return DAYS[language][date.weekday()]


def _ordinal(day: int) -> str:
    """1st, 2nd, 3rd, 4th, ..., 11th, 12th, 13th, ..., 31st."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{'th' if day in (11, 12, 13) else ending}"


def _french_day(date: Date) -> str:
    return "1er" if date.day == 1 else str(date.day)


FORMATS: dict[str, Callable[[Date], str]] = {
    "March 3, 1998": lambda d: f"{_month(d, 'en')} {d.day}, {d.year}",
    "3 March 1998": lambda d: f"{d.day} {_month(d, 'en')} {d.year}",
    "Mar 3, '98": lambda d: f"{_month(d, 'en')[:3]} {d.day}, '{d.year % 100:02}",
    "03-Mar-1998": lambda d: f"{d.day:02}-{_month(d, 'en')[:3]}-{d.year}",
    "Tuesday, March 3rd, 1998": lambda d: f"{_weekday(d, 'en')}, {_month(d, 'en')} {_ordinal(d.day)}, {d.year}",
    "Tue 3 Mar 1998": lambda d: f"{_weekday(d, 'en')[:3]} {d.day} {_month(d, 'en')[:3]} {d.year}",
    "the 3rd of March 1998": lambda d: f"the {_ordinal(d.day)} of {_month(d, 'en')} {d.year}",
    "the third of March, 1998": lambda d: f"the {ORDINALS[d.day - 1]} of {_month(d, 'en')}, {d.year}",
    "1998, March the 3rd": lambda d: f"{d.year}, {_month(d, 'en')} the {_ordinal(d.day)}",
    "3/25/1998": lambda d: f"{d.month}/{d.day}/{d.year}",
    "3. März 1998": lambda d: f"{d.day}. {_month(d, 'de')} {d.year}",
    "Dienstag, den 3. März 1998": lambda d: f"{_weekday(d, 'de')}, den {d.day}. {_month(d, 'de')} {d.year}",
    "3.3.1998": lambda d: f"{d.day}.{d.month}.{d.year}",
    "03.03.98": lambda d: f"{d.day:02}.{d.month:02}.{d.year % 100:02}",
    "3. III. 1998": lambda d: f"{d.day}. {ROMAN[d.month - 1]}. {d.year}",
    "le 3 mars 1998": lambda d: f"le {_french_day(d)} {_month(d, 'fr')} {d.year}",
    "mardi 3 mars 1998": lambda d: f"{_weekday(d, 'fr')} {_french_day(d)} {_month(d, 'fr')} {d.year}",
    "3 de marzo de 1998": lambda d: f"{d.day} de {_month(d, 'es')} de {d.year}",
    "martes, 3 de marzo de 1998": lambda d: f"{_weekday(d, 'es')}, {d.day} de {_month(d, 'es')} de {d.year}",
    "1998/3/3": lambda d: f"{d.year}/{d.month}/{d.day}",
    "19980303": lambda d: f"{d.year:04}{d.month:02}{d.day:02}",
}
CASES: tuple[tuple[Callable[[str], str], float], ...] = ((str, 0.6), (str.lower, 0.25), (str.upper, 0.15))


def _letters() -> tuple[str, ...]:
    """All characters that a date can be written with."""
    names = [name for table in (MONTHS, DAYS) for words in table.values() for name in words]
    plain = "".join(["0123456789 ,.'-/ the of den le de er st nd rd th", *names, *ROMAN, *ORDINALS])
    return tuple(sorted(set(plain) | set(plain.lower()) | set(plain.upper())))


LETTERS = _letters()
SYMBOLS = tuple("0123456789-")  # of the translation; one more says that it ends
SPEC = ObservationSpec((), "int64", 0, len(LETTERS) - 1, vocabulary=len(LETTERS))


@dataclass(frozen=True, kw_only=True)
class Pairs(Sequences):
    """Sequences with what they are to be translated to; no step is asked for by itself."""

    written: Tensor  # int64 [N, L]: symbols and the end's number, then -1

    def take(self, index: Tensor) -> Batch:
        """As `Sequences.take`, and "written" `[B, L]`."""
        return super().take(index) | {"written": self.written[index]}

    def to(self, device: str) -> Pairs:
        return replace(self, **{name: getattr(self, name).to(device) for name in ("x", "target", "start", "written")})


@dataclass(frozen=True, kw_only=True)
class PairsDataset(SequenceDataset):
    """Pairs to learn translation from; `outputs` is the number of symbols and 1, for the end."""

    symbols: tuple[str, ...]  # of the translation, without the end
    train: Pairs
    validation: Pairs
    test: Pairs


def load() -> PairsDataset:
    """The same pairs in every run."""
    generator = np.random.default_rng(SEED)
    days = generator.permutation((LAST - FIRST).days + 1)
    test, validation, rest = np.split(days, [TESTED, TESTED + VALIDATED])
    chosen = generator.choice(rest, TRAINED)
    train, validated, tested = (write(generator, part) for part in (chosen, validation, test))
    return PairsDataset(
        name="dates",
        spec=SPEC,
        outputs=len(SYMBOLS) + 1,
        train=train,
        validation=validated,
        test=tested,
        words=LETTERS,
        symbols=SYMBOLS,
    )


def write(generator: np.random.Generator, days: np.ndarray) -> Pairs:
    """One way of writing each of `days`, which are counted from `FIRST`."""
    dates = [FIRST + datetime.timedelta(int(day)) for day in days]
    ways = list(FORMATS.values())
    formats = generator.integers(0, len(ways), len(dates))
    cases = generator.choice(len(CASES), len(dates), p=[share for _, share in CASES])
    texts = [CASES[case][0](ways[way](date)) for date, way, case in zip(dates, formats, cases, strict=True)]
    return pairs(texts, [date.isoformat() for date in dates])


def pairs(texts: Sequence[str], translations: Sequence[str]) -> Pairs:
    """Texts of `LETTERS` and their translations of `SYMBOLS`, as numbers."""
    number = {letter: place for place, letter in enumerate(LETTERS)}
    x = [np.array([number[letter] for letter in text], np.int64) for text in texts]
    plain = join(x, [np.full(len(text), NOT_ASKED, np.int64) for text in x])
    symbol = {letter: place for place, letter in enumerate(SYMBOLS)}
    written = np.full((len(texts), 1 + max(map(len, translations))), NOT_ASKED, np.int64)
    for row, translation in zip(written, translations, strict=True):
        row[: len(translation) + 1] = [*(symbol[letter] for letter in translation), len(SYMBOLS)]
    return Pairs(plain.x, plain.target, plain.start, written=torch.from_numpy(written))
