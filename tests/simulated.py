"""An accelerator without hardware: the device `sim`, whose arithmetic is the CPU's and whose manners are a GPU's.

A tensor on `sim` holds one of the CPU and does what that one does. But an operation that is given tensors of both
devices is refused as CUDA refuses it, and while a `Simulation` is entered everything that would cost time is counted.
Needs a process that has not differentiated anything before, since autograd counts its devices at the first backward
pass.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

OWN_PROCESS = "LIGHTNING_XAI_SIMULATED"
"""The environment variable that is set in the process of these tests alone."""

_make_known = getattr(
    getattr(torch.utils, "backend_registration", None), "_setup_privateuseone_for_python_backend", None
)
needs_simulation = pytest.mark.skipif(_make_known is None, reason="this torch knows no devices written in Python")

_WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique", "unique", "bincount")
"""Operations whose result the CPU has to know: it waits until all that was launched before is done."""

_FREE = ("_unsafe_view", "_reshape_alias", "_local_scalar_dense", "empty", "empty_like", "empty_strided", "new_empty")
"""Operations without a kernel, that are no views."""

_CROSSES = ("_to_copy", "copy_")
_INDEXES = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
_now: "list[Simulation]" = []


class SimTensor(Tensor):
    """A tensor on `sim`. `held` is the tensor of the CPU that it stands for; to look at it counts as nothing."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("sim", 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy = SimTensor(self.held.detach().clone())
            parameter = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(copy, self.requires_grad) if parameter else copy
        return memo[id(self)]

    def __repr__(self, **_: Any) -> str:
        return f"SimTensor({self.held!r})"

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        _count("waits", "tolist")
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor on sim to numpy. Use Tensor.cpu() to copy it to the CPU first.")


class Simulation:
    """Makes `sim` usable while it is entered, and counts by the name of the operation.

    Attributes:
        launches: Operations that compute or copy: a kernel each. Views are free.
        waits: Those after which the CPU waits for the device: values that it reads.
        uploads: Copies from the CPU, which wait or not.
        without_float64: Whether there is no float64 on it, as on Apple's GPUs.
    """

    def __init__(self) -> None:
        self.without_float64 = False
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()

    def __enter__(self) -> "Simulation":
        _start()
        self._modes = (_Constructors(), _Everything())
        for mode in self._modes:
            mode.__enter__()
        _now.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _now.remove(self)
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def counts(self) -> tuple[int, int, int]:
        """Launches, waits and uploads since the last time, and begins anew."""
        found = self.launches.total(), self.waits.total(), self.uploads.total()
        for counter in (self.launches, self.waits, self.uploads):
            counter.clear()
        return found


def held(value: Any) -> Any:
    """The value with the tensors of the CPU that those on `sim` stand for, not counted."""
    return tree_map(lambda leaf: leaf.detach().held if isinstance(leaf, SimTensor) else leaf, value)


def _start() -> None:
    if hasattr(torch, "sim"):
        return
    assert _make_known is not None
    _make_known("sim")
    torch.sim.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    # A module moves by new parameters: the old ones cannot hold a tensor of another class.
    torch.__future__.set_overwrite_module_params_on_conversion(True)


def _count(what: str, name: str) -> None:
    for simulation in _now:
        getattr(simulation, what)[name] += 1


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU's tensors, after a look at where the tensors are."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, SimTensor)]
    wanted = kwargs.get("device")
    to = None if wanted is None else torch.device(wanted).type
    if not ours and to != "sim":
        return func(*args, **kwargs)
    name = func._schema.name.removeprefix("aten::")
    _refuse_mixed(name, args, tensors, ours)
    on_sim = to == "sim" or (to is None and bool(ours))
    _take_account(func, name, args, kwargs, ours, to)
    result = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
    if name in ("copy_", "set_"):
        return args[0]
    owners = {id(tensor.held): tensor for tensor in ours}

    def owned(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return owners[id(value)] if id(value) in owners else SimTensor(value)

    if not on_sim:
        return result
    if any(s.without_float64 and _is_float64(leaf) for s in _now for leaf in tree_leaves(result)):
        raise TypeError("Cannot convert a tensor to float64: sim has none now. Please use float32 instead.")
    # A view is one of inference mode if that which it shows is, whatever the mode is now.
    with torch.inference_mode(ours[0].is_inference() if ours and func.is_view else torch.is_inference_mode_enabled()):
        return tree_map(owned, result)


def _plain(value: Any) -> Any:
    if isinstance(value, SimTensor):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "sim" else value


def _is_float64(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _refuse_mixed(name: str, args: Any, tensors: list[Tensor], ours: list[SimTensor]) -> None:
    if name in _CROSSES or not ours:
        return
    if name in _INDEXES:  # indices of the CPU are copied; a tensor of the CPU takes none of the device
        if not isinstance(args[0], SimTensor):
            raise RuntimeError(f"{name}: indices should be either on cpu or on the same device as the indexed tensor")
        values = args[2:3] if name != "index" and name != "_unsafe_index" else ()
        tensors = [args[0], *(value for value in values if isinstance(value, Tensor))]
    others = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, SimTensor) and tensor.ndim]
    if others:
        raise RuntimeError(
            f"{name}: Expected all tensors to be on the same device, but found at least two devices, sim:0 and cpu "
            f"(of shape {others})"
        )


def _take_account(func: Any, name: str, args: Any, kwargs: Any, ours: list[SimTensor], to: str | None) -> None:
    """As PyTorch does on CUDA: copies wait, and so do indices of the CPU, unless they are said to be non-blocking."""
    if not func.is_view and name not in _FREE:
        _count("launches", name)
    if name in _WAITS:
        _count("waits", name)
    if name in _INDEXES:
        for index in (index for index in args[1] if index is not None):
            if not isinstance(index, SimTensor):
                _count("uploads", f"{name} by the CPU's")
                _count("waits", f"{name} by the CPU's")
            elif index.dtype in (torch.bool, torch.uint8):
                _count("waits", f"{name} by a mask")
    if name not in _CROSSES:
        return
    source = args[1] if name == "copy_" else args[0]
    target_is_sim = isinstance(args[0], SimTensor) if name == "copy_" else to in (None, "sim")
    if isinstance(source, SimTensor) == target_is_sim or not source.numel():
        return
    if target_is_sim:
        _count("uploads", name)
    patient = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
    if not (patient and target_is_sim):
        _count("waits", f"{name} {'from' if target_is_sim else 'to'} the CPU")


class _Everything(TorchDispatchMode):
    """What is made on `sim`, or copied to it, of no tensor that is there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # In inference mode, and inside of other modes, what is made of other operations arrives whole.
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return _run(func, args, kwargs or {})


class _Constructors(TorchFunctionMode):
    """Those that make a tensor of Python's numbers and put it on its device unseen; also of a list that is an index."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and _is_sim(device):
            data, dtype = args[0], kwargs.get("dtype")
            made = data if isinstance(data, Tensor) else torch.tensor(data, dtype=dtype, device="cpu")
            made = made.to(device, dtype or made.dtype, copy=func is torch.tensor)
            return made.requires_grad_() if kwargs.get("requires_grad") else made
        if func is Tensor.__getitem__ and isinstance(args[0], SimTensor) and isinstance(args[1], list):
            return args[0][torch.tensor(args[1], device="cpu")]
        if getattr(func, "__name__", "") == "new_tensor" and isinstance(args[0], SimTensor):
            dtype = kwargs.get("dtype", args[0].dtype)
            return torch.tensor(*args[1:], dtype=dtype, device="cpu").to(kwargs.get("device", "sim"))
        return func(*args, **kwargs)


def _is_sim(device: Any) -> bool:
    return device is not None and torch.device(device).type == "sim"
