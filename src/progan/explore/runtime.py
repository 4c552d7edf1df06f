"""The files of onnxruntime-web, by which browsers run generators: their address, or copies beside a page."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from progan.errors import DependencyError
from progan.system.files import atomic_path, cache_folder
from progan.system.progress import Progress, unheard

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
PUBLIC = f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist/"
_MOST_BYTES = 200 * 2**20


@dataclass(frozen=True)
class RuntimeFile:
    """A file of the runtime.

    Attributes:
        name: In the package's folder `dist`.
        sha384: In Base64, as integrity hashes of web pages are written.
    """

    name: str
    sha384: str

    @property
    def integrity(self) -> str:
        """What a browser checks."""
        return f"sha384-{self.sha384}"

    def fits(self, data: bytes) -> bool:
        """Whether these are its bytes."""
        return base64.b64encode(hashlib.sha384(data).digest()).decode() == self.sha384


SCRIPT = RuntimeFile(
    "ort.wasm.bundle.min.mjs", "PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"
)
WASM = RuntimeFile(
    "ort-wasm-simd-threaded.wasm", "vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"
)
GPU_SCRIPT = RuntimeFile(
    "ort.webgpu.bundle.min.mjs", "1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f"
)
GPU_WASM = RuntimeFile(
    "ort-wasm-simd-threaded.asyncify.wasm", "EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR"
)
RUNTIMES = {"wasm": (SCRIPT, WASM), "gpu": (GPU_SCRIPT, GPU_WASM)}
"""Script and program: a small one, and one for WebGPU, which pages load where a picture takes long."""

FILES = tuple(file for pair in RUNTIMES.values() for file in pair)


def copy_runtime(folder: Path, progress: Progress = unheard) -> None:
    """Put the files of the runtime into a folder: from this user's cache, else by npm or from their address.

    Whatever they come from, each is taken only if its hash is the one that is written here.

    Args:
        folder: Made if missing.
        progress: Told of the files.

    Raises:
        DependencyError: if they cannot be had.
        StorageError: if they cannot be written.
    """
    cache = cache_folder() / f"{PACKAGE}-{VERSION}"
    for done, file in enumerate(FILES):
        progress("runtime of the page", done, len(FILES))
        cached = cache / file.name
        if not (cached.is_file() and file.fits(cached.read_bytes())):
            _fill(cache)
        with atomic_path(folder / file.name) as temporary:
            shutil.copyfile(cached, temporary)
    progress("runtime of the page", len(FILES), len(FILES))


def _fill(cache: Path) -> None:
    package = _by_npm()
    found = _unpacked(package) if package is not None else {file.name: _by_address(file) for file in FILES}
    for file in FILES:
        content = found.get(file.name, b"")
        if not file.fits(content):
            raise DependencyError(
                f"{file.name} of {PACKAGE} {VERSION} is not the file that it should be (its hash is "
                f"another); leave --offline out, or try again over another connection"
            )
        with atomic_path(cache / file.name) as temporary:
            temporary.write_bytes(content)


def _unpacked(data: bytes) -> dict[str, bytes]:
    """Return the files of the runtime that a package holds, by name."""
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for file in FILES:
                member = archive.extractfile(f"package/dist/{file.name}")
                contents[file.name] = b"" if member is None else member.read(_MOST_BYTES)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise DependencyError(f"{PACKAGE} {VERSION} came damaged ({error}); try again") from None
    return contents


def _by_npm() -> bytes | None:
    """Return the package as npm brings it, which knows this machine's registry; None if there is no npm."""
    if (npm := shutil.which("npm")) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        words = [npm, "pack", "--silent", "--pack-destination", folder, f"{PACKAGE}@{VERSION}"]
        done = subprocess.run(words, capture_output=True, check=False, cwd=folder, timeout=600)
        found = sorted(Path(folder).glob("*.tgz"))
        return found[0].read_bytes() if done.returncode == 0 and found else None


def _by_address(file: RuntimeFile) -> bytes:
    """Return a file from where pages load it that have no copy."""
    try:
        with urllib.request.urlopen(PUBLIC + file.name, timeout=60) as answer:
            data: bytes = answer.read(_MOST_BYTES)
            return data
    except OSError as error:
        raise DependencyError(
            f"--offline needs {PACKAGE} {VERSION} once, and it cannot be downloaded from {PUBLIC} "
            f"({error}); leave --offline out, and the page loads it in the visitor's browser"
        ) from None
