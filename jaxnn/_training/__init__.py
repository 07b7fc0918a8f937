"""Training: `train`, for any callable pytree.

`train` reads as the trip of the data: `prepare` checks everything and places it on the devices, then each
epoch runs compiled `steps` over batches of `data`, and `checkpoints` store where the run stands. Start with
`train`.
"""
