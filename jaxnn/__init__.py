"""Look inside neural networks: pure JAX functions that run a model forwards and backwards."""
