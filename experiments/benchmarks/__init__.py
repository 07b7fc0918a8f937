"""How long things take, as ratios to other libraries measured in the same run."""
