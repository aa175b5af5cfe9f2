"""From files of any kind to a dataset: readers, cleaning, language, duplicates, splits, manifest."""
