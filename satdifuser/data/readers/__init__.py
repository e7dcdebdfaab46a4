"""Data sets in the layouts that their authors publish them in, one file for each layout."""
