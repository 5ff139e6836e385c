"""Which encoders there are, and how a name becomes one.

A name is `family` or `family:parameter` ("hashing", "hashing:256", "model2vec:/some/folder").
Families come from vecdb itself, from `register`, and from other packages through the entry-point
group "vecdb.encoders"; a registered one hides the others, and vecdb's own hide those of packages, so
that installing something never changes what a name means: two packages that offer one name are refused,
and one that is broken costs its own name alone. `available` reads the names of entry points and runs
nothing of the packages.

Encoders are made when first asked for and kept: loading one may cost seconds. There is no lock;
two threads that ask at once may load twice, and both get the one that was kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vecdb.encoders import wordllama
from vecdb.encoders.base import Encoder
from vecdb.encoders.bert import BertEncoder, lacks_bert
from vecdb.encoders.hashing import HashingEncoder
from vecdb.encoders.model2vec import Model2VecEncoder, lacks_model2vec
from vecdb.encoders.onnx import lacks_onnx, onnx
from vecdb.encoders.sentence_transformers import (
    SentenceTransformersEncoder,
    lacks_sentence_transformers,
)
from vecdb.encoders.wordllama import WordLlamaEncoder
from vecdb.errors import InvalidArgument, VecdbError

__all__ = ["available", "get", "missing", "register"]

GROUP = "vecdb.encoders"

_registered: dict[str, Callable[..., Encoder]] = {}
_made: dict[str, Encoder] = {}


def get(name: str | Encoder) -> Encoder:
    """Return the encoder called `name`; an encoder object is returned as it is.

    Raises InvalidArgument for an unknown name, listing the known ones; for a family whose packages are
    not installed, naming what to install; and for another package's encoder that cannot be loaded or
    made, naming the package and the reason.

    >>> get("hashing:64").dim
    64
    """
    if not isinstance(name, str):
        return _as_encoder(name, "the object given as encoder")
    if name not in _made:
        family, _, parameter = name.partition(":")
        encoder = _call(_factory(family), family, parameter)
        _made.setdefault(name, _as_encoder(encoder, f"the factory of encoder {family!r}"))
    return _made[name]


def register(name: str, factory: Callable[..., Encoder]) -> None:
    """Let `get(name)` call `factory()`, and `get("name:x")` call `factory("x")`.

    Replaces an encoder of the same name for this process. Raises InvalidArgument for a name
    that is empty or contains a colon.

    >>> from vecdb.encoders.hashing import HashingEncoder
    >>> register("tiny", lambda: HashingEncoder(16))
    >>> get("tiny").dim
    16
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise InvalidArgument(f"encoder name {name!r} must be a str without a colon")
    if not callable(factory):
        raise InvalidArgument(
            f"encoder {name!r}: factory must be callable and return the encoder; "
            "for an encoder in hand write lambda: encoder"
        )
    _registered[name] = factory
    for made in [made for made in _made if made.partition(":")[0] == name]:
        del _made[made]


def available() -> list[str]:
    """Return the names that `get` knows here, sorted; what lacks a package is left out.

    Encoders of other packages are named without being loaded: `get` says whether one works.

    >>> "hashing" in available()
    True
    """
    names = set(_registered) | set(_BUILT_IN) | set(_entry_points())
    return sorted(name for name in names if not missing(name))


def missing(family: str) -> str | None:
    """Return what to install for one of vecdb's own families, None where nothing is missing."""
    known = {**_BUILT_IN, **_OF_FOLDERS}
    if family in _registered or family not in known:
        return None
    return known[family][1]()


def _factory(family: str) -> Callable[..., Encoder]:
    if family in _registered:
        return _registered[family]
    for ours in (_BUILT_IN, _OF_FOLDERS):
        if family in ours:
            return ours[family][0]
    points = _entry_points()
    if family in points:
        return _of_package(family, points[family])
    known = sorted({*_registered, *_BUILT_IN, *_OF_FOLDERS, *points})
    raise InvalidArgument(
        f"there is no encoder {family!r}; known are {', '.join(known)}; "
        "vecdb.encoders.register(name, factory) adds one"
    )


def _call(factory: Callable[..., Encoder], family: str, parameter: str) -> Encoder:
    given = (parameter,) if parameter else ()
    try:
        return factory(*given)
    except TypeError as exc:
        what = f"does not take the parameter {parameter!r}" if given else "could not be made"
        raise InvalidArgument(f"encoder {family!r} {what}: {exc}") from exc


def _as_encoder(candidate: object, who: str) -> Encoder:
    if isinstance(candidate, Encoder) and not isinstance(candidate, type):
        return candidate
    wanted = ("name", "dim", "metric", "fingerprint", "card", "encode_documents",
              "encode_queries")  # fmt: skip
    lacking = [member for member in wanted if not hasattr(candidate, member)]
    raise InvalidArgument(
        f"{who} is {type(candidate).__name__}, no encoder: it lacks {', '.join(lacking)}; "
        "vecdb.encoders.function(callable, name=, dim=) makes one of a callable"
    )


def _entry_points() -> dict[str, list[Any]]:
    """What packages offer, by name; a package whose metadata cannot be read offers nothing."""
    from importlib.metadata import distributions, entry_points  # 10 ms, and seldom needed

    try:
        points = list(entry_points(group=GROUP))
    except Exception:  # one package's damaged metadata: each for itself
        points = []
        for each in distributions():
            with suppress(Exception):
                points += [point for point in each.entry_points if point.group == GROUP]
    found: dict[str, list[Any]] = {}
    for point in points:
        same = found.setdefault(point.name, [])
        if all(point.value != other.value for other in same):
            same.append(point)
    return found


def _of_package(family: str, points: list[Any]) -> Callable[..., Encoder]:
    """The factory that another package offers; every error of it names the package."""
    if len(points) > 1:
        raise InvalidArgument(
            f"encoder {family!r} is offered by several packages: {', '.join(map(_told, points))}; "
            "uninstall one, or register the one that is meant"
        )
    told = _told(points[0])
    try:
        factory = points[0].load()
    except Exception as error:  # whatever importing it raises
        raise InvalidArgument(
            f"encoder {family!r} of {told} cannot be loaded: {type(error).__name__}: {error}; "
            "install that package anew, or uninstall it"
        ) from error
    if not callable(factory):
        raise InvalidArgument(
            f"encoder {family!r} of {told} is no factory but {type(factory).__name__}: the entry point "
            "must name a callable that returns the encoder"
        )

    def made(*parameters: str) -> Encoder:
        try:
            return _as_encoder(factory(*parameters), f"what {told} returns for encoder {family!r}")
        except (VecdbError, TypeError):  # a TypeError says which parameters it does not take
            raise
        except Exception as error:
            raise InvalidArgument(
                f"encoder {family!r} of {told} could not be made: {type(error).__name__}: {error}"
            ) from error

    return made


def _told(point: Any) -> str:
    """An entry point in words."""
    dist = getattr(point, "dist", None)
    package = f"package {dist.name} {dist.version}" if dist is not None else "a package"
    return f"{package} ({point.value})"


def _hashing(parameter: str | None = None) -> Encoder:
    return HashingEncoder() if parameter is None else HashingEncoder(_dim(parameter))


def _wordllama(parameter: str | None = None) -> Encoder:
    return WordLlamaEncoder() if parameter is None else WordLlamaEncoder(_dim(parameter))


def _bert(parameter: str | None = None) -> Encoder:
    return BertEncoder(_folder("bert", parameter))


def _model2vec(parameter: str | None = None) -> Encoder:
    return Model2VecEncoder(_folder("model2vec", parameter))


def _http(parameter: str | None = None) -> Encoder:
    model = parameter or "model"
    raise InvalidArgument(
        f"an HTTP encoder is given as an object, vecdb.encoders.http(base_url, {model!r}, ...), so that no "
        "file decides where texts are sent; vecdb.encoders.register(name, lambda: ...) gives it a name"
    )


def _onnx(parameter: str | None = None) -> Encoder:
    return onnx(_folder("onnx", parameter))


def _sentence_transformers(parameter: str | None = None) -> Encoder:
    return SentenceTransformersEncoder(_folder("sentence_transformers", parameter))


def _folder(family: str, parameter: str | None) -> str:
    if parameter is None:
        raise InvalidArgument(f'encoder {family!r} needs a folder: "{family}:/path/to/the/model"')
    return parameter


def _dim(parameter: str) -> int:
    if not (parameter.isascii() and parameter.isdigit() and len(parameter) <= 6):
        raise InvalidArgument(f"encoder parameter {parameter!r} must be a dimension, like 256")
    return int(parameter)


# family: (factory, what to install for it, None where nothing is missing)
_BUILT_IN: dict[str, tuple[Callable[..., Encoder], Callable[[], str | None]]] = {
    "hashing": (_hashing, lambda: None),
    "wordllama": (_wordllama, wordllama.missing),
}

# the same of families that are nothing without a folder, so that `available` cannot list them
_OF_FOLDERS: dict[str, tuple[Callable[..., Encoder], Callable[[], str | None]]] = {
    "bert": (_bert, lacks_bert),
    "model2vec": (_model2vec, lacks_model2vec),
    "http": (_http, lambda: None),
    "onnx": (_onnx, lacks_onnx),
    "sentence_transformers": (_sentence_transformers, lacks_sentence_transformers),
}
