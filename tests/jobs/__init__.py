"""Tests of jobs: folders, files, workers and journals, without a server."""
