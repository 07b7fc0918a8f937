"""Calls of PyTorch's operators, and what PyTorch returned: for tests where it is not installed.

`python -m tests.helpers.aten_cases` records it.
"""

import pathlib

import numpy as np

RECORDED = pathlib.Path(__file__).with_name("aten_recorded.npz")


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def positive(*shape, seed=0):
    return np.abs(normal(*shape, seed=seed)) + np.float32(0.2)


def integers(high, *shape, seed=0):
    return np.random.default_rng([seed, *shape]).integers(0, high, shape)


X = normal(2, 3, 6)
IMAGE = normal(2, 4, 7, 6)
VOLUME = normal(1, 2, 5, 6, 4)
ODD = np.array([[1.5, -2.5, 0.0, np.inf, np.nan, -0.5, 2.5, -1.5]], np.float32)
WHOLE = integers(9, 3, 5) - 4
NONE = (None, None)
NO_KEY = np.where(np.arange(3)[:, None] == 1, np.float32(-np.inf), normal(3, 5))

_UNARY = [
    "abs", "asinh", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "expm1", "floor", "isinf", "isnan",
    "logical_not", "neg", "relu", "round", "sigmoid", "sign", "silu", "sin", "sinh", "tanh", "trunc",
    "clone", "alias", "detach", "lift_fresh_copy",
]  # fmt: skip
_OF_POSITIVE = ["log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt", "acosh"]
_WITHIN_ONE = ["acos", "asin", "atanh", "tan"]


def _recurrent(name, gates, states, *, layers=2, directions=2, biases=True, batch_first=True, projection=0):
    hidden, features, rows, steps = 4, 3, 2, 5
    shape = (layers * directions, rows)
    first = normal(*shape, projection or hidden, seed=1)
    initial = [first, normal(*shape, hidden, seed=2)] if states == 2 else first
    parameters = []
    for run in range(layers * directions):
        size = features if run < directions else (projection or hidden) * directions
        sizes = [(gates * hidden, size), (gates * hidden, projection or hidden)]
        sizes += [(gates * hidden,)] * 2 if biases else []
        sizes += [(projection, hidden)] if projection else []
        parameters += [0.5 * normal(*each, seed=10 * run + i) for i, each in enumerate(sizes)]
    x = normal(*((rows, steps) if batch_first else (steps, rows)), features)
    options = (biases, layers, 0.0, False, directions == 2, batch_first)
    return (f"{name}.input", x, initial, parameters, *options)


def _conv(x, kernel, bias=None, stride=1, padding=0, dilation=1, transposed=False, extra=0, groups=1):
    n = kernel.ndim - 2
    lists = ([v] * n for v in (stride, padding, dilation))
    return ("convolution.default", x, kernel, bias, *lists, transposed, [extra] * n, groups)


# By name: an operator, its arguments, and in a last dictionary those by keyword.
CASES = {
    **{name: (f"{name}.default", normal(3, 4)) for name in _UNARY},
    **{name: (f"{name}.default", positive(3, 4) + (name == "acosh")) for name in _OF_POSITIVE},
    **{name: (f"{name}.default", np.tanh(normal(3, 4))) for name in _WITHIN_ONE},
    **{f"{name} of odd numbers": (f"{name}.default", ODD) for name in ("round", "trunc", "isnan", "isinf")},
    "bitwise_not": ("bitwise_not.default", WHOLE),
    **{
        f"{name} {kind}": (f"{name}.{kind}", WHOLE.astype(np.float32), other)
        for name in ["add", "sub", "mul", "div", "fmod", "remainder", "eq", "ne", "lt", "le", "gt", "ge"]
        for kind, other in (("Tensor", positive(5)), ("Scalar", 2))
    },
    "add alpha": ("add.Tensor", X, normal(6), {"alpha": 0.5}),
    "sub alpha": ("sub.Scalar", X, 2.0, {"alpha": 3}),
    "div floor": ("div.Tensor_mode", WHOLE, np.array([2, 3, -2, 4, -3]), {"rounding_mode": "floor"}),
    "div trunc": ("div.Tensor_mode", WHOLE, np.array([2, 3, -2, 4, -3]), {"rounding_mode": "trunc"}),
    "div trunc of fractions": ("div.Scalar_mode", X, 0.3, {"rounding_mode": "trunc"}),
    "div of integers": ("div.Tensor", WHOLE, np.array([2, 3, -2, 4, -3])),
    "remainder of integers": ("remainder.Scalar", WHOLE, -3),
    "fmod of integers": ("fmod.Scalar", WHOLE, 3),
    "pow": ("pow.Tensor_Tensor", positive(3, 4), normal(4)),
    "pow 2.0": ("pow.Tensor_Scalar", X, 2.0),
    "pow 0.5": ("pow.Tensor_Scalar", positive(3, 4), 0.5),
    "pow of a number": ("pow.Scalar", 2.0, X),
    **{name: (f"{name}.default", X, normal(6, seed=1)) for name in ("maximum", "minimum", "atan2")},
    **{f"logical_{n}": (f"logical_{n}.default", X > 0, X < 1) for n in ("and", "or", "xor")},
    **{f"bitwise_{n}": (f"bitwise_{n}.Tensor", WHOLE, WHOLE + 3) for n in ("and", "or", "xor")},
    "where": ("where.self", X > 0, X, normal(6, seed=1)),
    "clamp": ("clamp.default", X, -0.5, 0.5),
    "clamp below": ("clamp.default", X, 0.1),
    "clamp Tensor": ("clamp.Tensor", X, None, normal(6, seed=1)),
    "hardtanh": ("hardtanh.default", 4 * X, 0.0, 6.0),
    "leaky_relu": ("leaky_relu.default", X, 0.2),
    "elu": ("elu.default", X, 1.7),
    "gelu": ("gelu.default", X),
    "gelu tanh": ("gelu.default", X, {"approximate": "tanh"}),
    "sum": ("sum.default", X),
    "sum of all axes": ("sum.dim_IntList", X, []),
    "sum dims": ("sum.dim_IntList", X, [0, -1], True),
    "sum of booleans": ("sum.default", X > 0),
    "mean": ("mean.default", X),
    "mean dim": ("mean.dim", X, [1], True),
    "var": ("var.correction", X, [2], {"correction": 1}),
    "var 0": ("var.correction", X, [0, 2], {"correction": 0, "keepdim": True}),
    "prod": ("prod.dim_int", X, 1),
    "amax": ("amax.default", X, [1, 2]),
    "amin": ("amin.default", X, [1], True),
    "max": ("max.default", X),
    "max dim": ("max.dim", X, 2, True),
    "min dim": ("min.dim", X, 1),
    "any": ("any.dim", X > 1, 1),
    "argmax": ("argmax.default", X),
    "argmax dim": ("argmax.default", X, -1, True),
    "argmin dim": ("argmin.default", X, 0),
    "cumsum": ("cumsum.default", X, 1),
    "sort": ("sort.default", X, 1, True),
    "topk": ("topk.default", X, 2, -1),
    "topk smallest": ("topk.default", X, 2, 1, False),
    "mm": ("mm.default", normal(3, 4), normal(4, 2)),
    "bmm": ("bmm.default", normal(2, 3, 4), normal(2, 4, 5)),
    "addmm": ("addmm.default", normal(2), normal(3, 4), normal(4, 2), {"alpha": 0.5, "beta": 2}),
    "convolution": _conv(IMAGE, normal(6, 4, 3, 3), normal(6), 2, 1),
    "convolution in groups": _conv(IMAGE, normal(8, 1, 3, 3), normal(8), 1, 2, 2, groups=4),
    "convolution in one dimension": _conv(X, normal(2, 3, 4), stride=2, padding=1),
    "convolution in three dimensions": _conv(VOLUME, normal(3, 2, 2, 3, 2), padding=1),
    "transposed convolution": _conv(IMAGE, normal(4, 5, 3, 3), normal(5), 2, 1, transposed=True, extra=1),
    "transposed in groups": _conv(IMAGE, normal(4, 3, 3, 2), None, 2, 1, 2, transposed=True, groups=2),
    "max_pool": ("max_pool2d_with_indices.default", IMAGE, [3, 3], [2, 2], [1, 1]),
    "max_pool dilation": ("max_pool2d_with_indices.default", IMAGE, [2, 2], [1, 1], [0, 0], [2, 2]),
    "max_pool ceil": ("max_pool2d_with_indices.default", IMAGE, [3, 2], [2, 2], [0, 0], [1, 1], True),
    "max_pool stride": ("max_pool2d_with_indices.default", IMAGE, [3, 2]),
    "max_pool3d": ("max_pool3d_with_indices.default", VOLUME, [2, 2, 2], [2, 1, 2]),
    "avg_pool1d": ("avg_pool1d.default", X, [3], [2], [1]),
    "avg_pool2d": ("avg_pool2d.default", IMAGE, [3, 2], [2, 2]),
    "avg_pool2d padding": ("avg_pool2d.default", IMAGE, [3, 3], [2, 2], [1, 1]),
    "avg_pool2d without padding": ("avg_pool2d.default", IMAGE, [3, 3], [2, 2], [1, 1], False, False),
    "avg_pool2d ceil": ("avg_pool2d.default", IMAGE, [2, 3], [2, 2], [1, 1], True),
    "avg_pool2d ceil, without padding": ("avg_pool2d.default", IMAGE, [3, 3], [3, 3], [1, 1], True, False),
    "avg_pool2d divisor": ("avg_pool2d.default", IMAGE, [2, 2], [2, 2], [0, 0], False, True, 3),
    "avg_pool3d": ("avg_pool3d.default", VOLUME, [2, 2, 2]),
    "adaptive_avg_pool": ("_adaptive_avg_pool2d.default", IMAGE, [1, 3]),
    "adaptive_avg_pool, unequal": ("_adaptive_avg_pool2d.default", IMAGE, [3, 4]),
    "adaptive_avg_pool3d": ("_adaptive_avg_pool3d.default", VOLUME, [2, 3, 2]),
    "batch_norm": (
        "_native_batch_norm_legit_no_training.default",
        IMAGE, normal(4), normal(4, seed=1), normal(4, seed=2), positive(4), 0.1, 1e-3,
    ),
    "batch_norm without weights": (
        "_native_batch_norm_legit_no_training.default", X, *NONE, normal(3), positive(3), 0.1, 1e-5,
    ),
    "layer_norm": ("native_layer_norm.default", X, [3, 6], normal(3, 6, seed=1), normal(3, 6, seed=2), 1e-3),
    "layer_norm without weights": ("native_layer_norm.default", X, [6], *NONE, 1e-5),
    "group_norm": ("native_group_norm.default", IMAGE, normal(4), normal(4, seed=1), 2, 4, 42, 2, 1e-3),
    "instance_norm": ("_native_batch_norm_legit.no_stats", IMAGE, *NONE, True, 0.1, 1e-5),
    "softmax": ("_softmax.default", X, 1, False),
    **{
        f"attention {kind}": (
            "scaled_dot_product_attention.default",
            normal(2, 2, 3, 4), normal(2, 2, 5, 4, seed=1), normal(2, 2, 5, 4, seed=2), mask, 0.0, causal,
        )
        for kind, mask, causal in (
            ("", None, False), ("causal", None, True), ("added", normal(3, 5), False),
            ("without a key", NO_KEY, False),
            ("masked", (np.arange(15) % 4 > 0).reshape(3, 5) & (np.arange(3) != 1)[:, None], False),
        )
    },
    "attention in groups": (
        "scaled_dot_product_attention.default",
        normal(1, 4, 3, 4), normal(1, 2, 5, 4, seed=1), normal(1, 2, 5, 4, seed=2),
        {"scale": 0.3, "enable_gqa": True},
    ),
    "log_softmax": ("_log_softmax.default", X, -1, False),
    "view": ("view.default", X, [4, -1]),
    "expand": ("expand.default", normal(3, 1), [2, -1, 4]),
    "permute": ("permute.default", X, [2, 0, 1]),
    "squeeze": ("squeeze.dims", normal(1, 2, 1, 3), [0, 1, -2]),
    "squeeze.dim": ("squeeze.dim", normal(1, 2, 1, 3), 2),
    "unsqueeze": ("unsqueeze.default", X, -1),
    "cat": ("cat.default", [normal(2, 3), normal(2, 1), normal(2, 2)], 1),
    "split_with_sizes": ("split_with_sizes.default", X, [1, 3, 2], -1),
    "select": ("select.int", X, 1, -1),
    "slice": ("slice.Tensor", X, 2, 1, 9223372036854775807, 2),
    "slice from behind": ("slice.Tensor", X, 2, -4, -1),
    "empty slice": ("slice.Tensor", X, 2, 4, 1),
    "slice_scatter": ("slice_scatter.default", X, normal(2, 3, 3), -1, 0, 6, 2),
    "select_scatter": ("select_scatter.default", X, normal(2, 6), 1, -1),
    "copy": ("copy.default", X, normal(6, seed=1)),
    "flip": ("flip.default", X, [0, -1]),
    "repeat": ("repeat.default", normal(2, 3), [2, 1, 3]),
    "constant_pad": ("constant_pad_nd.default", X, [1, 2, 0, 1], 0.5),
    "constant_pad, negative": ("constant_pad_nd.default", X, [-1, 2]),
    "reflection_pad": ("reflection_pad2d.default", IMAGE, [1, 2, 3, 0]),
    "replication_pad": ("replication_pad1d.default", X, [2, 1]),
    "as_strided": ("as_strided.default", X, [3, 4], [1, 2], 5),
    "pixel_shuffle": ("pixel_shuffle.default", IMAGE, 2),
    "index": ("index.Tensor", X, [None, integers(3, 4), integers(6, 4)]),
    "index apart": ("index.Tensor", X, [integers(2, 4), None, integers(6, 4)]),
    "index_put": ("index_put.default", X, [None, np.array([2, 0])], normal(2, 2, 6)),
    "index_put, added": ("index_put.default", X, [np.array([1, 1, 0])], normal(3, 3, 6), True),
    "index_select": ("index_select.default", X, 2, integers(6, 4)),
    "embedding": ("embedding.default", normal(9, 4), integers(9, 2, 5)),
    "gather": ("gather.default", X, 1, integers(3, 2, 2, 5)),
    "scatter": ("scatter.src", X, 2, np.array([[[1, 3], [0, 5]]]), normal(2, 3, 6, seed=3)),
    "scatter a value": ("scatter.value", X, 0, integers(2, 1, 3, 6), 2.0),
    "scatter_add": ("scatter_add.default", X, 1, integers(3, 2, 3, 6), normal(2, 3, 6, seed=3)),
    "full": ("full.default", [2, 3], 1.5),
    "full_like": ("full_like.default", X, 2),
    "scalar_tensor": ("scalar_tensor.default", 2.5),
    "arange": ("arange.start_step", 1, 9, 3),
    "bilinear": ("upsample_bilinear2d.vec", IMAGE, [10, 4], False, None),
    "bilinear by a factor": ("upsample_bilinear2d.vec", IMAGE, None, False, [1.5, 2.0]),
    "bilinear aligned": ("upsample_bilinear2d.vec", IMAGE, [10, 1], True, None),
    "nearest": ("upsample_nearest2d.vec", IMAGE, None, [2.0, 1.5]),
    "nearest to a size": ("upsample_nearest2d.vec", IMAGE, [5, 13], None),
    "lstm": _recurrent("lstm", 4, 2),
    "lstm without biases": _recurrent("lstm", 4, 2, biases=False, directions=1, batch_first=False),
    "lstm with a projection": _recurrent("lstm", 4, 2, projection=2),
    "gru": _recurrent("gru", 3, 1),
    "gru of one layer": _recurrent("gru", 3, 1, layers=1, directions=1, biases=False),
    "rnn_tanh": _recurrent("rnn_tanh", 1, 1),
    "rnn_relu": _recurrent("rnn_relu", 1, 1, directions=1),
}  # fmt: skip


def split(case):
    """Operator, arguments and keyword arguments of a case."""
    name, *arguments = case
    keywords = arguments.pop() if isinstance(arguments[-1], dict) else {}
    return name, arguments, keywords


def by_torch(case):
    """What PyTorch returns: a list of arrays."""
    import torch

    def tensors(value):
        if isinstance(value, list):
            return [tensors(each) for each in value]
        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    name, arguments, keywords = split(case)
    packet, _, overload = name.partition(".")
    call = getattr(getattr(torch.ops.aten, packet), overload)
    result = call(*tensors(arguments), **keywords)
    return [each.numpy() for each in (result if isinstance(result, list | tuple) else [result])]


if __name__ == "__main__":
    found = {name: by_torch(case) for name, case in CASES.items()}
    np.savez_compressed(
        RECORDED, **{f"{k}/{i}": v for k, values in found.items() for i, v in enumerate(values)}
    )
