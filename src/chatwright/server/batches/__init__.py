"""Batches: `lines` reads input, `dispatch` answers as the routes do, `folder` keeps the answers, `runner` sees to it all."""
