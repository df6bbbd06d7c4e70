#!/usr/bin/env bash
# Shows how clang-format would lay out the staged lines, and fails if that isn't how they are. The rest of a file is left alone.
set -euo pipefail
difference=$(git clang-format --staged --diff --quiet --extensions c,h,cpp,hpp,cu,cuh || true)
case $difference in
"" | "no modified files to format" | "clang-format did not modify any files") exit 0 ;;
esac
printf '%s\n' "$difference" "To lay them out: git clang-format --staged"
exit 1
