"""Where models come from (`pull`) and where they lie (`ModelsFolder`). No torch in here.

A model is one folder under the models folder, named after the model, with a manifest that says where it came from.
"""

from chatwright.hub.folder import InstalledModel, ModelsFolder
from chatwright.hub.manifest import Manifest
from chatwright.hub.names import check_name, is_name
from chatwright.hub.progress import Progress, Silent
from chatwright.hub.pull import pull

__all__ = ["InstalledModel", "Manifest", "ModelsFolder", "Progress", "Silent", "check_name", "is_name", "pull"]
