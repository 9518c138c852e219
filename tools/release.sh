#!/usr/bin/env bash
# Does all of a release but the upload, from what is committed: agreement of version, date and CHANGELOG.md; sdist and
# wheel, built and checked in a new environment; the wheel's contents against the sources; the wheel installed and started
# under the oldest and the newest Python that it is meant for (tools/check_versions.sh). Prints the commands that publish.
#
#   tools/release.sh [FOLDER]          where the archives go (default: dist)
#
#   REPOSITORY_URL=https://...         what README's `git clone` names in the archives (default: the placeholder stays)
#   PYTHONS="python3.10 python3.13"    where the wheel is tried (this is the default); what is not there is skipped
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

fail() {
    echo "release.sh: error: $1" >&2
    exit 1
}

[ -z "$(git status --porcelain)" ] || fail "uncommitted changes; commit or stash: $(git status --porcelain | head -5)"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' nnunet_nacl/__init__.py)
for expected in "CHANGELOG.md:$(grep -m 1 '^## ' CHANGELOG.md):## [$version] - $(date -u +%F)" \
    "CITATION.cff:$(grep '^version' CITATION.cff | tr -d :):version $version" \
    "CITATION.cff:$(grep '^date-released' CITATION.cff | tr -d :):date-released $(date -u +%F)"; do
    IFS=: read -r file found wanted <<< "$expected"
    [ "$found" = "$wanted" ] || fail "$file has '$found', a release of $version today needs '$wanted'"
done

echo "== nnunet_nacl $version: build and check"
mkdir "$work/sources"
git archive HEAD | tar -x -C "$work/sources"
[ -z "${REPOSITORY_URL:-}" ] || sed -i "s|REPOSITORY_URL|$REPOSITORY_URL|" "$work/sources/README.md"
python3 -m venv "$work/build"
"$work/build/bin/pip" install -q build twine
"$work/build/bin/python" -m build --outdir "$work/dist" "$work/sources" > "$work/log" 2>&1 || fail "$(tail -20 "$work/log")"
"$work/build/bin/twine" check --strict "$work"/dist/*

echo "== contents of the wheel"
"$work/build/bin/python" - "$work"/dist/*.whl "$work/sources" << 'END'
import sys
import zipfile
from collections import Counter
from pathlib import Path

archive, sources = zipfile.ZipFile(sys.argv[1]), Path(sys.argv[2])
names = {name for name in archive.namelist() if ".dist-info/" not in name}
installed = {"nnunet_nacl": "nnunet_nacl", "trainers": "nnunet_nacl_trainers"}
wanted = {"nnunet_nacl.pth", "nnunet_nacl.start"} | {
    f"{package}/{path.relative_to(sources / folder).as_posix()}"
    for folder, package in installed.items()
    for path in (sources / folder).rglob("*")
    if path.is_file()
}
if names != wanted:
    sys.exit(f"not in the wheel: {sorted(wanted - names)}; in the wheel, but not in the sources: {sorted(names - wanted)}")
for folder, n in sorted(Counter(str(Path(name).parent) for name in names if name.endswith(".py")).items()):
    print(f"  {folder}/ {n} modules")
print(*(f"  {name}" for name in sorted(archive.namelist()) if not name.endswith(".py")), sep="\n")
END

echo "== the wheel in new environments"
WHEEL=$(echo "$work"/dist/*.whl) NNUNETS=newest PYTHONS=${PYTHONS:-python3.10 python3.13} tools/check_versions.sh
cp "$work"/dist/* "$target"
(cd "$target" && ls -l "nnunet_nacl-$version"* && sha256sum "nnunet_nacl-$version"*)
echo "== checked; to publish:"
echo "  git tag -a v$version -m 'nnunet_nacl $version'"
echo "  twine upload $target/nnunet_nacl-$version*"
