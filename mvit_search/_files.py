"""Files: atomic writing, and finding the content that ships beside the package."""

import os
import re
import tempfile
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def bundled(folder: str) -> Path:
    """Folder of shipped content (`search_spaces`, `dashboards`).

    A wheel carries it as `mvit_search/_bundled/<folder>`; in a checkout or an editable install it
    stands beside the package.
    """
    inside = _PACKAGE / "_bundled" / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes so that a reader, or a crash at any moment, sees the old file or the new, whole."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sweep_temporary(folder: Path) -> None:
    """Remove what `write_atomically` leaves in a folder when it is killed. Only where nobody else writes there."""
    for path in folder.iterdir():
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name):
            path.unlink(missing_ok=True)
