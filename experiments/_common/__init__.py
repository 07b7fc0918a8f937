"""Shared by the experiments: options, data, networks, dreams, figures, and the files and pages of results."""
