"""Parts of single experiments that are too long for one file."""
