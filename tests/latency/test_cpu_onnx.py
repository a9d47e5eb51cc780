"""`cpu-onnx`: the export says what torch says, and any static ONNX file is measured."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from mvit_search.architecture import preset
from mvit_search.architecture.random_weights import random_network
from mvit_search.errors import InputError, WorkError
from mvit_search.latency import CpuOnnxRuntime, cpu_onnx
from tests.latency.networks import SHORT, TINY

RUNTIME = CpuOnnxRuntime(threads=1, timing=SHORT)


def relu(path: Path, *shapes: Sequence[int | str], element: int = TensorProto.FLOAT, operator: str = "Relu") -> Path:
    """An ONNX file that takes tensors of these shapes and gives one operator of each."""
    inputs = [helper.make_tensor_value_info(f"in{i}", element, shape) for i, shape in enumerate(shapes)]
    outputs = [helper.make_tensor_value_info(f"out{i}", element, shape) for i, shape in enumerate(shapes)]
    nodes = [helper.make_node(operator, [f"in{i}"], [f"out{i}"]) for i in range(len(shapes))]
    graph = helper.make_graph(nodes, "relu", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("name", ["mobilevit-xxs", "mobilevitv2-0.5"])
def test_exported_network_says_what_torch_says(name: str, tmp_path: Path) -> None:
    config, path = preset(name).with_image_size(64), tmp_path / "network.onnx"
    RUNTIME.write(config, 10, path)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = random_network(config, 10)(image).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert [given.shape for given in session.get_inputs()] == [[1, 3, 64, 64]]


def test_export_is_quiet_and_leaves_the_process_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    RUNTIME.write(TINY, 4, tmp_path / "network.onnx")
    RUNTIME.measure(tmp_path / "network.onnx")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert capfd.readouterr() == ("", "")


def test_session_is_sequential_on_the_threads_it_says(tmp_path: Path) -> None:
    session = CpuOnnxRuntime(threads=3)._session(relu(tmp_path / "relu.onnx", [1, 3, 8, 8]))
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_open_batch_is_one_and_types_are_the_files(tmp_path: Path) -> None:
    measurement = RUNTIME.measure(relu(tmp_path / "any.onnx", ["batch", 3, 8, 8], [1, 4]))
    assert (measurement.protocol.precision, measurement.protocol.io) == ("fp32", "float32 array")
    half = relu(tmp_path / "half.onnx", [1, 3, 8, 8], element=TensorProto.FLOAT16)
    assert RUNTIME.measure(half).protocol.precision == "fp16"
    whole = relu(tmp_path / "whole.onnx", [1, 3], element=TensorProto.INT64, operator="Abs")
    assert RUNTIME.measure(whole).protocol.io == "int64 array"


def test_open_side_is_refused_by_name(tmp_path: Path) -> None:
    path = relu(tmp_path / "dynamic.onnx", [1, 3, "height", 8])
    message = r"dynamic.onnx: in0: has the shape 1x3xheightx8, where 'height' \(axis 2\) is not static; export it anew"
    with pytest.raises(InputError, match=message):
        RUNTIME.measure(path)


def test_input_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    path = relu(tmp_path / "truth.onnx", [1, 3], element=TensorProto.BOOL, operator="Not")
    with pytest.raises(InputError, match=r"in0 'tensor\(bool\)': must be a tensor of numbers"):
        RUNTIME.measure(path)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(InputError, match=r"text.onnx: is no model that ONNX Runtime \S+ can load"):
        RUNTIME.measure(path)
    with pytest.raises(InputError, match="is no file"):
        RUNTIME.measure(tmp_path / "missing.onnx")


def test_failure_of_a_run_is_a_work_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def get_inputs(self) -> list[object]:
            return []

        def run(self, *_: object) -> None:
            raise RuntimeError("bad allocation")

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: Broken())
    monkeypatch.setattr(cpu_onnx, "_words", lambda _: ("fp32", "nothing"))
    with pytest.raises(WorkError, match=r"could not run relu.onnx \(bad allocation\)"):
        RUNTIME.measure(relu(tmp_path / "relu.onnx", [1, 3]))


def test_export_failures_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        RUNTIME.write(TINY, 4, tmp_path / "missing" / "network.onnx")

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(WorkError, match=r"could not export the network \(no such operator\)"):
        RUNTIME.write(TINY, 4, tmp_path / "network.onnx")


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise cpu_onnx.PackageNotFoundError(name)

    monkeypatch.setattr(cpu_onnx, "version", missing)
    for act in (
        RUNTIME.require_device,
        lambda: RUNTIME.write(TINY, 4, tmp_path / "network.onnx"),
        lambda: RUNTIME.measure(tmp_path / "network.onnx"),
    ):
        with pytest.raises(InputError, match=r"needs onnx, which is not installed; pip install 'mvit-search\[onnx\]'"):
            act()


def test_protocol_is_in_the_identity() -> None:
    assert CpuOnnxRuntime(threads=1).identity != CpuOnnxRuntime(threads=2).identity
    assert f"cpu-onnx-{onnxruntime.__version__}-threads-2-warmup-10" in CpuOnnxRuntime().identity
