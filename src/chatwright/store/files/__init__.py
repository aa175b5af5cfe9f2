"""Files of users: rows in the database, contents in the home folder under names made here, never one from a request.

`folder` knows where contents lie, `rows` are the queries, `Files` and `Uploads` do both in an order that survives a kill.
"""

from chatwright.store.files.describe import Description
from chatwright.store.files.folder import FilesFolder, Incoming
from chatwright.store.files.service import Files
from chatwright.store.files.uploads import Uploads

__all__ = ["Description", "Files", "FilesFolder", "Incoming", "Uploads"]
