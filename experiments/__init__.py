"""One script for one question; `python -m experiments` lists them."""
