"""Tiny ONNX models in a folder, of texts and of images, and what they must give, in plain numpy.

`text` writes a graph in which every state depends on all tokens that the mask shows, so that wrong padding
shows in the vectors; beside the states it has a `pooler_output`, which must not be taken. `image` is a
convolution, a mean over places and a map.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests import berts

Array = npt.NDArray[Any]
DIM, OUT = 6, 5


def text(folder: Path, *, file: str = "model.onnx", seed: int = 0, inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
         kind: Any = np.int64, batch: int | str = "n", length: int | str = "t", whole: str | None = None,
         quantized: bool = False, external: bool = False, files: dict[str, Any] | None = None) -> dict[str, Array]:  # fmt: skip
    """Write a model of texts; return its weights."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = berts.tokenizer(folder, "bert", False)
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in
               (("table", (vocabulary, DIM)), ("own", (DIM, DIM)), ("all", (DIM, DIM)), ("last", (DIM, OUT)))}  # fmt: skip
    number = {np.int64: TensorProto.INT64, np.int32: TensorProto.INT32}[kind]
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["x"]),
        node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["m", "two"], ["m3"]),
        node("Mul", ["x", "m3"], ["shown"]),
        node("ReduceSum", ["shown", "one"], ["summed"], keepdims=1),
        node("ReduceSum", ["m3", "one"], ["count"], keepdims=1),
        node("Div", ["summed", "count"], ["mean"]),
        node("MatMul", ["mean", "all"], ["mixed"]),
        *([node("MatMul", ["x", "own"], ["alone"])] if not quantized else [
            node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
            node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            node("MatMul", ["xd", "own"], ["alone"])]),
        node("Add", ["alone", "mixed"], ["y"]),
        node("Tanh", ["y"], ["last_hidden_state"]),
        node("Squeeze", ["mixed", "one"], ["pooler_output"]),
    ]  # fmt: skip
    outputs = [("pooler_output", ["rows", DIM]), ("last_hidden_state", ["rows", "tokens", DIM])]
    if whole:
        nodes += [node("Squeeze", ["mean", "one"], ["flat"]), node("MatMul", ["flat", "last"], [whole])]
        outputs.append((whole, ["rows", OUT]))
    if "token_type_ids" in inputs:  # zeros that are read, so that they must be there
        nodes[0] = node("Gather", ["table", "input_ids"], ["x0"])
        nodes[1:1] = [node("Cast", ["token_type_ids"], ["k"], to=TensorProto.FLOAT), node("Unsqueeze", ["k", "two"], ["k3"]),
                      node("Add", ["x0", "k3"], ["x"])]  # fmt: skip
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    stored += [helper.make_tensor("one", TensorProto.INT64, [1], [1]), helper.make_tensor("two", TensorProto.INT64, [1], [2])]
    graph = helper.make_graph(
        nodes, "texts", [helper.make_tensor_value_info(name, number, [batch, length]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs], stored,
    )  # fmt: skip
    _save(graph, folder / file, external)
    berts.write(folder, {"config.json": {"model_type": "bert", "pad_token_id": 0, "vocab_size": vocabulary,
                                         "max_position_embeddings": 24}, **(files or {})})  # fmt: skip
    return weights


def states(weights: dict[str, Array], tokens: list[int]) -> Array:
    """The states of one sequence, float64."""
    x = weights["table"].astype(np.float64)[tokens]
    mixed = x.mean(axis=0) @ weights["all"].astype(np.float64)
    return np.asarray(np.tanh(x @ weights["own"].astype(np.float64) + mixed))


def whole(weights: dict[str, Array], tokens: list[int]) -> Array:
    """What the graph gives for a whole sequence where it does."""
    return np.asarray(weights["table"].astype(np.float64)[tokens].mean(axis=0) @ weights["last"].astype(np.float64))


def image(folder: Path, *, file: str = "model.onnx", seed: int = 1, side: int | str = "h", output: str = "image_embeds", last: bool = False,
          preprocessor: dict[str, Any] | None = None) -> dict[str, Array]:  # fmt: skip
    """Write a model of images; return its weights."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = {"filter": rng.normal(size=(4, 3, 1, 1)).astype(np.float32), "map": rng.normal(size=(4, OUT)).astype(np.float32)}
    node = helper.make_node
    nodes = [
        node("Transpose", ["pixel_values"], ["p"], perm=[0, 3, 1, 2]) if last else node("Identity", ["pixel_values"], ["p"]),
        node("Conv", ["p", "filter"], ["c"]), node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["g"]), node("Flatten", ["g"], ["f"]), node("MatMul", ["f", "map"], [output]),
    ]  # fmt: skip
    shape = ["n", side, side, 3] if last else ["n", 3, side, side]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "images", [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", OUT])], stored)  # fmt: skip
    _save(graph, folder / file, False)
    berts.write(folder, {"preprocessor_config.json": preprocessor or PREPROCESSOR})
    return weights


PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 8}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 8, "width": 8}, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 1.0], "do_convert_rgb": True,
}  # fmt: skip


def seen(weights: dict[str, Array], numbers: Array) -> Array:
    """What the graph gives for the numbers (3, h, w) of one image, float64."""
    maps = np.einsum("oc,chw->ohw", weights["filter"][:, :, 0, 0].astype(np.float64), numbers.astype(np.float64))
    return np.asarray(np.maximum(maps, 0).mean(axis=(1, 2)) @ weights["map"].astype(np.float64))


def _save(graph: Any, path: Path, external: bool) -> None:
    import onnx
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=0)
    else:
        onnx.save_model(model, path)
