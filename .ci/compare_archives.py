"""Compare both archives with what git has: ``compare_archives.py FOLDER``."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "django_smska/"


def main(folder: Path) -> None:
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
    tracked = set(listed.stdout.splitlines())
    in_package = {name for name in tracked if name.startswith(PACKAGE)}
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    with tarfile.open(sdist) as tar:
        in_sdist = {one.name.split("/", 1)[1] for one in tar.getmembers() if one.isfile()}
    made = {n for n in in_sdist if ".egg-info/" in n} | {"PKG-INFO", "setup.cfg"}
    meta = {n for n in in_wheel if ".dist-info/" in n}
    problems = {
        "not in the sdist": {n for n in tracked if not n.startswith(".")} - in_sdist,
        "in the sdist, not in git": in_sdist - made - tracked,
        "not in the wheel": in_package - in_wheel,
        "in the wheel, not in the package": in_wheel - meta - in_package,
        "not in the wheel either": {"LICENSE"} - {n.rsplit("/", 1)[1] for n in meta},
    }
    print(f"{wheel.name}: {len(in_wheel)} files; {sdist.name}: {len(in_sdist)} files")
    found = [f"{what}: {sorted(names)}" for what, names in problems.items() if names]
    sys.exit("\n".join(found) or None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
