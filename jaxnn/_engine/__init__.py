"""The engine: a function as data.

The jaxpr of a JAX function is a list of equations over primitives. `jaxpr` evaluates that list with handlers
in the place of some equations: `capture`, `intervene` and `rewrite`, whose public face is `jaxnn._rewrite`.
`inline` inlines calls, `graph` cuts the result into steps, and `backward` walks these by rules: guided
backpropagation, DeepLIFT and LRP. `relu` and `softmax` match patterns among the steps, and `affine_prefix`
finds the part of a function that commutes with sums. `primitives` is the one table of JAX's primitives: a new
release of JAX may need changes there alone. `loops` runs many small computations in bounded memory, and
`convolution` and `cpu_layout` make them fast on a CPU. Start with `primitives` and `jaxpr`, then `graph`.
"""
