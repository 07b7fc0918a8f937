"""Experiments, one script per question; `python -m experiments` lists them."""

import os
from pathlib import Path

# A compilation cache shared by all scripts. JAX reads these variables when it is imported.
_COMPILED = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxnn" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# With AVX-512, XLA logs two long errors for each program that it reads from this cache, and runs it well.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
