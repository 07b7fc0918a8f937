"""Options that are wrong are known before any training."""


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise unless an option is large enough."""
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}; got {value}")
