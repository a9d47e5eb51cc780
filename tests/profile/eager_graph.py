"""What torch really does in one eager fp32 forward pass: its operators, whose memory they use, and what was allocated.

Batch norm is folded into the convolutions first, as in the operator table.
"""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.blocks import ConvNorm
from mvit_search.architecture.network import MobileViT

BYTES_PER_NUMBER = 4
IMAGE = 0
"""The buffer that holds the image."""


class EagerOp(NamedTuple):
    """One aten operator: its name, the buffers it reads and allocates, and those that Python's variables name."""

    name: str
    reads: tuple[int, ...]
    allocates: tuple[int, ...]
    held: frozenset[int]


class EagerGraph(NamedTuple):
    """Operators in the order that they ran, and the numbers in each buffer."""

    ops: list[EagerOp]
    elements: dict[int, int]


def folded(config: MobileViTConfig, num_classes: int, output_stride: int | None = None) -> MobileViT:
    """The network with every batch norm inside its convolution."""
    model = MobileViT(config, num_classes, output_stride=output_stride).eval()
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return model.requires_grad_(False)


def eager_graph(model: MobileViT) -> EagerGraph:
    """Run one image and note every operator with the memory of its tensors; weights are left out.

    Attention is torch's plain one, of two matrix products and a softmax.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        return _record(model)


def eager_calls(model: MobileViT) -> EagerGraph:
    """The same of whole calls: what a call allocates and releases inside itself does not show."""
    with torch.inference_mode():  # torch then dispatches calls before it takes them apart
        return _record(model)


def _record(model: MobileViT) -> EagerGraph:
    image = torch.zeros(1, 3, *model.config.image_size)
    with _Recorder(model, image) as recorder:
        model(image)
    return EagerGraph(recorder.ops, recorder.elements)


class _Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module, image: torch.Tensor) -> None:
        super().__init__()
        self.ops: list[EagerOp] = []
        self.elements: dict[int, int] = {}
        self._weights = {_address(weight) for weight in model.parameters()}
        # Kept, so that no address is given out twice.
        self._tensors: list[torch.Tensor] = []
        self._buffers: dict[int, int] = {}
        self._buffer(image)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        reads = {self._buffer(tensor) for tensor in self._activations((args, kwargs))}
        held = frozenset(self._buffer(tensor) for tensor in self._activations(_variables(sys._getframe(1))))
        result = func(*args, **kwargs)
        known = len(self.elements)
        written = {self._buffer(tensor) for tensor in self._activations(result)}
        new = {buffer for buffer in written if buffer >= known}
        if new or not written <= reads:
            self.ops.append(EagerOp(func.overloadpacket.__name__, tuple(sorted(reads)), tuple(sorted(new)), held))
        return result

    def _activations(self, tree: Any) -> Iterator[torch.Tensor]:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor) and _address(leaf) not in self._weights:
                yield leaf

    def _buffer(self, tensor: torch.Tensor) -> int:
        address = _address(tensor)
        if address not in self._buffers:
            self._tensors.append(tensor)
            self.elements[len(self._buffers)] = tensor.untyped_storage().nbytes() // BYTES_PER_NUMBER
            self._buffers[address] = len(self._buffers)
        return self._buffers[address]


def _variables(frame: FrameType | None) -> list[Any]:
    """Values of all local variables, arguments among them, from this call up to that of `_record`."""
    found: list[Any] = []
    while frame is not None:
        found += [value for value in frame.f_locals.values() if isinstance(value, (torch.Tensor, tuple, list))]
        if frame.f_code is _record.__code__:
            break
        frame = frame.f_back
    return found


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


LAYOUT = frozenset(("clone", "_to_copy", "contiguous", "copy_"))
"""Operators that copy a tensor into another order; where torch's strides allow, it makes a view instead."""


def scanned_peak(graph: EagerGraph, *, copies_as_views: bool = False, variables_hold: bool = False) -> int:
    """Most numbers alive at once if each buffer is freed after its last reader.

    Args:
        graph: what ran.
        copies_as_views: leave out the copies of `LAYOUT`, as if each looked at the tensor that it copies.
        variables_hold: a buffer also stays as long as a variable of Python names it.
    """
    owner = {buffer: buffer for buffer in graph.elements}
    if copies_as_views:
        for op in graph.ops:
            if op.name in LAYOUT:
                owner[op.allocates[0]] = owner[op.reads[0]]
    last_use = {IMAGE: 0}
    for index, op in enumerate(graph.ops):
        used = (*op.reads, *op.allocates, *(op.held if variables_hold else ()))
        last_use.update((owner[buffer], index) for buffer in used)
    freed_after: list[list[int]] = [[] for _ in graph.ops]
    for buffer, index in last_use.items():
        freed_after[index].append(graph.elements[buffer])
    alive = peak = graph.elements[IMAGE]
    for op, freed in zip(graph.ops, freed_after, strict=True):
        alive += sum(graph.elements[buffer] for buffer in op.allocates if owner[buffer] == buffer)
        peak = max(peak, alive)
        alive -= sum(freed)
    return peak


class Allocated(NamedTuple):
    """Most bytes that torch's allocator had given out at once while one image ran, the image itself included.

    Attributes:
        total: all that was given out.
        tensors: without scratch, that is memory given out and released inside one and the same call.
    """

    total: int
    tensors: int


def allocated_peak(model: MobileViT) -> Allocated:
    """Run one image under torch's profiler, which reports every allocation and release on the CPU."""
    image = torch.zeros(1, 3, *model.config.image_size)
    with torch.no_grad():
        model(image)  # what is allocated once is not a forward pass's
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
            model(image)
    events = recorded.profiler.kineto_results.experimental_event_tree()  # type: ignore[union-attr]
    changes = sorted(change for call, event in enumerate(events) for change in _changes(event, call))
    lasting = []
    given: dict[int, tuple[int, _Change]] = {}  # by address: where in `lasting` it would stand
    for change in changes:
        if change.size > 0:
            given[change.address] = (len(lasting), change)
            lasting.append(change)
        elif change.address in given:
            at, start = given.pop(change.address)
            lasting.append(change)
            if start.call == change.call and change.inside:
                lasting[at] = lasting[-1] = None  # type: ignore[call-overload]
    size = image.untyped_storage().nbytes()
    return Allocated(size + _highest(changes), size + _highest([change for change in lasting if change]))


class _Change(NamedTuple):
    time: int
    size: int
    address: int
    call: int
    inside: bool


def _changes(event: Any, call: int, inside: bool = False) -> Iterator[_Change]:
    """Each allocation and, with a negative size, each release inside an outermost event."""
    if event.name == "[memory]":
        fields = event.extra_fields
        yield _Change(event.start_time_ns, fields.alloc_size, fields.ptr, call, inside)
    for child in event.children:
        yield from _changes(child, call, True)


def _highest(changes: list[_Change]) -> int:
    alive = peak = 0
    for change in changes:
        alive += change.size
        peak = max(peak, alive)
    return peak
