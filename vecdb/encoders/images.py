"""How does a picture become the numbers that an image model reads?

As the folder's `preprocessor_config.json` says, the form in which Hugging Face's image processors are saved:
scale to a size, cut the middle out, divide by 255, subtract a mean and divide by a deviation, channels first.

A picture is a numpy array of uint8, (height, width), (height, width, 1), (height, width, 3) in red, green,
blue, or (height, width, 4), whose fourth channel is left out; or a Pillow image, where Pillow is installed.

Invariants (checked by tests/unit/test_images.py):
  1. Each axis is scaled as Pillow scales it, to the bit: its filters, its fixed-point weights (Pillow,
     `src/libImaging/Resample.c`); first the width, then the height, as it always did until version 13 chose
     by the sizes. So a vector does not depend on what is installed.
  2. What the file asks and is not known here (padding, tiles) is refused: it would make other numbers.

Rejected: Pillow for scaling (an image model would need it for arrays too), and float pictures (nobody can
tell whether 1.0 is white or nearly black).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Vectors
from vecdb.encoders.weights import read_object
from vecdb.errors import InvalidArgument

__all__ = ["CONFIG", "Preprocessor", "as_picture", "scaled"]

CONFIG = "preprocessor_config.json"
BITS = 22  # Pillow's weights are integers of 1 / 2**22
LARGEST = 8192  # pixels of a side that a model may read
_REFUSED = ("do_pad", "do_split_image", "do_image_splitting", "do_thumbnail", "do_align_long_axis",
            "crop_pct", "do_reduce_labels", "do_flip_channel_order", "image_grid_pinpoints")  # fmt: skip

_054, _046 = float(np.float32(0.54)), float(np.float32(0.46))  # floats in Pillow's source

Picture = NDArray[np.uint8]


class Preprocessor(NamedTuple):
    """What is done with a picture, as the file says."""

    shortest: int | None  # the shorter side becomes so long
    size: tuple[int, int] | None  # (height, width); neither: the picture keeps its size
    resample: int
    crop: tuple[int, int] | None
    factor: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    @classmethod
    def read(cls, path: Path, who: str) -> Preprocessor:
        """Read the file; InvalidArgument names what is wrong or unknown in it."""
        config = read_object(path, who)
        unknown = [key for key in _REFUSED if config.get(key)]
        if unknown:
            raise InvalidArgument(f"{who}: {path}: {', '.join(unknown)} is not known here")
        try:
            return _preprocessor(config)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidArgument(f"{who}: {path}: {error}") from None

    def numbers(self, picture: Picture) -> Vectors:
        """Return what the model reads: float32 (3, height, width)."""
        height, width = self.size or picture.shape[:2]
        if self.shortest is not None:
            height, width = _by_shorter(picture.shape[0], picture.shape[1], self.shortest)
        made = scaled(picture, height, width, self.resample)
        if self.crop is not None:
            made = _middle(made, *self.crop)
        x = made.astype(np.float32)
        x *= np.float32(self.factor)
        x -= np.array(self.mean, np.float32)
        x /= np.array(self.deviation, np.float32)
        return np.ascontiguousarray(x.transpose(2, 0, 1))


def as_picture(given: Any, row: int, who: str) -> Picture:
    """A picture as uint8 (height, width, 3); InvalidArgument names the row of one that is none."""
    if hasattr(given, "convert") and hasattr(given, "getbands"):  # Pillow's
        given = np.asarray(given.convert("RGB"))
    array = np.asarray(given) if isinstance(given, np.ndarray) else None
    if array is None or array.dtype != np.uint8:
        what = type(given).__name__ if array is None else f"an array of {array.dtype}"
        raise InvalidArgument(
            f"images[{row}] given to {who} is {what}: give a numpy array of uint8 (height, width, 3) or a "
            "Pillow image"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InvalidArgument(
            f"images[{row}] given to {who} has shape {np.shape(given)}: (height, width, 3) is wanted, and "
            "one image is given in a list"
        )
    array = array[:, :, :3]
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array


# --- scaling as Pillow does it ---------------------------------------------------------------------


def scaled(picture: Picture, height: int, width: int, resample: int) -> Picture:
    """A picture (h, w, channels) in another size. Costs a look at every pixel for each axis that changes."""
    if resample == 0:
        rows, columns = _nearest(picture.shape[0], height), _nearest(picture.shape[1], width)
        return np.ascontiguousarray(picture[rows][:, columns])
    if width != picture.shape[1]:
        picture = _along_width(picture, width, resample)
    if height != picture.shape[0]:
        picture = _along_width(picture.transpose(1, 0, 2), height, resample).transpose(1, 0, 2)
    return picture


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """The old place of each new one, stepped as in C, where rounding adds up."""
    step = old / new
    steps = np.full(new, step)
    steps[0] = step * 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), old - 1)


def _along_width(picture: Picture, width: int, resample: int) -> Picture:
    """Each new column is a weighted sum of old ones, rounded."""
    made = np.empty((picture.shape[0], width, picture.shape[2]), dtype=np.uint8)
    for column, (first, weights) in enumerate(_weights(picture.shape[1], width, resample)):
        # sums of integers below 2**53: exact in float64
        window = picture[:, first : first + len(weights)].astype(np.float64)
        total = np.einsum("hwc,w->hc", window, weights)
        made[:, column] = np.clip((total + (1 << (BITS - 1))) // (1 << BITS), 0, 255)
    return made


def _weights(old: int, new: int, resample: int) -> list[tuple[int, NDArray[np.float64]]]:
    """For each new place, the first old one that counts and the weights from there on."""
    support, shape = _FILTERS[resample]
    scale = old / new
    stretch = max(scale, 1.0)
    reach = support * stretch
    found = []
    for place in range(new):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - reach + 0.5))
        end = min(old, int(centre + reach + 0.5))
        at = [shape((x - centre + 0.5) * (1.0 / stretch)) for x in range(first, end)]
        total = _sum(at)
        if total:
            at = [each / total for each in at]
        fixed = [math.trunc(each * (1 << BITS) + (-0.5 if each < 0 else 0.5)) for each in at]
        found.append((first, np.array(fixed, dtype=np.float64)))
    return found


def _sum(values: list[float]) -> float:
    """One after the other, as C adds them."""
    total = 0.0
    for each in values:
        total += each
    return total


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _hamming(x: float) -> float:
    x = abs(x)
    if x == 0.0:
        return 1.0
    if x >= 1.0:
        return 0.0
    x *= math.pi
    return math.sin(x) / x * (_054 + _046 * math.cos(x))


def _bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


# by Pillow's numbers: nearest (0) has none; how far each reaches, and its shape
_FILTERS: dict[int, tuple[float, Callable[[float], float]]] = {
    1: (3.0, _lanczos),
    2: (1.0, _triangle),
    3: (2.0, _bicubic),
    4: (0.5, _box),
    5: (1.0, _hamming),
}


def _by_shorter(height: int, width: int, shortest: int) -> tuple[int, int]:
    """The size with a shorter side of `shortest`; the longer is rounded down."""
    if width <= height:
        return int(shortest * height / width), shortest
    return shortest, int(shortest * width / height)


def _middle(picture: Picture, height: int, width: int) -> Picture:
    """The middle of a picture, with black around it where it is too small."""
    h, w = picture.shape[:2]
    if h < height or w < width:
        tall, wide = max(h, height), max(w, width)
        large = np.zeros((tall, wide, picture.shape[2]), dtype=np.uint8)
        top, left = math.ceil((tall - h) / 2), math.ceil((wide - w) / 2)
        large[top : top + h, left : left + w] = picture
        picture, h, w = large, tall, wide
    top, left = (h - height) // 2, (w - width) // 2
    return picture[top : top + height, left : left + width]


# --- what the file says ----------------------------------------------------------------------------


def _preprocessor(config: dict[str, Any]) -> Preprocessor:
    resample = config.get("resample", 3 if "CLIP" in str(config.get("image_processor_type")) else 2)
    if resample not in (0, *_FILTERS) or isinstance(resample, bool):
        raise ValueError(f"resample is {resample!r:.40}; known are 0 to 5")
    shortest, size, crop = None, None, None
    crops = bool(config.get("do_center_crop", False))
    if config.get("do_resize", "size" in config):
        shortest, size = _size(config["size"], crops)
    if crops:
        shortest_crop, crop = _size(config.get("crop_size", config.get("size")), False)
        if crop is None:
            raise ValueError(f"crop_size is {shortest_crop!r:.40}; a height and a width are wanted")
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", "image_mean" in config):
        mean, deviation = _three(config, "image_mean"), _three(config, "image_std")
    if not math.isfinite(factor) or 0.0 in deviation:
        raise ValueError("rescale_factor or image_std is no number to divide by")
    return Preprocessor(shortest, size, resample, crop, float(factor), mean, deviation)


def _size(said: Any, crops: bool) -> tuple[int | None, tuple[int, int] | None]:
    """The shorter side, or (height, width). One number is the shorter side where the middle is cut out."""
    if isinstance(said, dict) and set(said) == {"shortest_edge"}:
        return _side(said["shortest_edge"]), None
    if isinstance(said, dict) and set(said) == {"height", "width"}:
        return None, (_side(said["height"]), _side(said["width"]))
    if isinstance(said, int) and crops:
        return _side(said), None
    if isinstance(said, int):
        return None, (_side(said), _side(said))
    raise ValueError(f"size is {said!r:.80}; a number, height and width, or shortest_edge is known")


def _side(said: Any) -> int:
    if type(said) is not int or not 1 <= said <= LARGEST:
        raise ValueError(f"a side of {said!r:.40} pixels; 1 to {LARGEST} are possible")
    return said


def _three(config: dict[str, Any], key: str) -> tuple[float, float, float]:
    said = config.get(key)
    if not isinstance(said, list) or len(said) != 3:
        raise ValueError(f"{key} is {said!r:.80}; three numbers are wanted")
    red, green, blue = (float(each) for each in said)
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError(f"{key} is not finite")
    return red, green, blue
