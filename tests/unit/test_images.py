"""Pictures are scaled as Pillow scales them, to the bit, and prepared as the folder's file says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.encoders.images import Preprocessor, as_picture, scaled
from vecdb.errors import InvalidArgument


def picture(height: int, width: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_scaling_is_pillows_to_the_bit_by_any_filter_and_size() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    rng = np.random.default_rng(11)
    cases = 400
    for case in range(cases):
        h, w, height, width = map(int, rng.integers(1, 90, 4))
        given, resample = picture(h, w, case), case % 6
        step = image.fromarray(given)
        if resample:  # width first; Pillow from version 13 on chooses the order by the sizes
            step = step.resize((width, h), resample=resample)
        wanted = np.asarray(step.resize((width, height), resample=resample))
        assert np.array_equal(scaled(given, height, width, resample), wanted), (h, w, height, width, resample)
    print(f"scaled pictures: {cases}, seed 11: differences 0")


# what Pillow 12.3 made of these, as a digest: the promise holds where it is not installed, too
SCALED = {0: "851aaec1a5e6c4b1", 1: "fcb40589738774a8", 2: "3a2913288907c7bf", 3: "9ecc55e7589ad1a0", 4: "d7f85e91168fa8fe", 5: "70901bc5892c2bdb"}


@pytest.mark.parametrize("resample", SCALED)
def test_scaling_is_what_pillow_made_where_it_is_not_installed(resample: int) -> None:
    digest = hashlib.sha256()
    for h, w, height, width in ((30, 41, 8, 8), (7, 5, 19, 23), (64, 10, 9, 31), (12, 12, 12, 5)):
        digest.update(scaled(picture(h, w, h), height, width, resample).tobytes())
    assert digest.hexdigest()[:16] == SCALED[resample]


def read(tmp_path: Path, **config: Any) -> Preprocessor:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config))
    return Preprocessor.read(path, "who")


def test_the_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    given = picture(10, 20, 0)
    made = read(tmp_path, size={"height": 4, "width": 6}, image_mean=[0.1, 0.2, 0.3], image_std=[1, 2, 4]).numbers(given)
    assert made.shape == (3, 4, 6) and made.dtype == np.float32
    wanted = (scaled(given, 4, 6, 2) / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4]
    assert np.allclose(made, wanted.transpose(2, 0, 1), atol=1e-6)
    shortest = read(tmp_path, size={"shortest_edge": 5})
    assert shortest.numbers(given).shape == (3, 5, 10) and shortest.numbers(given.transpose(1, 0, 2)).shape == (3, 10, 5)
    old = read(tmp_path, size=6, crop_size=4, do_center_crop=True, do_rescale=False)
    assert np.array_equal(old.numbers(given), scaled(given, 6, 12, 2)[1:5, 4:8].transpose(2, 0, 1).astype(np.float32))
    wide = read(tmp_path, do_resize=False, do_center_crop=True, crop_size={"height": 14, "width": 6}, do_rescale=False)
    made = wide.numbers(given)
    assert made.shape == (3, 14, 6) and not made[:, :2].any() and not made[:, 12:].any()
    assert np.array_equal(made[:, 2:12], given[:, 7:13].transpose(2, 0, 1))


@pytest.mark.parametrize(
    "config",
    [{"do_pad": True}, {"size": "big"}, {"size": {"longest_edge": 3}}, {"size": 0}, {"size": 100_000}, {"size": 4, "resample": 9},
     {"size": 4, "image_mean": [1, 2]}, {"size": 4, "image_mean": [0, 0, 0], "image_std": [1, 0, 1]},
     {"size": 4, "image_mean": [0, 0, "x"], "image_std": [1, 1, 1]}, {"size": 4, "image_mean": [0, 0, 1e999], "image_std": [1, 1, 1]},
     {"do_resize": True}, {"do_resize": False, "do_center_crop": True}, {"size": 4, "rescale_factor": "a"},
     {"size": 4, "rescale_factor": float("nan")}, {"size": True}, {"do_center_crop": True, "size": {"shortest_edge": 4}}],
)  # fmt: skip
def test_what_is_wrong_or_unknown_in_the_file_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"who: .*preprocessor_config\.json"):
        read(tmp_path, **config)


def test_a_picture_is_bytes_of_three_colours() -> None:
    given = picture(3, 4, 0)
    assert as_picture(given, 0, "who") is not None
    for bad in (given.astype(np.float32), given.tolist(), "x.png", None, given[None], given[:, :, :2], given[:0]):
        with pytest.raises(InvalidArgument, match=r"images\[7\] given to who"):
            as_picture(bad, 7, "who")
