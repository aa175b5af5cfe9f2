"""An engine in a process of its own: the server's memory and its event loop stay free of torch, and a crash takes no one along.

`wire` is what both sides say to each other, `failures` how errors cross. In the child: `child` (its main), `host` (serves a local
engine on the socket), `lifeline` (it dies with its parent). In the parent: `link` (one living child), `supervised` (the `Engine`
that starts it again), `memory` (which of several models may be loaded at once). Only `child` imports torch.
"""
