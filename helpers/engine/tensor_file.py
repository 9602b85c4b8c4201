"""Tensors in the layout of safetensors, from memory and into memory, so that bytes can be hashed.

The library writes to a path and maps a path; then what is hashed is not what is used, and a page
that cannot be read kills the process. Its files and ours are the same.

Source: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from helpers.errors import CheckpointError

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
ALIGNMENT = 8


def tensor_parts(tensors: dict[str, Tensor]) -> Iterator[memoryview]:
    """The bytes of a file: its header, then one tensor after the other.

    Raises: CheckpointError for a dtype that the format does not know.
    """
    # Wide numbers first, so that each tensor lies at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        if tensor.dtype not in NAMES:
            raise CheckpointError(
                f"The tensor {name} has the dtype {tensor.dtype}, but a checkpoint holds "
                f"{', '.join(DTYPES)}. Keep it in one of these."
            )
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        yield _bytes_of(tensor)


def tensors_in(content: bytearray) -> dict[str, Tensor]:
    """The tensors of a file that was read whole; they share its memory.

    Raises: ValueError, KeyError or RuntimeError if it is no such file.
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    memory = torch.frombuffer(content, dtype=torch.uint8)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (begin + offset for offset in entry["data_offsets"])
        tensors[name] = memory[start:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
