"""The engine: a function as data.

Whatever a JAX function computes, its jaxpr is a list of equations over primitives. `jaxpr` evaluates that
list with rules in the place of some equations. `capture`, `intervene` and `rewrite` are such rules; their
public face is `jaxnn._rewrite`. `inline` and `graph` turn the list into a straight line of steps that is
walked backwards by rules: guided backpropagation, DeepLIFT and LRP. `relu` and `softmax` recognize patterns
among the steps, and `affine_prefix` the part of a function that commutes with sums. `primitives` classifies
JAX's primitives, in one place. `loops` runs many small computations in bounded memory, laid out as a CPU
needs them (`cpu_layout`). Start with `jaxpr`, then `graph`.
"""
