"""Long work as jobs: a row in the store, a folder that is the truth, and a child process that outlives the server.

`folder` says where everything lies, `examples` reads training files, `worker` is the child's main, `children` starts and ends
them, `reading` turns the journals of a run into events, `supervisor` holds it all together inside of the server.
"""
