"""Options that are wrong are known before any training."""


def check_at_least(low: int, **options: int) -> None:
    """Raise unless each option, given by its name, is at least `low`."""
    for name, value in options.items():
        if value < low:
            raise ValueError(f"`{name}` must be at least {low}; got {value}")
