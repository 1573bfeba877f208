import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data_folder() -> Path:
    root = os.environ.get("HANDWRITING_DATA")
    if not root:
        pytest.skip("HANDWRITING_DATA is not set: point it to the folder of the real data sets")
    if not Path(root).is_dir():
        pytest.skip(f"HANDWRITING_DATA={root} is no folder")
    return Path(root)
