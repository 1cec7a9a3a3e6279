"""What a worker answers, looked through before anything of it is used.

Who answers may have another state of this package under the same version, or be out of order:
what it says is then left alone as a whole, for half of it would be the wrong half.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..model import Input, Result
from ..remote.parcels import Blob
from ..traffic import COUNTS, Traffic
from .messages import Afar, Delivery

#: Says which tasks something has become of, and which were not begun.
_TABLES, _LISTS = ("made", "needs"), ("failed", "bound", "left")
_TEXTS = ("unable", "lacks", "died", "overdue", "unwanted", "aside")


class StrangeError(ValueError):
    """It is no answer to what was asked; the text says why."""


def check(answer: Any, tasks: Iterable[str]) -> None:
    """See that an answer says of each task what has become of it, in the words that we know.

    Args:
        answer: see `Mirror.work`.
        tasks: of the order.

    Raises:
        StrangeError: it does not.
    """
    if not isinstance(answer, Mapping):
        raise StrangeError(f"it is a {type(answer).__name__}")
    said: Counter[Any] = Counter()
    for word in _TABLES:
        said.update(list(_table(answer, word)))
    for word in _LISTS:
        said.update(_texts(answer, word))
    for task in tasks:
        said[task] -= 1
    for task, count in said.items():
        if count:
            what = "nothing of a step" if count < 0 else "of a step that it was not asked for"
            raise StrangeError(f"it tells {what}: {task}")
    _check_reasons(answer)
    _check_figures(answer)


def _check_reasons(answer: Mapping[str, Any]) -> None:
    """See that what else is said are texts."""
    texts = [answer[word] for word in _TEXTS if word in answer]
    texts += [*_texts(answer, "packs"), *_table(answer, "needs").values()]
    texts += [answer.get("worker"), answer.get("address")]
    if "unfit" in answer:
        unfit = answer["unfit"]
        if not isinstance(unfit, Sequence) or len(unfit) != 2:
            raise StrangeError("it does not tell what it lacks")
        texts += unfit
    if not all(isinstance(text, str) for text in texts):
        raise StrangeError("it holds something else than text")


def _check_figures(answer: Mapping[str, Any]) -> None:
    """See that times and traffic are figures."""
    figures = [*_table(answer, "since").values()]
    traffic = answer.get("traffic") or {}
    if traffic:
        told = _table(answer, "traffic")
        if told.keys() != {each.name for each in fields(Traffic)}:
            raise StrangeError("it tells of other traffic")
        if not all(isinstance(told[word], str) for word in told.keys() - set(COUNTS)):
            raise StrangeError("it holds something else than text")
        figures += [told[word] for word in COUNTS]
    if not all(_is_figure(figure) for figure in figures):
        raise StrangeError("it holds something else than figures")


def made(pickled: bytes) -> Result | Delivery:
    """Return what has been made of a step, or how it is fetched.

    Raises:
        Exception: it is anything else.
    """
    found = pickle.loads(pickled)
    result = found.result if isinstance(found, Delivery) else found
    if not isinstance(result, Result) or not _is_sound(result):
        raise StrangeError(f"it made a {type(result).__name__} that is none of ours")
    if not isinstance(found, Delivery):
        return result
    if not all(_is_afar(*one) for one in found.afar.items()):
        raise StrangeError("it does not tell where what it made is")
    return found


def _is_sound(result: Result) -> bool:
    """Tell whether all of a result is of the kind that it should be, and nothing of a machine."""
    outputs, seconds = result.outputs, result.seconds
    return (
        all(type(path) is str and type(data) is bytes for path, data in outputs.items())
        and all(type(item) is Input and _is_input(item) for item in result.inputs)
        and all(type(text) is str for text in (result.printed, *result.references))
        and _is_figure(seconds)
        and not result.like
    )


def _is_input(item: Input) -> bool:
    hash(item)  # or it raises
    texts = (item.kind, item.name, item.digest, item.shown, item.via)
    return item.stat is None and all(type(text) is str for text in texts)


def _is_afar(path: Any, afar: Any) -> bool:
    if type(path) is not str or type(afar) is not Afar or type(afar.blob) is not Blob:
        return False
    texts, sizes = (afar.digest, afar.blob.name), (afar.size, afar.blob.size)
    return all(type(text) is str for text in texts) and all(
        type(size) is int and size >= 0 for size in sizes
    )


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0 and math.isfinite(value)


def _table(answer: Mapping[str, Any], word: str) -> Mapping[Any, Any]:
    found = answer.get(word, {})
    if not isinstance(found, Mapping):
        raise StrangeError(f"'{word}' is no table")
    return found


def _texts(answer: Mapping[str, Any], word: str) -> Sequence[str]:
    found = answer.get(word, ())
    if not isinstance(found, (list, tuple)) or not all(type(one) is str for one in found):
        raise StrangeError(f"'{word}' is no list")
    return found
